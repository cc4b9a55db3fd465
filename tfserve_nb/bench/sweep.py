"""From low to high rates: the curve of latency over throughput, and its knee, the highest rate that keeps the SLO.

Thread: the caller's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .load.schedule import Load
from .result import BenchmarkResult
from .run import Subject, Watcher, run_load
from .statistics import Summary

GROWTH = 1.6
FIRST_SHARE = 0.1
MAX_STEPS = 12
NUM_BISECTIONS = 3
SLO_TIMES_IDLE = 10.0
KEEPS_UP = 0.95
"""A server that completes less than this share of the requests has an ever longer queue."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Runs at several rates.

    Attributes:
        results: by increasing rate.
        slo_ms: the latency that p99 should keep.
        slo_origin: where the SLO comes from, in words.
        knee: the highest rate whose run kept it, in requests per second, or None when none did.
        interrupted: whether it was ended early.
    """

    results: tuple[BenchmarkResult, ...]
    slo_ms: float
    slo_origin: str
    knee: float | None
    interrupted: bool = False

    @property
    def title(self) -> str:
        """One line."""
        first = self.results[0]
        version = "" if first.version is None else f" version {first.version}"
        return f"{first.name}{version}, {first.protocol}: sweep of rates, p99 within {self.slo_ms:.3g} ms"


def sweep(
    subject: Subject, load: Load, capacity: float, *, slo_ms: float | None = None, watcher: Watcher | None = None
) -> SweepResult:
    """Find the knee.

    The rate grows by 60 % a step from a tenth of the capacity until p99 leaves the SLO, requests fail, or the server
    no longer keeps up; between the last good and the first bad rate three bisections follow. A step at which the
    generator was late does not measure the server; it is run once more.

    Args:
        subject: what is loaded.
        load: an open loop; its rate is not used.
        capacity: what a closed loop got, in requests per second.
        slo_ms: the latency that p99 should keep; None for ten times the median of the lowest rate.
        watcher: follows the runs.
    """
    watching = watcher or Watcher()
    found: dict[float, BenchmarkResult] = {}
    wanted_ms = slo_ms

    def is_good(rate: float) -> bool:
        nonlocal wanted_ms
        rate = float(f"{rate:.3g}")
        watching.say(f"sweep: {rate:g} requests/s")
        step = dataclasses.replace(load, rate=rate, concurrency=None, seed=load.seed + len(found))
        result = run_load(subject, step, slo_ms=wanted_ms, watcher=watching)
        if not result.summary.is_valid and not result.summary.interrupted:
            watching.say(f"sweep: {rate:g} requests/s once more, the load generator was late")
            result = run_load(subject, step, slo_ms=wanted_ms, watcher=watching)
        found[rate] = result
        median = result.summary.percentile(0.5)
        if wanted_ms is None:
            wanted_ms = SLO_TIMES_IDLE * (median.ms if median is not None else 100.0)
        return keeps(result.summary, rate, wanted_ms) and not result.summary.interrupted

    good, bad = 0.0, None
    rate = FIRST_SHARE * capacity
    for _ in range(MAX_STEPS):
        if not is_good(rate):
            bad = rate
            break
        good, rate = rate, rate * GROWTH
    if bad is not None and not _was_interrupted(found):
        for _ in range(NUM_BISECTIONS):
            middle = (good + bad) / 2
            if is_good(middle):
                good = middle
            else:
                bad = middle
            if _was_interrupted(found):
                break
    origin = "given" if slo_ms is not None else f"{SLO_TIMES_IDLE:g} times the median of the lowest rate"
    results = tuple(found[rate] for rate in sorted(found))
    kept = [rate for rate, one in found.items() if wanted_ms is not None and keeps(one.summary, rate, wanted_ms)]
    return SweepResult(results, wanted_ms or 0.0, origin, max(kept, default=None), _was_interrupted(found))


def keeps(summary: Summary, rate: float, slo_ms: float) -> bool:
    """Whether a run at a rate kept the SLO: p99 (or the highest percentile with enough samples), no failures."""
    shown = [one for one in summary.percentiles if one.quantile <= 0.99]
    return bool(
        summary.is_valid
        and not summary.num_errors
        and summary.rate >= KEEPS_UP * rate * summary.num_due / max(1.0, rate * summary.seconds)
        and shown
        and shown[-1].ms <= slo_ms
    )


def _was_interrupted(found: dict[float, BenchmarkResult]) -> bool:
    return any(one.summary.interrupted for one in found.values())
