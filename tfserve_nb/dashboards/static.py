"""The dashboard's content as HTML text: versions, charts, history. The live view and saved notebooks show it.

Thread: any; pure functions.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Sequence

from ..serving.histogram import FEWEST_SAMPLES
from ..serving.model_metrics import ModelMetrics, VersionMetrics
from ..types import HistoryEvent, ModelStatus, VersionState, VersionStatus
from .svg import Line, format_number, line_chart

COLUMNS = ("version", "state", "labels", "traffic", "deployed", "requests", "errors", "p50", "p99")
NUMBERS = ("traffic", "requests", "errors", "p50", "p99")
NUM_EVENTS = 5


def versions_table(status: ModelStatus, metrics: ModelMetrics) -> str:
    """The table of versions, newest first; ended ones are left out unless they failed."""
    head = "".join(f'<th scope="col" style="{_align(column)}">{column}</th>' for column in COLUMNS)
    shown = [one for one in status.versions if one.state is not VersionState.END or one.error_message]
    rows = "".join(_row(status, one, metrics.versions.get(one.version)) for one in shown)
    problem = f'<div role="alert">⚠ {html.escape(status.problem)}</div>' if status.problem else ""
    caption = f"{html.escape(status.name)}: versions; p50 and p99 over the last {metrics.span_s:.0f} s"
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;width:100%;max-width:720px;'
        'color:var(--jp-ui-font-color1,currentColor)">'
        f'<caption style="text-align:left;font-weight:600;padding:2px 0">{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{problem}"
    )


def charts(metrics: ModelMetrics) -> str:
    """Requests per second and latency, one line for each version that had requests lately."""
    styles = {version: style for style, version in enumerate(metrics.versions)}
    active = [one for one in metrics.versions.values() if one.num_recent]
    age_s = metrics.age_s
    rates = [Line(f"v{one.version}", one.series.rps, styles[one.version]) for one in active]
    latencies = []
    for one in active:
        latencies.append(Line(f"v{one.version} p50", one.series.p50_ms, styles[one.version]))
        latencies.append(Line(f"v{one.version} p99", one.series.p99_ms, styles[one.version], is_thin=True))
    fewest = FEWEST_SAMPLES[0.5]
    return line_chart("Requests per second", "/s", age_s, metrics.span_s, rates, empty="no requests yet") + line_chart(
        "Latency, p50 thick and p99 thin",
        "ms",
        age_s,
        metrics.span_s,
        latencies,
        empty=f"appears from {fewest} requests in 2 s (p99: {FEWEST_SAMPLES[0.99]} in 30 s)"
        if active
        else "no requests yet",
    )


def history_list(events: Sequence[HistoryEvent]) -> str:
    """The newest events, in words."""
    lines = "".join(
        f"<li>{_clock(event.at)} {html.escape(event.action)}"
        f"{f' version {event.version}' if event.version is not None else ''}"
        f"{f' ({html.escape(event.detail)})' if event.detail else ''}, {html.escape(event.actor)}</li>"
        for event in events[:NUM_EVENTS]
    )
    style = "color:var(--jp-ui-font-color1,currentColor);line-height:1.5"
    return f'<details style="{style}"><summary>History</summary><ul style="margin:2px 0">{lines}</ul></details>'


def render_static(status: ModelStatus, metrics: ModelMetrics, events: Sequence[HistoryEvent]) -> str:
    """All of it, for notebooks that are read without a kernel."""
    when = f'<div style="opacity:0.75">as of {time.strftime("%Y-%m-%d %H:%M:%S")}</div>'
    return f"<div>{versions_table(status, metrics)}{charts(metrics)}{history_list(events)}{when}</div>"


def _row(status: ModelStatus, one: VersionStatus, numbers: VersionMetrics | None) -> str:
    is_current = one.version == status.default_version
    percent = status.traffic.get(one.version)
    cells = {
        "state": _state(one),
        "labels": html.escape(", ".join(sorted(label for label, to in status.labels.items() if to == one.version))),
        "traffic": "0 %" if percent is None else f"{percent:g} %",
        "deployed": _clock(one.deployed_at) if one.deployed_at is not None else "",
        "requests": str(numbers.num_requests) if numbers else "0",
        "errors": str(numbers.num_errors) if numbers else "0",
        "p50": _percentile(numbers.p50_ms if numbers else None, 0.5),
        "p99": _percentile(numbers.p99_ms if numbers else None, 0.99),
    }
    mark = " <b>current</b>" if is_current else ""
    weight = "background:var(--jp-layout-color2,rgba(127,127,127,.12))" if is_current else ""
    body = "".join(f'<td style="{_align(column)}">{text}</td>' for column, text in cells.items())
    return f'<tr style="{weight}"><th scope="row" style="{_align("version")}">{one.version}{mark}</th>{body}</tr>'


def _state(one: VersionStatus) -> str:
    if one.error_message:
        return f"failed: {html.escape(one.error_message)}"
    detail = f" ({html.escape(one.detail)})" if one.detail else ""
    return one.state.name.lower() + detail


def _percentile(value_ms: float | None, quantile: float) -> str:
    if value_ms is None or math.isnan(value_ms):
        return f'<span title="shown from {FEWEST_SAMPLES[quantile]} requests on">–</span>'
    return f"{format_number(value_ms)} ms"


def _align(column: str) -> str:
    side = "right" if column in NUMBERS else "left"
    return f"text-align:{side};padding:3px 8px;border-bottom:1px solid rgba(127,127,127,.25);white-space:nowrap"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
