"""Two versions side by side.

Thread: any; pure functions.
"""

from __future__ import annotations

import numpy as np

from ...markup import grid, note, table
from ...serving.telemetry.model_metrics import VersionMetrics
from ..charts.line import Line, line_chart
from ..charts.svg import format_number, format_span
from ..snapshot import Snapshot
from .latency import NO_REQUESTS, latency_charts, styles_of
from .versions import percentile

_ROWS = ("share of requests", "requests", "errors", "p50", "p95", "p99", "mean rows of a batch")


def compare_page(snapshot: Snapshot, a: int | None, b: int | None) -> str:
    """Traffic by version, and the numbers and charts of two of them.

    Args:
        snapshot: what to show.
        a: a version, or None when there are not two.
        b: another one.
    """
    if a is None or b is None or a == b:
        return note("Two different versions are needed to compare: deploy a second one, then choose both.")
    versions = snapshot.metrics.versions
    columns = ("", f"A: version {a}", f"B: version {b}", "B over A")
    one, other = _numbers(snapshot, versions.get(a)), _numbers(snapshot, versions.get(b))
    rows = [
        dict(zip(columns, (name, _text(name, one[name]), _text(name, other[name]), _ratio(one[name], other[name])),
                 strict=True))
        for name in _ROWS
    ]  # fmt: skip
    caption = f"Versions {a} and {b} over the last {format_span(snapshot.metrics.span_s)}"
    advice = (
        "These numbers describe; they do not test. Requests that share a batch share its latency, so small differences "
        "mean little."
    )
    charts = latency_charts(snapshot, (a, b))[:4]
    return table(caption, columns, rows, numbers=columns[1:]) + note(advice) + grid([_shares(snapshot), *charts])


def _shares(snapshot: Snapshot) -> str:
    """Which part of the requests each version answered."""
    metrics = snapshot.metrics
    styles = styles_of(metrics)
    active = [one for one in metrics.versions.values() if one.num_recent]
    total = np.sum([one.series.rps for one in active], axis=0)
    lines = [
        Line(
            f"v{one.version}",
            np.divide(100 * one.series.rps, total, out=np.full(len(metrics.age_s), np.nan), where=total > 0),
            styles[one.version],
        )
        for one in active
    ]
    return line_chart("Share of the requests", "%", snapshot.axis, lines, empty=NO_REQUESTS)


def _numbers(snapshot: Snapshot, one: VersionMetrics | None) -> dict[str, float | None]:
    if one is None:
        return dict.fromkeys(_ROWS)
    total = sum(other.num_recent for other in snapshot.metrics.versions.values())
    return {
        "share of requests": 100 * one.num_recent / total if total else None,
        "requests": one.num_recent,
        "errors": one.num_recent_errors,
        "p50": one.p50_ms,
        "p95": one.p95_ms,
        "p99": one.p99_ms,
        "mean rows of a batch": one.batches.mean_rows or None,
    }


def _text(name: str, value: float | None) -> str:
    if name in ("p50", "p95", "p99"):
        return percentile(value, int(name[1:]) / 100)
    if value is None:
        return "–"
    return f"{format_number(value)} %" if name == "share of requests" else format_number(value)


def _ratio(one: float | None, other: float | None) -> str:
    return f"× {format_number(other / one)}" if one and other else "–"
