"""Counts and latencies of requests, by model, version and signature, in bounded memory.

Every number that the product shows comes from the five timestamps of a `RequestRecord`: received, decoded, batch
started, batch done, written, all on one clock (`time.perf_counter`, seconds). A request is recorded once, after its
response was written.

Thread: any; one lock guards the counters, a snapshot holds it for about a millisecond.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Container

import numpy as np

from .histogram import NUM_BUCKETS, counts_of
from .model_metrics import PHASES, ModelMetrics, Window, step_ends, summarised
from .records import RequestRecord

MAX_PENDING = 1000
"""Records that wait to be counted."""

HISTORY_S = 930
"""How many seconds of history are kept: a quarter of an hour, and what the first percentiles in it need."""

TAIL_S = 30
"""The seconds before each point of the series that its p95 and p99 cover."""


class _Second:
    """The requests that one signature of one version answered within one second."""

    __slots__ = ("counts", "sums")

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_BUCKETS, dtype=np.uint32)
        self.sums = np.zeros(1 + len(PHASES))


class _Counters:
    """The counters of one signature of one version: totals, and the seconds of the history in which it answered."""

    __slots__ = ("num_errors", "num_requests", "seconds")

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_errors = 0
        self.seconds: dict[int, _Second] = {}

    def add(self, records: list[RequestRecord]) -> None:
        """Count answered requests."""
        times = np.array([record[5:10] for record in records], dtype=np.float64)  # None becomes NaN
        rows = np.array([record.num_rows for record in records], dtype=np.float64)
        written_s = times[:, 4]
        spent = np.column_stack([rows, np.nan_to_num(np.diff(times, axis=1))])
        seconds = written_s.astype(np.int64)
        self.num_requests += len(records)
        for number in np.unique(seconds):
            second = self.seconds.get(int(number))
            if second is None:
                self.forget_before(int(number) - HISTORY_S)
                second = self.seconds[int(number)] = _Second()
            here = seconds == number
            second.counts += counts_of((written_s - times[:, 0])[here]).astype(np.uint32)
            second.sums += spent[here].sum(axis=0)

    def forget_before(self, number: int) -> None:
        """Drop what no window reaches any more."""
        for old in [other for other in self.seconds if other < number]:
            del self.seconds[old]


class _ModelCounters:
    """The counters of one model."""

    def __init__(self) -> None:
        self.total = 0
        self.num_unrouted = 0
        self.by_signature: dict[tuple[int, str], _Counters] = {}
        self.errors: dict[tuple[int, str, int | None], int] = {}  # second, code, version -> failures

    def count_all(self, records: list[RequestRecord]) -> None:
        self.total += len(records)
        answered: dict[tuple[int, str], list[RequestRecord]] = {}
        for record in records:
            version = record.version
            if record.code == "OK" and version is not None:
                answered.setdefault((version, record.signature), []).append(record)
            else:
                self._count_error(record)
        for key, some in answered.items():
            self._counters(key, some[0]).add(some)

    def _count_error(self, record: RequestRecord) -> None:
        if record.version is None:
            self.num_unrouted += 1
        else:
            self._counters((record.version, record.signature), record).num_errors += 1
        second = int(record.written_s)
        key = (second, record.code, record.version)
        if key not in self.errors:
            self.errors = {other: count for other, count in self.errors.items() if other[0] >= second - HISTORY_S}
        self.errors[key] = self.errors.get(key, 0) + 1

    def _counters(self, key: tuple[int, str], record: RequestRecord) -> _Counters:
        counters = self.by_signature.get(key)
        if counters is None:
            # A new version, so older ones may have had their time: many come and go in the life of a kernel.
            for other in self.by_signature.values():
                other.forget_before(int(record.written_s) - HISTORY_S)
            counters = self.by_signature[key] = _Counters()
        return counters

    def forget_versions(self, known: Container[int], before: int) -> None:
        """Drop the counters of versions that are not known any more, once no window reaches their requests."""
        for key, counters in list(self.by_signature.items()):
            if key[0] not in known:
                counters.forget_before(before)
                if not counters.seconds:
                    del self.by_signature[key]

    def windows(self, first: int, num_seconds: int, signature: str | None) -> dict[int, Window]:
        """Version -> its seconds from `first` on; of one signature, or of all."""
        found: dict[int, list[_Counters]] = {}
        for (version, name), counters in sorted(self.by_signature.items()):
            if signature in (None, name):
                found.setdefault(version, []).append(counters)
        return {version: self._window(version, some, first, num_seconds) for version, some in found.items()}

    def _window(self, version: int, some: list[_Counters], first: int, num_seconds: int) -> Window:
        counts = np.zeros((num_seconds, NUM_BUCKETS), dtype=np.int64)
        sums = np.zeros((num_seconds, 1 + len(PHASES)))
        for counters in some:
            for number, second in counters.seconds.items():
                if 0 <= number - first < num_seconds:
                    counts[number - first] += second.counts
                    sums[number - first] += second.sums
        return Window(
            counts,
            sums,
            sum([counters.num_requests for counters in some]),
            sum([counters.num_errors for counters in some]),
            sum([n for (at, _, by), n in self.errors.items() if by == version and at >= first + TAIL_S]),
        )

    def errors_ps(self, first: int, ends: np.ndarray, step_s: int) -> dict[str, np.ndarray]:
        """Code -> failures per second of the steps that end at `first + ends`."""
        found: dict[str, np.ndarray] = {}
        for (at, code, _), count in self.errors.items():
            step = int(np.searchsorted(ends, at - first, side="right"))
            if step < len(ends) and ends[step] - step_s <= at - first:
                found.setdefault(code, np.zeros(len(ends)))[step] += count / step_s
        return dict(sorted(found.items()))


class Metrics:
    """The recorder of a process: every request goes in once, snapshots come out.

    Args:
        now: the clock, in seconds; tests give their own.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._models: defaultdict[str, _ModelCounters] = defaultdict(_ModelCounters)
        self._pending: deque[RequestRecord] = deque()

    def record(self, record: RequestRecord) -> None:
        """Count one finished request; the arithmetic is left to the next snapshot, or to every 1000th request."""
        self._pending.append(record)
        if len(self._pending) >= MAX_PENDING:
            with self._lock:
                self._absorb()

    def _absorb(self) -> None:
        by_model: dict[str, list[RequestRecord]] = {}
        while self._pending:  # others may add meanwhile
            record = self._pending.popleft()
            by_model.setdefault(record.model, []).append(record)
        for name, records in by_model.items():
            self._models[name].count_all(records)

    def forget(self, model: str) -> None:
        """Drop the counters of a model that is no longer served."""
        with self._lock:
            self._absorb()
            self._models.pop(model, None)

    def forget_versions(self, model: str, known: Container[int]) -> None:
        """Drop the counters of a model's versions that are none of the known ones, once their requests are history."""
        with self._lock:
            self._absorb()
            counters = self._models.get(model)
            if counters is not None:
                counters.forget_versions(known, int(self._now()) - HISTORY_S)

    def snapshot(
        self, model: str, *, span_s: int = 120, step_s: int = 2, tail_s: int = TAIL_S, signature: str | None = None
    ) -> ModelMetrics:
        """The numbers of one model now.

        Args:
            model: its name; one without requests gives an empty snapshot.
            span_s: seconds that percentiles and series cover, at most `HISTORY_S - tail_s`.
            step_s: seconds of one step of the series.
            tail_s: seconds before each point of the series that its p95 and p99 cover.
            signature: count only requests of this signature; None for all.
        """
        span_s = min(span_s, HISTORY_S - tail_s)
        ends = step_ends(span_s, step_s, tail_s)
        with self._lock:
            self._absorb()
            counters = self._models.get(model) or _ModelCounters()
            first = int(self._now()) - span_s - tail_s
            windows = counters.windows(first, span_s + tail_s + 1, signature)
            errors_ps = counters.errors_ps(first, ends, step_s)
            total, num_unrouted = counters.total, counters.num_unrouted
            signatures = sorted({name for _, name in counters.by_signature if name})
        return ModelMetrics(
            name=model,
            span_s=float(span_s),
            step_s=float(step_s),
            age_s=(tail_s + span_s - ends).astype(np.float64),
            total=total,
            num_unrouted_errors=num_unrouted,
            errors_ps=errors_ps,
            signatures=tuple(signatures),
            versions={
                version: summarised(version, window, span_s=span_s, step_s=step_s, tail_s=tail_s)
                for version, window in windows.items()
            },
        )
