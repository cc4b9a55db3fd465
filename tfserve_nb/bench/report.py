"""The reports of benchmarks.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..reports.report import Report, Table, names, numbers
from .comparison import ComparisonResult
from .result import BenchmarkResult
from .statistics import FEWEST, Summary
from .sweep import SweepResult

AnyResult: TypeAlias = BenchmarkResult | SweepResult | ComparisonResult


def report_of(result: AnyResult) -> Report:
    """The report of a run, a sweep of rates, or a comparison."""
    if isinstance(result, SweepResult):
        return _sweep_report(result)
    if isinstance(result, ComparisonResult):
        return _comparison_report(result)
    return _run_report(result)


def percentile_text(summary: Summary, quantile: float) -> str:
    """A percentile with its interval, or how many samples it needs."""
    found = summary.percentile(quantile)
    if found is None:
        return needs(quantile)
    high = "∞" if math.isinf(found.high_ms) else f"{found.high_ms:.3g}"
    return f"{found.ms:.3g} ms [{found.low_ms:.3g}, {high}]"


def needs(quantile: float) -> str:
    """What stands in the place of a percentile that too few requests show."""
    return f"(needs {FEWEST[quantile]} responses)"


def environment_text(environment: Mapping[str, str]) -> str:
    """Machine and versions in one line."""
    words = {"cores": "{} cores", "python": "Python {}", "tfserve_nb": "tfserve_nb {}", "tensorflow": "TensorFlow {}",
             "commit": "commit {}"}  # fmt: skip
    return ", ".join(words.get(name, "{}").format(value) for name, value in environment.items())


def origin_of(at: float, environment: Mapping[str, str]) -> str:
    """When and where something was measured."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
    return ", ".join(part for part in (when, environment_text(environment)) if part)


def _run_report(result: BenchmarkResult) -> Report:
    summary = result.summary
    due = "" if result.load.rate is None else f" of {result.load.rate:g} offered"
    values: dict[str, str] = {
        "throughput, requests/s": f"{_count(summary.rate)}{due}",
        "throughput, rows/s": _count(summary.rows_per_s),
        **{f"p{100 * quantile:g}": percentile_text(summary, quantile) for quantile in FEWEST},
        "mean": "–" if math.isnan(summary.mean_ms) else f"{summary.mean_ms:.3g} ms",
    }
    if summary.goodput is not None and summary.slo_ms is not None:
        values[f"goodput, within {summary.slo_ms:g} ms"] = f"{_count(summary.goodput)} requests/s"
    values |= {
        "failed requests": f"{summary.num_errors} of {summary.num_due}",
        "p99 from sending": "–" if summary.uncorrected_p99_ms is None
        else f"{summary.uncorrected_p99_ms:.3g} ms",
        "load generator's lag, p99": f"{summary.lag_p99_ms:.3g} ms",
        "stable": _stable(summary),
    }  # fmt: skip
    measures = Table("Measured", (*names("measure"), *numbers("result")), tuple(values.items()))
    warm_up = f"{summary.num_warmup} requests of the warm-up are not counted"
    failures = [f"{status}: {reason}" for status, reason in summary.reasons.items()]
    batching = [result.batching] if result.batching else []
    return Report(
        result.title,
        warnings=tuple(summary.warnings),
        sections=(measures,),
        notes=(warm_up, *failures, *batching, *_origin(result)),
    )


def _sweep_report(result: SweepResult) -> Report:
    quantiles = (0.5, 0.95, 0.99)
    columns = numbers(
        "offered, requests/s", "answered, requests/s", *(f"p{100 * one:g}" for one in quantiles), "failed"
    )
    rows = [
        (
            f"{run.load.rate:g}",
            _count(run.summary.rate),
            *(percentile_text(run.summary, quantile) for quantile in quantiles),
            str(run.summary.num_errors),
            "yes" if run.summary.is_valid else "no",
        )
        for run in result.results
    ]
    knee = "none" if result.knee is None else f"{result.knee:g} requests/s"
    return Report(
        result.title,
        lead=(f"knee: {knee}, p99 within {result.slo_ms:.3g} ms ({result.slo_origin})",),
        warnings=tuple(_sweep_warnings(result)),
        sections=(Table("Rates, requests/s", (*columns, *names("valid")), tuple(rows)),),
        notes=tuple(_origin(result.results[0])),
    )


def _sweep_warnings(result: SweepResult) -> list[str]:
    found = ["INTERRUPTED: the knee may lie higher"] if result.interrupted else []
    late = [run.load.rate for run in result.results if not run.summary.is_valid and run.load.rate is not None]
    if late and result.knee is None:
        found.append(
            f"no knee was found: already at {min(late):g} requests/s the load generator itself was late; the machine "
            "is too busy, generate the load elsewhere"
        )
    elif late and result.knee is not None and min(late) > result.knee:
        found.append(
            f"from {min(late):g} requests/s on the load generator itself was late: the knee may lie higher, and "
            "another machine is needed to find it"
        )
    elif result.knee is None:
        found.append("no rate kept the SLO: allow more with --slo-ms")
    return found


def _comparison_report(result: ComparisonResult) -> Report:
    summaries = [[pair[place].summary for pair in result.pairs] for place in (0, 1)]
    rows = []
    for effect in result.effects:
        interval = "" if math.isnan(effect.low) else f" [{effect.low:.3f}, {effect.high:.3f}]"
        medians = [_median(arm, effect.quantile) for arm in summaries]
        rows.append((f"p{100 * effect.quantile:g}", *medians, f"× {effect.ratio:.3f}{interval}", effect.verdict))
    if result.pairs:
        rates = [sorted(summary.rate for summary in arm) for arm in summaries]
        rows.append(("requests/s", *(_count(rate[len(rate) // 2]) for rate in rates), "", ""))
    columns = (*names("median of the runs"), *numbers("A", "B", "B / A"), *names("which means"))
    invalid = sum(not summary.is_valid for arm in summaries for summary in arm)
    return Report(
        result.title,
        warnings=(
            *(["INTERRUPTED: only complete pairs count"] if result.interrupted else []),
            *([f"{invalid} runs are invalid: the load generator was late"] if invalid else []),
        ),
        sections=(Table("Latency and throughput", columns, tuple(rows)),),
        notes=tuple(_origin(result.pairs[0][0])) if result.pairs else (),
    )


def _count(value: float) -> str:
    """A number per second: four digits, or whole with a gap before the thousands."""
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 1000 else f"{value:.4g}"


def _stable(summary: Summary) -> str:
    if summary.stability is None:
        return "too few requests"
    name, ratio = summary.stability
    return f"{'yes' if summary.is_stable else 'no'}: {name} × {ratio:.2f} over 3 windows"


def _median(summaries: Sequence[Summary], quantile: float) -> str:
    found = [summary.percentile(quantile) for summary in summaries]
    values = sorted(percentile.ms for percentile in found if percentile is not None)
    return f"{values[len(values) // 2]:.3g} ms" if values else "–"


def _origin(result: BenchmarkResult) -> list[str]:
    return [f"{result.payload}; {result.protocol}", origin_of(result.at, result.environment)]
