"""The figure of a replay, which stays in the notebook.

Thread: the caller's, one at a time.
"""

from __future__ import annotations

import functools
from typing import Any  # matplotlib is imported when it is needed

import numpy as np

from ..reports.figure import A, B, drawn, log_ms, place_text, tidy, to_png
from .result import ReplayResult


def figure_of(result: ReplayResult) -> Any:
    """Latencies of both versions request by request, and how far the outputs are apart: a matplotlib `Figure`."""
    return drawn(result.title, functools.partial(_draw, result))


def png_of(result: ReplayResult) -> bytes:
    """The same as PNG."""
    return to_png(figure_of(result))


def _draw(result: ReplayResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_latencies(left, result)
    _draw_differences(right, result)


def _draw_latencies(axes: Any, result: ReplayResult) -> None:
    due_s = result.requests.get("due_s", np.zeros(0))
    is_empty = True
    for column, label, colour, marker in (("a_ms", f"version {result.against}", A, "o"),
                                          ("b_ms", f"version {result.onto}", B, "s")):  # fmt: skip
        values = result.requests.get(column, np.zeros(0))
        if np.isfinite(values).any():
            axes.plot(due_s, values, color=colour, marker=marker, markersize=2.5, linestyle="none", label=label)
            is_empty = False
    failed = result.requests.get("b_status", np.zeros(0, dtype=object)) != "ok"
    if failed.any():
        axes.plot(due_s[failed], np.full(int(failed.sum()), 1.0), color="0.2", marker="x", markersize=4,
                  linestyle="none", label=f"version {result.onto} failed")  # fmt: skip
        is_empty = False
    if not is_empty:
        # Above: points may lie anywhere.
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    axes.set_xlabel("seconds, by the moment at which requests were due")
    log_ms(axes)
    tidy(axes)


def _draw_differences(axes: Any, result: ReplayResult) -> None:
    """How large the difference of a request's outputs is, by share of requests."""
    values = result.requests.get("difference", np.zeros(0))
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        place_text(axes, "no outputs to compare")
        axes.set_axis_off()
        return
    finite = values[np.isfinite(values)]
    top = max(1e-6, float(finite.max(initial=0.0)))
    shares = np.arange(1, len(values) + 1) / len(values)
    axes.plot(np.minimum(values, 1.2 * top), shares, color=B, drawstyle="steps-post")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("largest difference from the recorded outputs")
    axes.set_ylabel("share of requests")
    tidy(axes)
