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
    columns = ("", f"A: version {a}", f"B: version {b}", "B / A")
    of_a, of_b = _numbers(snapshot, versions.get(a)), _numbers(snapshot, versions.get(b))
    rows = [
        dict(zip(columns, (name, _text(name, of_a[name]), _text(name, of_b[name]), _ratio(of_a[name], of_b[name])),
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
    active = [entry for entry in metrics.versions.values() if entry.num_recent]
    total = np.sum([entry.series.rps for entry in active], axis=0)
    lines = [
        Line(
            f"v{entry.version}",
            np.divide(100 * entry.series.rps, total, out=np.full(len(metrics.age_s), np.nan), where=total > 0),
            styles[entry.version],
        )
        for entry in active
    ]
    return line_chart("Share of the requests", "%", snapshot.axis, lines, empty=NO_REQUESTS)


def _numbers(snapshot: Snapshot, entry: VersionMetrics | None) -> dict[str, float | None]:
    if entry is None:
        return dict.fromkeys(_ROWS)
    total = sum(other.num_recent for other in snapshot.metrics.versions.values())
    return {
        "share of requests": 100 * entry.num_recent / total if total else None,
        "requests": entry.num_recent,
        "errors": entry.num_recent_errors,
        "p50": entry.p50_ms,
        "p95": entry.p95_ms,
        "p99": entry.p99_ms,
        "mean rows of a batch": entry.batches.mean_rows or None,
    }


def _text(name: str, value: float | None) -> str:
    if name in ("p50", "p95", "p99"):
        return percentile(value, int(name[1:]) / 100)
    if value is None:
        return "–"
    return f"{format_number(value)} %" if name == "share of requests" else format_number(value)


def _ratio(of_a: float | None, of_b: float | None) -> str:
    return f"× {format_number(of_b / of_a)}" if of_a and of_b else "–"
