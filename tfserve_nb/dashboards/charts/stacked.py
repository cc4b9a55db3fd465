"""Bands over time that add up, such as where the time of a request goes.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import svg

OPACITIES = (0.85, 0.55)
"""Neighbours differ in lightness too, for readers who cannot tell the colours apart."""


def stacked_chart(title: str, unit: str, axis: svg.TimeAxis, layers: Mapping[str, np.ndarray], *, empty: str) -> str:
    """An SVG element.

    Args:
        title: plain text above the chart.
        unit: of the y axis, plain text.
        axis: of n steps.
        layers: name -> n values, NaN for gaps, the lowest band first.
        empty: the text when there is nothing to draw, plain text.
    """
    values = np.array(list(layers.values()), dtype=np.float64)
    known = np.asarray(np.isfinite(values).all(axis=0))
    if not layers or not known.any():
        return svg.element(f"{title}: {empty}", [svg.frame(title, unit, 1.0), svg.time_frame(axis), svg.nothing(empty)])
    bounds = np.vstack([np.zeros(values.shape[1]), np.cumsum(np.nan_to_num(values), axis=0)])
    top = svg.nice_ceiling(float(bounds[-1][known].max()))
    x, y = axis.x(axis.age_s), svg.TOP + svg.PLOT_HEIGHT * (1 - bounds / top)
    parts = [svg.frame(title, unit, top)]
    for index in range(len(layers)):
        d = "".join(_band(x[run], y[index][run], y[index + 1][run]) for run in _runs(known))
        colour, opacity = svg.colour_of(index), OPACITIES[index % 2]
        parts.append(f'<path d="{d}" fill="{colour}" fill-opacity="{opacity}"/>')
    last = int(np.flatnonzero(known)[-1])
    texts = [f"{name} {svg.format_number(float(row[last]))} {unit}" for name, row in zip(layers, values, strict=True)]
    middles = (y[:-1, last] + y[1:, last]) / 2
    parts += svg.end_labels(
        [(float(middle), svg.colour_of(index), texts[index]) for index, middle in enumerate(middles)]
    )
    notes = ["  ".join(f"{name} {svg.format_number(number)}" for name, number in zip(layers, column, strict=True))
             if is_known else "" for column, is_known in zip(values.T.tolist(), known, strict=True)]  # fmt: skip
    parts += [svg.time_frame(axis), svg.hover(axis, notes)]
    return svg.element(f"{title}: {', '.join(texts)}", parts)


def _runs(known: np.ndarray) -> list[slice]:
    """The stretches without gaps."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    return [slice(int(start), int(end)) for start, end in zip(changes[::2], changes[1::2], strict=True)]


def _band(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> str:
    """The outline between two lines; a lone point becomes a short bar."""
    if len(x) == 1:
        x, lower, upper = np.array([x[0] - 3, x[0]]), np.repeat(lower, 2), np.repeat(upper, 2)
    there = [f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), upper.tolist(), strict=True)]
    back = [f"{a:.1f} {b:.1f}" for a, b in zip(x[::-1].tolist(), lower[::-1].tolist(), strict=True)]
    return "M" + "L".join(there + back) + "Z"
