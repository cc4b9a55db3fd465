"""Results as text and as HTML tables.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..markup import alert, note, table, text
from .comparison import ComparisonResult
from .result import BenchmarkResult
from .statistics import FEWEST, Summary
from .sweep import SweepResult

AnyResult: TypeAlias = BenchmarkResult | SweepResult | ComparisonResult


def to_text(result: AnyResult) -> str:
    """For terminals."""
    lines = [result.title]
    for row in rows_of(result):
        cells = list(row.values())
        lines.append("  " + cells[0].ljust(26) + "  ".join(cell.rjust(14) for cell in cells[1:]))
    lines += [f"  ⚠ {warning}" for warning in warnings_of(result)]
    lines += [f"  {remark}" for remark in remarks_of(result)]
    return "\n".join(lines)


def to_html(result: AnyResult) -> str:
    """For notebooks; the figure is beside it."""
    rows = rows_of(result)
    columns = list(rows[0]) if rows else []
    escaped = [{column: text(cell) for column, cell in row.items()} for row in rows]
    head = [column if column.strip() else "" for column in columns]
    shown = table(text(result.title), columns, escaped, numbers=head[1:])
    warnings = "".join(alert(warning) for warning in warnings_of(result))
    return f"<div>{warnings}{shown}{''.join(note(remark) for remark in remarks_of(result))}</div>"


def rows_of(result: AnyResult) -> list[dict[str, str]]:
    """The table: column -> text, in order."""
    if isinstance(result, SweepResult):
        return [_sweep_row(one) for one in result.results]
    if isinstance(result, ComparisonResult):
        return _comparison_rows(result)
    return _result_rows(result)


def warnings_of(result: AnyResult) -> list[str]:
    """What a reader must know first."""
    if isinstance(result, BenchmarkResult):
        return list(result.summary.warnings)
    if isinstance(result, SweepResult):
        found = ["INTERRUPTED: the knee may lie higher"] if result.interrupted else []
        late = [one.load.rate for one in result.results if not one.summary.is_valid and one.load.rate is not None]
        if late and result.knee is None:
            found.append(
                f"no knee was found: already at {min(late):g} requests/s the load generator itself was late; the "
                "machine is too busy, generate the load elsewhere"
            )
            return found
        if late and result.knee is not None and min(late) > result.knee:
            found.append(
                f"from {min(late):g} requests/s on the load generator itself was late: the knee may lie higher, and "
                "another machine is needed to find it"
            )
        knee = [] if result.knee is not None else ["no rate kept the SLO: allow more with --slo-ms"]
        return found + knee
    invalid = sum(not one.summary.is_valid for pair in result.pairs for one in pair)
    found = ["INTERRUPTED: only complete pairs count"] if result.interrupted else []
    return found + ([f"{invalid} runs are invalid: the load generator was late"] if invalid else [])


def remarks_of(result: AnyResult) -> list[str]:
    """How it was measured, and where."""
    if isinstance(result, SweepResult):
        knee = "none" if result.knee is None else f"{result.knee:g} requests/s"
        first = result.results[0]
        return [f"knee: {knee}, p99 within {result.slo_ms:.3g} ms ({result.slo_origin})", *_origin(first)]
    if isinstance(result, ComparisonResult):
        return _origin(result.pairs[0][0]) if result.pairs else []
    remarks = [f"{result.summary.num_warmup} requests of the warm-up are not counted"]
    remarks += [f"{status}: {reason}" for status, reason in result.summary.reasons.items()]
    return [*remarks, *([result.batching] if result.batching else []), *_origin(result)]


def percentile_text(summary: Summary, quantile: float) -> str:
    """A percentile with its interval, or how many samples it needs."""
    found = summary.percentile(quantile)
    if found is None:
        return f"(from {FEWEST[quantile]} answers)"
    high = "∞" if math.isinf(found.high_ms) else f"{found.high_ms:.3g}"
    return f"{found.ms:.3g} ms [{found.low_ms:.3g}, {high}]"


def _result_rows(result: BenchmarkResult) -> list[dict[str, str]]:
    summary = result.summary
    due = "" if result.load.rate is None else f" of {result.load.rate:g} due"
    values: dict[str, str] = {
        "requests/s answered": f"{_count(summary.rate)}{due}",
        "rows/s": _count(summary.rows_per_s),
        **{f"p{100 * quantile:g}": percentile_text(summary, quantile) for quantile in FEWEST},
        "mean": "–" if math.isnan(summary.mean_ms) else f"{summary.mean_ms:.3g} ms",
    }
    if summary.goodput is not None and summary.slo_ms is not None:
        values[f"goodput (≤ {summary.slo_ms:g} ms)"] = f"{_count(summary.goodput)} requests/s"
    values |= {
        "requests, failed": f"{summary.num_due}, {summary.num_errors}",
        "p99 from sending": "–" if summary.uncorrected_p99_ms is None else f"{summary.uncorrected_p99_ms:.3g} ms",
        "generator's lag, p99": f"{summary.lag_p99_ms:.3g} ms",
        "stable": _stable(summary),
    }
    return [{" ": name, "result": value} for name, value in values.items()]


def _count(value: float) -> str:
    """A number per second: four digits, or whole with a gap before the thousands."""
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 1000 else f"{value:.4g}"


def _stable(summary: Summary) -> str:
    if summary.stability is None:
        return "too few requests to tell"
    name, ratio = summary.stability
    return f"{'yes' if summary.is_stable else 'no'}: {name} × {ratio:.2f} over 3 windows"


def _sweep_row(one: BenchmarkResult) -> dict[str, str]:
    summary = one.summary
    return {
        "due, requests/s": f"{one.load.rate:g}",
        "answered": _count(summary.rate),
        **{f"p{100 * quantile:g}": percentile_text(summary, quantile) for quantile in (0.5, 0.95, 0.99)},
        "failed": str(summary.num_errors),
        "valid": "yes" if summary.is_valid else "no",
    }


def _comparison_rows(result: ComparisonResult) -> list[dict[str, str]]:
    rows = []
    for effect in result.effects:
        interval = "" if math.isnan(effect.low) else f" [{effect.low:.3f}, {effect.high:.3f}]"
        values = [_median([pair[place].summary for pair in result.pairs], effect.quantile) for place in (0, 1)]
        rows.append(
            {
                " ": f"p{100 * effect.quantile:g}",
                "A": values[0],
                "B": values[1],
                "B over A": f"× {effect.ratio:.3f}{interval}",
                "verdict": effect.verdict,
            }
        )
    rates = [sorted(pair[place].summary.rate for pair in result.pairs) for place in (0, 1)]
    if result.pairs:
        middle = [_count(rate[len(rate) // 2]) for rate in rates]
        rows.append({" ": "requests/s", "A": middle[0], "B": middle[1], "B over A": "", "verdict": ""})
    return rows


def _median(summaries: Sequence[Summary], quantile: float) -> str:
    values = sorted(one.ms for one in (summary.percentile(quantile) for summary in summaries) if one is not None)
    return f"{values[len(values) // 2]:.3g} ms" if values else "–"


def _origin(result: BenchmarkResult) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(result.at))
    return [f"{result.payload}; {result.protocol}", f"{when}, {environment_text(result.environment)}"]


def environment_text(environment: Mapping[str, str]) -> str:
    """Machine and versions in one line."""
    names = {"cores": "{} cores", "python": "Python {}", "tfserve_nb": "tfserve_nb {}", "tensorflow": "TensorFlow {}",
             "commit": "commit {}"}  # fmt: skip
    return ", ".join(names.get(name, "{}").format(value) for name, value in environment.items())
