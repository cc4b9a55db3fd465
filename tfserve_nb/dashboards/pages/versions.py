"""Versions: states, labels, traffic, the numbers of each, what was measured of engines, and what happened lately.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...markup import COLOUR, alert, note, progress_bar, table, text
from ...reports.engines import engine_table
from ...reports.html import table_html
from ...reports.report import size_text
from ...serving.telemetry.histogram import FEWEST_SAMPLES
from ...serving.telemetry.model_metrics import ModelMetrics, VersionMetrics
from ...types import HistoryEvent, ModelStatus, VersionState, VersionStatus
from ..charts.svg import format_number, format_span
from ..snapshot import Snapshot, clock, event_text
from .replicas import replica_tables

COLUMNS = (
    "version", "state", "labels", "traffic", "engine", "deployed", "size", "requests", "errors", "p50", "p95", "p99",
)  # fmt: skip
NUMBERS = ("traffic", "size", "requests", "errors", "p50", "p95", "p99")
NUM_EVENTS = 8


def versions_table(status: ModelStatus, metrics: ModelMetrics) -> str:
    """The table of versions, newest first; ended ones are left out unless they failed."""
    shown = [entry for entry in status.versions if entry.state is not VersionState.END or entry.error_message]
    current = next((place for place, entry in enumerate(shown) if entry.version == status.default_version), None)
    caption = f"{text(status.name)}: versions; percentiles over the last {format_span(metrics.span_s)}"
    rows = [_row(status, entry, metrics.versions.get(entry.version)) for entry in shown]
    remarks = "".join(note(f"Version {entry.version}: {words}") for entry in shown for words in entry.notes)
    return table(caption, COLUMNS, rows, numbers=NUMBERS, current=current) + remarks + alert(status.problem)


def engine_tables(status: ModelStatus) -> str:
    """What was measured of the engines of each version that has some."""
    tables = [
        table_html(engine_table(f"Engines of version {entry.version}", entry.engines)) for entry in status.versions
    ]
    return "".join(tables)


def history_list(events: Sequence[HistoryEvent], *, is_open: bool = False) -> str:
    """The newest events, in words."""
    lines = "".join(f"<li>{text(event_text(event))}, {text(event.actor)}</li>" for event in events[:NUM_EVENTS])
    return (
        f'<details style="{COLOUR};line-height:1.5"{" open" if is_open else ""}><summary>History</summary>'
        f'<ul style="margin:2px 0">{lines or "<li>nothing yet</li>"}</ul></details>'
    )


def versions_page(snapshot: Snapshot) -> str:
    """Versions, replicas, engines and history."""
    status = snapshot.status
    return (
        versions_table(status, snapshot.metrics)
        + replica_tables(status)
        + engine_tables(status)
        + history_list(snapshot.events)
    )


def percentile(value_ms: float | None, quantile: float) -> str:
    """A percentile as HTML, or a dash with the reason why there is none."""
    if value_ms is None or math.isnan(value_ms):
        return f'<span title="shown from {FEWEST_SAMPLES[quantile]} requests on">–</span>'
    return f"{format_number(value_ms)} ms"


def _row(status: ModelStatus, entry: VersionStatus, numbers: VersionMetrics | None) -> dict[str, str]:
    percent = status.traffic.get(entry.version)
    labels = sorted(label for label, to in status.labels.items() if to == entry.version)
    return {
        "version": f"{entry.version}{' <b>current</b>' if entry.version == status.default_version else ''}",
        "state": _state(entry),
        "labels": text(", ".join(labels)),
        "traffic": "0 %" if percent is None else f"{percent:g} %",
        "engine": text(entry.engine) if entry.state is VersionState.AVAILABLE else "",
        "deployed": clock(entry.deployed_at) if entry.deployed_at is not None else "",
        "size": ", ".join(filter(None, [size_text(entry.weights_bytes), text(entry.named_variant)])),
        "requests": str(numbers.num_requests) if numbers else "0",
        "errors": str(numbers.num_errors) if numbers else "0",
        "p50": percentile(numbers.p50_ms if numbers else None, 0.5),
        "p95": percentile(numbers.p95_ms if numbers else None, 0.95),
        "p99": percentile(numbers.p99_ms if numbers else None, 0.99),
    }


def _state(entry: VersionStatus) -> str:
    if entry.error_message:
        return f"failed: {text(entry.error_message)}"
    if entry.problem:
        return f"{entry.state.name.lower()}, cannot answer"
    if not entry.detail:
        return entry.state.name.lower()
    if entry.state is VersionState.AVAILABLE:  # a run of it takes long
        return f"available ({text(entry.detail)})"
    parts = f" {entry.done}/{entry.total}" if entry.total > 1 else ""
    return f"{entry.state.name.lower()} ({text(entry.detail)}{parts}) {progress_bar(entry.done, entry.total)}"
