"""Statistics of a run: percentiles with intervals, and warnings.

Latencies count from the moment at which a request was due, so the requests that wait while a server stands still
count too (no coordinated omission). Percentiles are order statistics of all successful requests; their intervals are
exact binomial ones. Warnings report a generator that was late and a run that had not settled.

Thread: any; pure functions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..serialization import HighEnd
from ..serving.telemetry.histogram import FEWEST_SAMPLES
from .load.samples import OK, Samples, status_text
from .load.schedule import Load

FEWEST = {**FEWEST_SAMPLES, 0.999: 6636}
"""Samples below which a percentile is hidden; the rule is that of `serving.histogram`."""

CONFIDENCE = 0.95
LATE_S = 1e-3
MAX_LATE_SHARE = 0.01
"""A generator that was late by more than a millisecond with more than 1 % of the requests measures itself (the
threshold at which NVIDIA's perf_analyzer warns)."""
STABLE_RATIO = 1.10
NUM_WINDOWS = 3
"""Three windows within 10 %: perf_analyzer's rule."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile of the latencies, in milliseconds.

    Attributes:
        quantile: such as 0.99.
        ms: its value.
        low_ms: the lower end of its 95 % interval.
        high_ms: the upper end; infinite when no sample is high enough to bound it.
    """

    quantile: float
    ms: float
    low_ms: float
    high_ms: HighEnd

    @property
    def name(self) -> str:
        """Such as `p99`."""
        return f"p{100 * self.quantile:g}"


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run found.

    Attributes:
        seconds: how long was measured.
        num_due: requests that were due in that time.
        num_ok: of these, answered with success.
        num_warmup: requests before, not counted.
        rate: successful responses per second.
        rows_per_s: rows of them per second.
        errors: status in words -> how many.
        reasons: status in words -> the text of the first response.
        percentiles: those with enough samples.
        uncorrected_p99_ms: p99 from the moment of sending, which leaves out waits in the client; or None.
        mean_ms: mean latency; NaN without a response.
        goodput: successful responses within the SLO per second; None without one.
        slo_ms: the latency that responses should keep, or None.
        late_share: requests that the generator got to more than a millisecond too late, of all.
        lag_p99_ms: how late it was for 1 % of them.
        stability: the percentile that was checked for stability and the ratio of its extremes over three windows, or
            None when there are too few samples.
        interrupted: whether it was interrupted.
        stopped: why it ended early by itself, or "".
    """

    seconds: float
    num_due: int
    num_ok: int
    num_warmup: int
    rate: float
    rows_per_s: float
    errors: Mapping[str, int]
    reasons: Mapping[str, str]
    percentiles: tuple[Percentile, ...]
    uncorrected_p99_ms: float | None
    mean_ms: float
    goodput: float | None
    slo_ms: float | None
    late_share: float
    lag_p99_ms: float
    stability: tuple[str, float] | None
    interrupted: bool = False
    stopped: str = ""

    def percentile(self, quantile: float) -> Percentile | None:
        """One of the percentiles; None when it is hidden."""
        return next((one for one in self.percentiles if one.quantile == quantile), None)

    @property
    def is_valid(self) -> bool:
        """Whether the generator kept up."""
        return self.late_share <= MAX_LATE_SHARE

    @property
    def is_stable(self) -> bool | None:
        """Whether the last windows agree; None when there are too few samples."""
        return None if self.stability is None else self.stability[1] <= STABLE_RATIO

    @property
    def num_errors(self) -> int:
        """Requests without a successful response."""
        return self.num_due - self.num_ok

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers."""
        found = []
        if self.stopped:
            found.append(f"STOPPED EARLY: {self.stopped}")
        if self.interrupted:
            found.append("INTERRUPTED: these are the results until then")
        if not self.is_valid:
            found.append(
                f"INVALID: the load generator itself was more than 1 ms late with {100 * self.late_share:.1f} % of the "
                "requests; the machine is too busy for this rate: lower it, or generate the load elsewhere"
            )
        if self.is_stable is False and self.stability is not None:
            found.append(
                f"UNSTABLE: {self.stability[0]} of three successive windows differs by a factor of "
                f"{self.stability[1]:.2f}; measure longer"
            )
        if self.num_errors:
            found.append(
                f"{self.num_errors} of {self.num_due} requests failed: "
                + ", ".join(f"{count} × {text}" for text, count in self.errors.items())
            )
        return tuple(found)


def summarise(
    samples: Samples,
    load: Load,
    *,
    rows: int = 1,
    slo_ms: float | None = None,
    interrupted: bool = False,
    stopped: str = "",
) -> Summary:
    """Sum a run up.

    Args:
        samples: all requests; those due before 0 are the warm-up.
        load: how they came.
        rows: rows of a request.
        slo_ms: the latency that responses should keep.
        interrupted: whether it was interrupted.
        stopped: why it ended early by itself.
    """
    measured = samples.among(samples.due_s >= 0)
    is_ok = measured.status == OK
    took_s = measured.latency_s[is_ok]
    last_s = float(measured.due_s.max(initial=0.0))
    seconds = min(load.seconds, last_s) if interrupted or stopped else load.seconds
    # A closed loop runs over the end by its last responses, which belong to the time that they took.
    seconds = max(seconds, 1e-9)
    lag_s = measured.taken_s - measured.due_s
    statuses, counts = np.unique(measured.status[~is_ok], return_counts=True)
    return Summary(
        seconds=seconds,
        num_due=len(measured),
        num_ok=int(is_ok.sum()),
        num_warmup=len(samples) - len(measured),
        rate=len(took_s) / seconds,
        rows_per_s=rows * len(took_s) / seconds,
        errors={status_text(int(one)): int(count) for one, count in zip(statuses, counts, strict=True)},
        reasons={status_text(one): text for one, text in samples.reasons.items()},
        percentiles=percentiles(took_s),
        uncorrected_p99_ms=_uncorrected(measured.done_s[is_ok] - measured.sent_s[is_ok]),
        mean_ms=1e3 * float(took_s.mean()) if len(took_s) else math.nan,
        goodput=None if slo_ms is None else float((took_s <= 1e-3 * slo_ms).sum()) / seconds,
        slo_ms=slo_ms,
        late_share=float((lag_s > LATE_S).mean()) if len(lag_s) else 0.0,
        lag_p99_ms=1e3 * float(np.quantile(lag_s, 0.99)) if len(lag_s) else 0.0,
        stability=stability(measured.due_s[is_ok], took_s, seconds),
        interrupted=interrupted,
        stopped=stopped,
    )


def percentiles(latencies_s: np.ndarray) -> tuple[Percentile, ...]:
    """The percentiles with enough samples; order statistics, shape of the input `(n,)`."""
    ordered = np.sort(latencies_s)
    return tuple(percentile(ordered, quantile) for quantile, fewest in FEWEST.items() if len(ordered) >= fewest)


def order_statistic(ordered: np.ndarray, quantile: float) -> float:
    """The sample of rank `ceil(q n)` of sorted samples, shape `(n,)`, n > 0."""
    n = len(ordered)
    return float(ordered[min(n, max(1, math.ceil(quantile * n - 1e-9))) - 1])


def percentile(ordered_s: np.ndarray, quantile: float) -> Percentile:
    """The sample of rank `ceil(q n)` of sorted samples, with its binomial interval.

    The number of samples below the true quantile is binomial(n, q), whatever the distribution: so the interval between
    two order statistics covers the quantile with at least the probability of the ranks between them (David & Nagaraja,
    Order Statistics, 3rd ed., section 7.1). It assumes independent samples; requests that share a batch are not, so it
    is too narrow rather than too wide.

    Args:
        ordered_s: sorted latencies in seconds, shape `(n,)`, n > 0.
        quantile: between 0 and 1.
    """
    n = len(ordered_s)
    low, high = interval_ranks(n, quantile)
    return Percentile(
        quantile,
        1e3 * order_statistic(ordered_s, quantile),
        1e3 * float(ordered_s[low - 1]) if low >= 1 else 0.0,
        1e3 * float(ordered_s[high - 1]) if high <= n else math.inf,
    )


def interval_ranks(n: int, quantile: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """The ranks (from 1) of the samples between which the quantile lies; 0 and n + 1 stand for no bound."""
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low = int(binom.ppf(tail, n, quantile))
    # ppf gives the smallest k with P(X <= k) >= tail, so P(X <= k - 1) < tail: rank k is a lower bound.
    high = int(binom.ppf(1 - tail, n, quantile)) + 1
    return low, high


def stability(due_s: np.ndarray, took_s: np.ndarray, seconds: float) -> tuple[str, float] | None:
    """Whether a run had settled: the highest percentile that three successive windows have samples for.

    Args:
        due_s: when each request was due, seconds from 0; shape `(n,)`.
        took_s: their latencies; shape `(n,)`.
        seconds: the length of the run.

    Returns:
        The percentile's name and the ratio of its largest to its smallest value over the windows; None when even the
        median has too few samples.
    """
    edges = np.linspace(0.0, seconds, NUM_WINDOWS + 1)
    windows = [np.sort(took_s[(due_s >= a) & (due_s < b)]) for a, b in itertools.pairwise(edges)]
    fewest = min(len(window) for window in windows)
    for quantile in (0.99, 0.95, 0.5):
        if fewest >= FEWEST[quantile]:
            found = [order_statistic(window, quantile) for window in windows]
            return f"p{100 * quantile:g}", max(found) / max(min(found), 1e-9)
    return None


def _uncorrected(took_s: np.ndarray) -> float | None:
    if len(took_s) < FEWEST[0.99]:
        return None
    return 1e3 * order_statistic(np.sort(took_s), 0.99)
