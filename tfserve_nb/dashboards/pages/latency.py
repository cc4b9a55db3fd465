"""Latency, throughput, errors, and where the time of requests went.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ...markup import grid, note
from ...serving.telemetry.histogram import FEWEST_SAMPLES
from ...serving.telemetry.model_metrics import PHASES, BatchSummary, ModelMetrics, VersionMetrics, combined
from ..charts.bar import Outline, bar_chart, latency_histogram
from ..charts.line import Line, line_chart
from ..charts.stacked import stacked_chart
from ..charts.svg import format_span
from ..snapshot import Snapshot

NO_REQUESTS = "no requests yet"
_QUANTILES = (("p50", 0), ("p99", 2), ("p95", 1))
"""Percentiles in the order of their importance, with the weight of their lines."""


def latency_page(snapshot: Snapshot, only: Collection[int] | None = None) -> str:
    """All charts.

    Args:
        snapshot: what to show.
        only: versions to show; None for all that had requests within the span.
    """
    return grid(latency_charts(snapshot, only)) + note(_caption(snapshot.metrics))


def latency_charts(snapshot: Snapshot, only: Collection[int] | None = None) -> list[str]:
    """The charts, the most important first."""
    metrics, axis = snapshot.metrics, snapshot.axis
    styles = styles_of(metrics)
    active = [
        entry for entry in metrics.versions.values() if entry.num_recent and (only is None or entry.version in only)
    ]
    rates = [Line(f"v{entry.version}", entry.series.rps, styles[entry.version]) for entry in active]
    waiting = [Line(f"v{entry.version}", entry.series.waiting, styles[entry.version]) for entry in active]
    errors = [Line(code, values, place) for place, (code, values) in enumerate(metrics.errors_ps.items())]
    batches = combined(entry.batches for entry in active)
    few = f"appears from {FEWEST_SAMPLES[0.5]} requests in {format_span(metrics.step_s)}" if active else NO_REQUESTS
    return [
        line_chart("Latency: p50 thick, p95 and p99 thin", "ms", axis, _percentiles(active, styles), empty=few),
        line_chart("Requests per second", "/s", axis, rates, empty=NO_REQUESTS),
        stacked_chart("Where the time of a request goes, mean", "ms", axis, _phases(active), empty=NO_REQUESTS),
        latency_histogram(
            f"Latencies of the last {format_span(metrics.span_s)}",
            [Outline(f"v{entry.version}", entry.histogram, styles[entry.version]) for entry in active],
            empty=NO_REQUESTS,
        ),
        line_chart("Errors and rejections by reason", "/s", axis, errors, empty="none"),
        line_chart("Requests that waited for a batch, mean", "", axis, waiting, empty=NO_REQUESTS, has_notes=False),
        bar_chart("Rows of a batch, padding included", _sizes(batches), empty="no batches yet"),
        bar_chart("Why batches left the queue", batches.reasons, empty="no batches yet"),
    ]


def styles_of(metrics: ModelMetrics) -> dict[int, int]:
    """Version -> dashes and colour, the same in all charts."""
    return {version: place for place, version in enumerate(metrics.versions)}


def _percentiles(active: list[VersionMetrics], styles: dict[int, int]) -> list[Line]:
    """Three lines a version; as many labels as have room."""
    num_labelled = 3 if len(active) <= 2 else 2 if len(active) <= 4 else 1
    labelled = {name for name, _ in (_QUANTILES[:num_labelled] if num_labelled > 1 else _QUANTILES[1:2])}
    return [
        Line(
            f"v{entry.version} {name}",
            getattr(entry.series, f"{name}_ms"),
            styles[entry.version],
            weight,
            name in labelled,
        )
        for entry in active
        for name, weight in sorted(_QUANTILES)
    ]


def _phases(active: list[VersionMetrics]) -> dict[str, np.ndarray]:
    """The mean over the requests of all versions."""
    if not active:
        return {}
    weights = np.array([entry.series.rps for entry in active])
    total = weights.sum(axis=0)
    found = {}
    for phase in PHASES:
        sums = np.nansum([entry.series.phases_ms[phase] * entry.series.rps for entry in active], axis=0)
        found[phase] = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    return found


def _sizes(batches: BatchSummary) -> dict[str, int]:
    """Batch sizes; many different ones are joined into powers of two."""
    if len(batches.sizes) <= 9:
        return {str(size): count for size, count in sorted(batches.sizes.items())}
    found: dict[str, int] = {}
    for size, count in sorted(batches.sizes.items()):
        upper = 1 << max(0, size - 1).bit_length()
        found[f"≤{upper}"] = found.get(f"≤{upper}", 0) + count
    return found


def _caption(metrics: ModelMetrics) -> str:
    unrouted = metrics.num_unrouted_errors
    missing = f" {unrouted} requests named no version that serves." if unrouted else ""
    return (
        f"p95 and p99 look back 30 s and appear from {FEWEST_SAMPLES[0.95]} and {FEWEST_SAMPLES[0.99]} requests. "
        f"▾ marks what the history has, the dark line below the axis cells that ran. "
        f"Batches are counted since their version was loaded.{missing}"
    )
