"""The figure of a replay, which stays in the notebook.

Thread: the caller's, one at a time.
"""

from __future__ import annotations

from typing import Any  # matplotlib is imported when it is needed

import numpy as np

from ..bench.figure import A, B, log_ms, new_figure, plain_text, to_png
from .result import ReplayResult


def figure_of(result: ReplayResult) -> Any:
    """Latencies of both versions request by request, and how far the answers are apart: a matplotlib `Figure`."""
    figure = new_figure(plain_text(result.title))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_latencies(left, result)
    _draw_differences(right, result)
    return figure


def png_of(result: ReplayResult) -> bytes:
    """The same as PNG."""
    return to_png(figure_of(result))


def _draw_latencies(axes: Any, result: ReplayResult) -> None:
    due_s = result.requests.get("due_s", np.zeros(0))
    drawn = False
    for column, label, colour, marker in (("a_ms", f"version {result.against}", A, "o"),
                                          ("b_ms", f"version {result.onto}", B, "s")):  # fmt: skip
        values = result.requests.get(column, np.zeros(0))
        if np.isfinite(values).any():
            axes.plot(due_s, values, color=colour, marker=marker, markersize=2.5, linestyle="none", label=label)
            drawn = True
    failed = result.requests.get("b_status", np.zeros(0, dtype=object)) != "ok"
    if failed.any():
        axes.plot(due_s[failed], np.full(int(failed.sum()), 1.0), color="0.2", marker="x", markersize=4,
                  linestyle="none", label=f"version {result.onto} failed")  # fmt: skip
        drawn = True
    if drawn:
        # Above: points may lie anywhere.
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    axes.set_xlabel("seconds, by the moment at which requests were due")
    log_ms(axes)


def _draw_differences(axes: Any, result: ReplayResult) -> None:
    """How large the difference of a request's outputs is, by share of requests."""
    values = result.requests.get("difference", np.zeros(0))
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        axes.text(0.5, 0.5, "no answers to compare", ha="center", transform=axes.transAxes, color="0.4")
        axes.set_axis_off()
        return
    finite = values[np.isfinite(values)]
    top = max(1e-6, float(finite.max(initial=0.0)))
    shares = np.arange(1, len(values) + 1) / len(values)
    axes.plot(np.minimum(values, 1.2 * top), shares, color=B, drawstyle="steps-post")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("largest difference to what was answered")
    axes.set_ylabel("share of requests")
    axes.grid(visible=True, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
