"""Counts and latencies of requests, by model and version, in bounded memory.

Every number that the product shows comes from the five timestamps of a `RequestRecord`: received, decoded, batch
started, batch done, written, all on one clock (`time.perf_counter`, seconds). A request is recorded once, after its
answer was written. Percentiles are read from histograms with logarithmic buckets and are hidden when there are too
few samples to mean anything.

Thread: any; one lock guards the counters, it is held for microseconds.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from .batch_summary import BatchSummary

MAX_PENDING = 1000
"""Records that wait to be counted."""

HISTORY_S = 600
"""How many seconds of history are kept."""

LOWEST_S = 10e-6
STEPS_PER_OCTAVE = 8
NUM_BUCKETS = 200
"""Buckets of ratio 2**(1/8): 10 µs to 5 minutes, each percentile within ±4.5 % of the truth."""

FEWEST_SAMPLES = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662}
"""Samples below which a percentile is hidden: with fewer, a 99 % binomial bound that allows one sample above the
percentile cannot be met (the rule of MLPerf LoadGen's early stopping; its figure for p99 is 662)."""


class RequestRecord(NamedTuple):
    """One finished request. A tuple, because a frozen dataclass costs two microseconds more to make.

    Attributes:
        model: the model's name, or "" when the request named none that exists.
        version: the version that answered, or None when it never got that far.
        signature: the signature's name, or "".
        code: gRPC code name, `OK` for an answered request.
        num_rows: rows of the request (dimension 0).
        received_s: the request's head had arrived (in-kernel: predict was called).
        decoded_s: the body had become tensors; equal to `received_s` when it never did.
        started_s: its first batch started; None when it never ran.
        done_s: its last batch was done; None when it never ran.
        written_s: the answer was handed to the socket (in-kernel: returned).
        api: the call, such as `Predict` (gRPC) or `predict` (REST and in-kernel).
        entrypoint: `GRPC`, `REST` or `KERNEL`.
        label: the version label that the request named, or "".
    """

    model: str
    version: int | None
    signature: str
    code: str
    num_rows: int
    received_s: float
    decoded_s: float
    started_s: float | None
    done_s: float | None
    written_s: float
    api: str = "predict"
    entrypoint: str = "KERNEL"
    label: str = ""

    @property
    def latency_s(self) -> float:
        """From the request's head to the answer handed over, in seconds."""
        return self.written_s - self.received_s


@dataclass(frozen=True, slots=True)
class LatencySeries:
    """Requests per second and latency over time, oldest first; all arrays have the same length.

    Attributes:
        age_s: how long ago each step ended, in seconds (float64, decreasing to 0).
        rps: answered requests per second within each step (float64).
        p50_ms: median latency of each step in milliseconds; NaN where there are too few samples.
        p99_ms: 99th percentile over the trailing `tail_s` seconds; NaN where there are too few samples.
    """

    age_s: np.ndarray
    rps: np.ndarray
    p50_ms: np.ndarray
    p99_ms: np.ndarray


@dataclass(frozen=True, slots=True)
class VersionMetrics:
    """What one version did.

    Attributes:
        version: its number.
        num_requests: answered since it was first used in this process.
        num_errors: failed since then, whatever the reason.
        num_recent: answered within `span_s`.
        p50_ms: over `span_s`; None when hidden for want of samples.
        p99_ms: likewise.
        series: the same over time.
        batches: the batches that it ran since it was loaded.
    """

    version: int
    num_requests: int
    num_errors: int
    num_recent: int
    p50_ms: float | None
    p99_ms: float | None
    series: LatencySeries
    batches: BatchSummary = field(default_factory=BatchSummary)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """A snapshot of one model's numbers.

    Attributes:
        name: the model's name.
        span_s: the time span that `p50_ms`, `p99_ms` and the series cover, in seconds.
        total: grows with every recorded request: two snapshots with equal totals hold no new request.
        num_unrouted_errors: requests that failed before a version was chosen (malformed, unauthorised, unknown).
        versions: version -> its numbers.
    """

    name: str
    span_s: float
    total: int
    num_unrouted_errors: int
    versions: Mapping[int, VersionMetrics]

    def with_batches(self, batches: Mapping[int, BatchSummary]) -> ModelMetrics:
        """The same with what the versions have run."""
        versions = {
            version: replace(one, batches=batches.get(version, one.batches)) for version, one in self.versions.items()
        }
        return replace(self, versions=versions)


def bucket_of(latency_s: float) -> int:
    """The histogram bucket of a latency: bucket i holds `[LOWEST_S * 2**(i/8), LOWEST_S * 2**((i+1)/8))`."""
    if latency_s <= LOWEST_S:
        return 0
    return min(NUM_BUCKETS - 1, int(math.log2(latency_s / LOWEST_S) * STEPS_PER_OCTAVE))


def percentile_s(counts: np.ndarray, quantile: float) -> float | None:
    """A percentile of a histogram, in seconds.

    Args:
        counts: samples per bucket, shape `(NUM_BUCKETS,)`, any integer type.
        quantile: between 0 and 1; a key of `FEWEST_SAMPLES`.

    Returns:
        The geometric middle of the bucket that holds the sample of rank `ceil(quantile * n)`, or None when there are
        fewer samples than `FEWEST_SAMPLES[quantile]`.
    """
    cumulated = np.cumsum(counts)
    num_samples = int(cumulated[-1])
    if num_samples < FEWEST_SAMPLES[quantile]:
        return None
    bucket = int(np.searchsorted(cumulated, math.ceil(quantile * num_samples)))
    return float(LOWEST_S * 2 ** ((bucket + 0.5) / STEPS_PER_OCTAVE))


class _VersionCounters:
    """The counters of one version: totals, and a histogram for each recent second in which it answered."""

    __slots__ = ("histograms", "num_errors", "num_requests")

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_errors = 0
        self.histograms: dict[int, np.ndarray] = {}

    def add(self, record: RequestRecord) -> None:
        if record.code != "OK":
            self.num_errors += 1
            return
        self.num_requests += 1
        second = int(record.written_s)
        histogram = self.histograms.get(second)
        if histogram is None:
            self.forget_before(second - HISTORY_S)
            histogram = self.histograms[second] = np.zeros(NUM_BUCKETS, dtype=np.uint32)
        histogram[bucket_of(record.latency_s)] += 1

    def forget_before(self, second: int) -> None:
        """Drop what no window reaches any more."""
        for old in [other for other in self.histograms if other < second]:
            del self.histograms[old]

    def window(self, now_s: float, span_s: int) -> np.ndarray:
        """Histograms of the last `span_s` full seconds and the running one, shape `(span_s + 1, NUM_BUCKETS)`."""
        first = int(now_s) - span_s
        rows = np.zeros((span_s + 1, NUM_BUCKETS), dtype=np.int64)
        for second, histogram in self.histograms.items():
            if 0 <= second - first <= span_s:
                rows[second - first] = histogram
        return rows


class Metrics:
    """The recorder of a process: every request goes in once, snapshots come out.

    Args:
        now: the clock, in seconds; tests give their own.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, int], _VersionCounters] = {}
        self._unrouted: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._pending: deque[RequestRecord] = deque()

    def record(self, record: RequestRecord) -> None:
        """Count one finished request; the arithmetic is left to whoever looks, or to every 1000th request."""
        self._pending.append(record)
        if len(self._pending) >= MAX_PENDING:
            with self._lock:
                self._absorb()

    def _absorb(self) -> None:
        pending = self._pending
        while pending:
            self._count(pending.popleft())

    def _count(self, record: RequestRecord) -> None:
        self._totals[record.model] = self._totals.get(record.model, 0) + 1
        if record.version is None:
            self._unrouted[record.model] = self._unrouted.get(record.model, 0) + 1
            return
        key = (record.model, record.version)
        counters = self._versions.get(key)
        if counters is None:
            # A new version, so older ones may have had their time: many come and go in the life of a kernel.
            for other in self._versions.values():
                other.forget_before(int(record.written_s) - HISTORY_S)
            counters = self._versions[key] = _VersionCounters()
        counters.add(record)

    def forget(self, model: str) -> None:
        """Drop the counters of a model that is no longer served."""
        with self._lock:
            self._absorb()
            self._totals.pop(model, None)
            self._unrouted.pop(model, None)
            for key in [key for key in self._versions if key[0] == model]:
                del self._versions[key]

    def snapshot(self, model: str, *, span_s: int = 120, step_s: int = 2, tail_s: int = 30) -> ModelMetrics:
        """The numbers of one model now.

        Args:
            model: its name; one without requests gives an empty snapshot.
            span_s: seconds that percentiles and series cover, at most `HISTORY_S - tail_s`.
            step_s: seconds of one step of the series.
            tail_s: seconds that each p99 of the series looks back.
        """
        span_s = min(span_s, HISTORY_S - tail_s)
        now_s = self._now()
        with self._lock:
            self._absorb()
            total = self._totals.get(model, 0)
            unrouted = self._unrouted.get(model, 0)
            windows = {
                version: (counters.num_requests, counters.num_errors, counters.window(now_s, span_s + tail_s))
                for (name, version), counters in self._versions.items()
                if name == model
            }
        versions = {
            version: _summarise(version, num_requests, num_errors, rows, step_s, tail_s)
            for version, (num_requests, num_errors, rows) in sorted(windows.items())
        }
        return ModelMetrics(model, float(span_s), total, unrouted, versions)


def _summarise(
    version: int, num_requests: int, num_errors: int, rows: np.ndarray, step_s: int, tail_s: int
) -> VersionMetrics:
    """Turn per-second histograms into a `VersionMetrics`.

    The first `tail_s` rows are only looked back at. The last row is the running second: it counts, but the series end
    before it, or every line would dip at its end.
    """
    recent = rows[tail_s:].sum(axis=0)
    rows = rows[:-1]
    ends = np.arange(len(rows), tail_s, -step_s)[::-1]
    p50s, p99s, rates = [], [], []
    for end in ends:
        step = rows[max(tail_s, end - step_s) : end].sum(axis=0)
        rates.append(step.sum() / step_s)
        p50s.append(percentile_s(step, 0.5))
        p99s.append(percentile_s(rows[end - tail_s : end].sum(axis=0), 0.99))
    series = LatencySeries(
        age_s=(len(rows) - ends).astype(np.float64),
        rps=np.asarray(rates, dtype=np.float64),
        p50_ms=_milliseconds(p50s),
        p99_ms=_milliseconds(p99s),
    )
    p50, p99 = _milliseconds([percentile_s(recent, 0.5), percentile_s(recent, 0.99)])
    return VersionMetrics(
        version=version,
        num_requests=num_requests,
        num_errors=num_errors,
        num_recent=int(recent.sum()),
        p50_ms=None if math.isnan(p50) else float(p50),
        p99_ms=None if math.isnan(p99) else float(p99),
        series=series,
    )


def _milliseconds(seconds: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value * 1e3 for value in seconds], dtype=np.float64)
