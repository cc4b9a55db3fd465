"""Lines over time. Where a value is hidden because there are too few samples the line has a gap.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import svg

WIDTHS = (2.2, 1.5, 1.0)
"""Strokes of the first, second and third line of a version."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: plain text at its end, such as `v2 p99`.
        values: y values, NaN for gaps; as many as the chart has x values.
        style: index of dashes and colour; lines of one version share it.
        weight: 0 for the thickest, 2 for the thinnest line.
        has_label: whether its last value stands at its end; otherwise only the note under the pointer and
            the description for screen readers contain it.
    """

    label: str
    values: np.ndarray
    style: int
    weight: int = 0
    has_label: bool = True


def line_chart(
    title: str, unit: str, axis: svg.TimeAxis, lines: Sequence[Line], *, empty: str, has_notes: bool = True
) -> str:
    """An SVG element.

    Args:
        title: plain text above the chart.
        unit: of the y axis, plain text.
        axis: of n steps.
        lines: each with n values.
        empty: the text when there is nothing to draw, plain text.
        has_notes: whether the pointer brings up the values of each step; they are most of the text.

    Returns:
        The text of an `<svg>` with a role and a label in words.
    """
    drawn = [line for line in lines if bool(np.isfinite(line.values).any())]
    top = svg.nice_ceiling(max((float(np.nanmax(line.values)) for line in drawn), default=0.0))
    parts = [svg.frame(title, unit, top), svg.time_frame(axis)]
    if not drawn:
        parts.append(svg.nothing(empty))
    x = axis.x(axis.age_s)
    ends, words = [], []
    for line in drawn:
        y = svg.TOP + svg.PLOT_HEIGHT * (1 - line.values / top)
        parts.append(_stroke(line, svg.path(x, y)))
        last = int(np.flatnonzero(np.isfinite(line.values))[-1])
        text = f"{line.label} {svg.format_number(float(line.values[last]))} {unit}"
        words.append(text)
        if line.has_label:
            ends.append((float(y[last]), svg.colour_of(line.style), text))
    parts += svg.end_labels(ends)
    if has_notes:
        parts.append(svg.hover(axis, _notes(drawn, len(x))))
    return svg.element(f"{title}: {', '.join(words) or empty}", parts)


def _stroke(line: Line, d: str) -> str:
    return (
        f'<path d="{d}" fill="none" stroke="{svg.colour_of(line.style)}" '
        f'stroke-width="{WIDTHS[min(line.weight, len(WIDTHS) - 1)]}" '
        f'stroke-linejoin="round"{svg.dashes_of(line.style)}/>'
    )


def _notes(lines: Sequence[Line], num_steps: int) -> list[str]:
    """The values of each step, `v1 p50 2.1` once and `/ 9.9` for what follows of the same version."""
    columns = [(line.label, line.values.tolist()) for line in lines]
    notes = []
    for step in range(num_steps):
        words: list[str] = []
        before = ""
        for label, values in columns:
            value = values[step]
            if not math.isnan(value):
                version = label.split(" ")[0]
                number = svg.format_number(value)
                words.append(f"{label[len(version) :].strip()} {number}" if version == before else f"{label} {number}")
                before = version
        notes.append("  ".join(words))
    return notes
