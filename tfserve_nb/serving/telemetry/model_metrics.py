"""Snapshots of a model's metrics, for people, dashboards and the admin API.

Thread: any; immutable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...serialization import Sparse
from .histogram import NUM_BUCKETS, percentile_s, percentiles_ms

Counts: TypeAlias = Annotated[np.ndarray, Sparse(NUM_BUCKETS)]
"""Samples of each bucket of `histogram.edges_ms`; shape `(NUM_BUCKETS,)`, int64."""

PHASES = ("decode", "queue", "run", "encode")
"""Where the time of a request goes: body to tensors, waiting for a batch, the model, tensors to the response."""

REASONS = ("full", "free", "timeout", "deadline")
"""Why a batch left its queue."""


@dataclass(frozen=True, slots=True)
class Series:
    """What one version did over time, oldest first; all arrays have shape `(n,)` and type float64.

    Attributes:
        rps: answered requests per second within each step.
        rows_ps: rows (dimension 0 of the inputs) of them per second.
        p50_ms: median latency of each step in milliseconds; NaN where there are too few samples.
        p95_ms: 95th percentile over the trailing `tail_s` seconds; NaN where there are too few samples.
        p99_ms: 99th percentile likewise.
        phases_ms: phase -> mean milliseconds of a request of the step; NaN where none was answered.
        waiting: how many requests waited in the queue, on average over the step: by Little's law (1961), the sum of
            their waits divided by the length of the step.
    """

    rps: NDArray[np.float64]
    rows_ps: NDArray[np.float64]
    p50_ms: NDArray[np.float64]
    p95_ms: NDArray[np.float64]
    p99_ms: NDArray[np.float64]
    phases_ms: Mapping[str, NDArray[np.float64]]
    waiting: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The batches of one version since it was loaded.

    Attributes:
        num_batches: runs of the model.
        num_rows: rows that they had, without padding.
        num_padded: rows that were added to reach an allowed batch size.
        reasons: why they left: `full`, `free` (the runner was), `timeout` or `deadline` -> how many.
        sizes: rows of a run, padding included -> how many.
        queue_ms: mean wait of a request in the queue, in milliseconds.
        run_ms: rows of a run -> the milliseconds that it takes, as learned.
    """

    num_batches: int = 0
    num_rows: int = 0
    num_padded: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[int, int] = field(default_factory=dict)
    queue_ms: float = 0.0
    run_ms: Mapping[int, float] = field(default_factory=dict)

    @property
    def mean_rows(self) -> float:
        """Rows of a batch, on average."""
        return self.num_rows / self.num_batches if self.num_batches else 0.0


@dataclass(frozen=True, slots=True)
class VersionMetrics:
    """What one version did.

    Attributes:
        version: its number.
        num_requests: answered since it was first used in this process.
        num_errors: failed since then, whatever the reason.
        num_recent: answered within `span_s`.
        num_recent_errors: failed within `span_s`.
        p50_ms: latency over `span_s` in milliseconds; None when hidden for want of samples.
        p95_ms: likewise.
        p99_ms: likewise.
        histogram: latencies over `span_s`: samples of each bucket of `histogram.edges_ms`, shape `(NUM_BUCKETS,)`.
        series: the same over time.
        batches: the batches that it ran since it was loaded.
    """

    version: int
    num_requests: int
    num_errors: int
    num_recent: int
    num_recent_errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    histogram: Counts
    series: Series
    batches: BatchSummary = field(default_factory=BatchSummary)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """A snapshot of one model's numbers.

    Attributes:
        name: the model's name.
        span_s: the time span that percentiles and series cover, in seconds.
        step_s: the time between two values of the series, in seconds.
        age_s: how long ago each step of the series ended, in seconds; shape `(n,)`, float64, decreasing to 0.
        total: grows with every recorded request: two snapshots with equal totals hold no new request.
        num_unrouted_errors: requests that failed before a version was chosen (malformed, unauthorised, unknown).
        errors_ps: gRPC code name -> failures per second within each step, of all versions and of none; shape `(n,)`.
        signatures: the names of the signatures that were called, sorted.
        versions: version -> its numbers.
    """

    name: str
    span_s: float
    step_s: float
    age_s: NDArray[np.float64]
    total: int
    num_unrouted_errors: int
    errors_ps: Mapping[str, NDArray[np.float64]]
    signatures: tuple[str, ...]
    versions: Mapping[int, VersionMetrics]

    def with_batches(self, batches: Mapping[int, BatchSummary]) -> ModelMetrics:
        """The same with what the versions have run."""
        versions = {
            version: replace(metrics, batches=batches.get(version, metrics.batches))
            for version, metrics in self.versions.items()
        }
        return replace(self, versions=versions)


def combined(summaries: Iterable[BatchSummary]) -> BatchSummary:
    """The batches of several queues; run times are those of the queue with the most batches."""
    known = sorted(summaries, key=lambda summary: summary.num_batches)
    if not known:
        return BatchSummary()
    num_batches = sum([summary.num_batches for summary in known])
    sizes: Counter[int] = Counter()
    for summary in known:
        sizes.update(summary.sizes)
    return BatchSummary(
        num_batches=num_batches,
        num_rows=sum([summary.num_rows for summary in known]),
        num_padded=sum([summary.num_padded for summary in known]),
        reasons={reason: sum([summary.reasons.get(reason, 0) for summary in known]) for reason in REASONS},
        sizes=dict(sorted(sizes.items())),
        queue_ms=sum([summary.queue_ms * summary.num_batches for summary in known]) / max(1, num_batches),
        run_ms=known[-1].run_ms,
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The seconds of one version that a snapshot is made of: `tail_s + span_s` full ones, then the running one.

    Attributes:
        counts: samples per bucket, shape `(seconds, NUM_BUCKETS)`, int64.
        sums: shape `(seconds, 1 + len(PHASES))`, float64: rows, then the seconds that all requests together spent in
            each of `PHASES`.
        num_requests: answered since the version was first used.
        num_errors: failed since then.
        num_recent_errors: failed within the span.
    """

    counts: np.ndarray
    sums: np.ndarray
    num_requests: int
    num_errors: int
    num_recent_errors: int


def step_ends(span_s: int, step_s: int, tail_s: int) -> np.ndarray:
    """The rows of a `Window` at which the steps of its series end, increasing; the last one is the span's end."""
    return np.arange(tail_s + span_s, tail_s, -step_s)[::-1]


def summarised(version: int, window: Window, *, span_s: int, step_s: int, tail_s: int) -> VersionMetrics:
    """Turn seconds into a `VersionMetrics`.

    The first `tail_s` rows only serve the first percentiles. The last row is the running second: it counts, but the
    series end before it, or every line would dip at its end.

    Args:
        version: its number.
        window: its seconds.
        span_s: seconds of the series.
        step_s: seconds of one step.
        tail_s: the seconds before each point that its p95 and p99 cover.
    """
    ends = step_ends(span_s, step_s, tail_s)
    starts = np.maximum(ends - step_s, tail_s)
    used = np.flatnonzero(window.counts.any(axis=0))
    first = int(used[0]) if len(used) else 0
    # Cumulated over seconds and buckets, so that any span's histogram is one difference. Most buckets are empty.
    cumulated = _cumulated(window.counts[:, first : int(used[-1]) + 1 if len(used) else 1]).cumsum(axis=1)
    sums = _cumulated(window.sums)
    steps = cumulated[ends] - cumulated[starts]
    tails = cumulated[ends] - cumulated[ends - tail_s]
    num_answered = steps[:, -1]
    of_step = sums[ends] - sums[starts]
    phases_ms = np.full((len(ends), len(PHASES)), np.nan)
    np.divide(1e3 * of_step[:, 1:], num_answered[:, None], out=phases_ms, where=num_answered[:, None] > 0)
    seconds = (ends - starts).astype(np.float64)
    series = Series(
        rps=num_answered / seconds,
        rows_ps=of_step[:, 0] / seconds,
        p50_ms=percentiles_ms(steps, 0.5, first),
        p95_ms=percentiles_ms(tails, 0.95, first),
        p99_ms=percentiles_ms(tails, 0.99, first),
        phases_ms={phase: phases_ms[:, index] for index, phase in enumerate(PHASES)},
        waiting=of_step[:, 1 + PHASES.index("queue")] / seconds,
    )
    recent = window.counts[tail_s:].sum(axis=0)
    p50, p95, p99 = (_shown(percentile_s(recent, quantile)) for quantile in (0.5, 0.95, 0.99))
    return VersionMetrics(
        version, window.num_requests, window.num_errors, int(recent.sum()), window.num_recent_errors, p50, p95, p99,
        recent, series,
    )  # fmt: skip


def _cumulated(rows: np.ndarray) -> np.ndarray:
    """Sums over the rows before each one, and over all: one row more."""
    found = np.zeros((len(rows) + 1, rows.shape[1]), dtype=rows.dtype)
    np.cumsum(rows, axis=0, out=found[1:])
    return found


def _shown(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
