"""The figure of variants: how large they are and how long they take, which stays in the notebook.

Thread: the caller's, one at a time.
"""

from __future__ import annotations

import functools
from typing import Any  # matplotlib is imported when it is needed

from ..reports.figure import COLOURS, drawn, log_ms, marker_key, plain_text, share_bar, tidy, to_png
from ..reports.variants import rows_text
from ..types import VariantMeasurement
from .result import VariantsResult

MARKERS = {"tensorflow": "o", "onnx": "s", "litert": "^"}
OTHER_MARKER = "D"
UNKNOWN, REFUSED = "0.6", "#c0392b"


def figure_of(result: VariantsResult) -> Any:
    """Size against latency for each size of a run, with accuracy, or else agreement, as colour: a `Figure`."""
    return drawn(result.title, functools.partial(_draw, result), height=4.2)


def png_of(result: VariantsResult) -> bytes | None:
    """The same as PNG; None where nothing was measured."""
    return to_png(figure_of(result)) if any(row.ms for row in result) else None


def _draw(result: VariantsResult, figure: Any) -> None:
    measured = [row for row in result if row.ms]
    sizes = sorted({size for row in measured for size in row.ms})
    what, values = _quality(measured)
    known = [value for value in values if value is not None]
    span = (min(known), max(known)) if known else (0.0, 1.0)
    if span[0] == span[1]:  # all as good: the best colour, not the worst
        span = (span[0] - 0.01, span[1])
    every = figure.subplots(1, len(sizes), squeeze=False)[0]
    for axes, size in zip(every, sizes, strict=True):
        _draw_size(axes, measured, values, span, size)
    figure.legend(handles=_legend(measured), fontsize=8, frameon=False, loc="outside lower center", ncols=6)
    if known:
        share_bar(figure, every, span, what)


def _draw_size(
    axes: Any, rows: list[VariantMeasurement], values: list[float | None], span: tuple[float, float], size: int
) -> None:
    """The points of runs of one size."""
    for row, value in zip(rows, values, strict=True):
        if size not in row.ms:
            continue
        place = row.disk_bytes / 2**20, row.ms[size]
        colour: dict[str, Any] = {"color": UNKNOWN} if value is None else {"c": [value], "cmap": COLOURS}
        if value is not None:
            colour |= {"vmin": span[0], "vmax": span[1]}
        edge = {"linewidths": 0} if row.is_usable else {"edgecolors": REFUSED, "linewidths": 1.6}
        axes.scatter(*place, s=52, marker=MARKERS.get(row.engine, OTHER_MARKER), zorder=3, **edge, **colour)
        if row.is_chosen:
            axes.scatter(*place, s=190, marker="o", facecolors="none", edgecolors="0.2", linewidths=1.2, zorder=2)
        axes.annotate(plain_text(row.variant), place, xytext=(7, 4), textcoords="offset points", fontsize=7,
                      color="0.35" if row.is_usable else REFUSED)  # fmt: skip
    log_ms(axes)
    axes.margins(x=0.16, y=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("MiB on the disk")
    axes.set_ylabel(f"ms, a run of {rows_text(size)}")
    tidy(axes)


def _quality(rows: list[VariantMeasurement]) -> tuple[str, list[float | None]]:
    """What the colours show, and its value for each row."""
    if any(row.accuracy is not None for row in rows):
        return "accuracy", [row.accuracy for row in rows]
    return "agreement with the model as it is", [row.agreement for row in rows]


def _legend(rows: list[VariantMeasurement]) -> list[Any]:
    engines = [
        marker_key(engine, MARKERS.get(engine, OTHER_MARKER), color="0.45", markersize=6)
        for engine in dict.fromkeys(row.engine for row in rows)
    ]
    others = []
    if any(row.is_chosen for row in rows):
        others.append(marker_key("chosen", "o", markerfacecolor="none", markeredgecolor="0.2", markersize=10))
    if not all(row.is_usable for row in rows):
        others.append(marker_key("refused", "o", markerfacecolor="none", markeredgecolor=REFUSED, markersize=7))
    return engines + others
