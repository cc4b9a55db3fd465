"""Line charts as inline SVG text: no JavaScript, no files, well below a millisecond each.

Lines are told apart by dashes and by the label at their end, colour only helps. Text takes the colour of its
surroundings, so that light and dark themes both work. Where a value is hidden for want of samples the line has a gap.

Thread: any; pure functions.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 560, 168
LEFT, RIGHT, TOP, BOTTOM = 52, 118, 26, 22
COLOURS = ("#3b82c4", "#d9822b", "#2a9d6f", "#b05cc0", "#c94f4f", "#7a8b99")
"""Middle tones: at least 3:1 against both white and the dark themes' grey."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
LABEL_GAP = 13.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: plain text at its end, such as `v2 p99`.
        values: y values, NaN for gaps; as many as the chart has x values.
        style: index of dashes and colour; lines of one version share it.
        is_thin: thin for the second line of a version.
    """

    label: str
    values: np.ndarray
    style: int
    is_thin: bool = False


def line_chart(title: str, unit: str, age_s: np.ndarray, span_s: float, lines: Sequence[Line], *, empty: str) -> str:
    """An SVG element.

    Args:
        title: plain text above the chart.
        unit: of the y axis, plain text.
        age_s: x values: seconds ago, decreasing to 0, shape `(n,)`.
        span_s: seconds that the x axis covers.
        lines: each with n values.
        empty: what to say when there is nothing to draw, plain text.

    Returns:
        The text of an `<svg>` with a role and a label in words.
    """
    drawn = [line for line in lines if bool(np.isfinite(line.values).any())]
    top = nice_ceiling(max((float(np.nanmax(line.values)) for line in drawn), default=0.0))
    parts = [_frame(title, unit, top, span_s)]
    if not drawn:
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{HEIGHT / 2 + 6:.0f}" text-anchor="middle" opacity="0.75">'
            f"{html.escape(empty)}</text>"
        )
    x = LEFT + (WIDTH - LEFT - RIGHT) * (1 - age_s / max(span_s, 1e-9))
    ends = []
    for line in drawn:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - line.values / top)
        colour = COLOURS[line.style % len(COLOURS)]
        dash = DASHES[line.style % len(DASHES)]
        width = 1.2 if line.is_thin else 2.2
        parts.append(
            f'<path d="{path(x, y)}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"'
            f"{f' stroke-dasharray={chr(34)}{dash}{chr(34)}' if dash else ''}/>"
        )
        last = int(np.flatnonzero(np.isfinite(line.values))[-1])
        ends.append((float(y[last]), float(line.values[last]), line, colour))
    parts += _labels(ends, unit)
    words = ", ".join(f"{line.label} {format_number(value)} {unit}" for _, value, line, _ in ends) or empty
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(f"{title}: {words}")}" '
        'style="width:100%;max-width:720px;display:block;color:var(--jp-ui-font-color1,currentColor);'
        'font:11px var(--jp-ui-font-family,sans-serif)" fill="currentColor">' + "".join(parts) + "</svg>"
    )


def path(x: np.ndarray, y: np.ndarray) -> str:
    """The `d` of a path through finite points, beginning anew after each gap; a lone point becomes a short dash."""
    words: list[str] = []
    is_open = False
    finite = np.isfinite(y)
    for index in range(len(x)):
        if not finite[index]:
            is_open = False
            continue
        if is_open:
            words.append(f"L{x[index]:.1f} {y[index]:.1f}")
            continue
        words.append(f"M{x[index]:.1f} {y[index]:.1f}")
        is_open = True
        if index + 1 == len(x) or not finite[index + 1]:
            words.append("h1.5")
    return "".join(words)


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, ... that is at least `value`; 1 for nothing (below 1e-9).

    Example:
        >>> nice_ceiling(0.31), nice_ceiling(3.0), nice_ceiling(70)
        (0.5, 5.0, 100.0)
    """
    if not value > 1e-9 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1.0, 2.0, 5.0) if step * power >= value * (1 - 1e-9)), 10.0 * power)


def format_number(value: float) -> str:
    """Three significant digits, no exponent.

    Example:
        >>> format_number(0.5), format_number(12.34), format_number(1234.5)
        ('0.5', '12.3', '1234')
    """
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _frame(title: str, unit: str, top: float, span_s: float) -> str:
    """Title, grid, y ticks and the ends of the time axis."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<text x="{LEFT}" y="14" font-weight="600" font-size="12">{html.escape(title)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}" opacity="0.75">{span_s:.0f} s ago</text>',
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end" opacity="0.75">now</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - TOP) * share
        label = format_number(top * share) + (f" {unit}" if share == 1 else "")
        parts.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-opacity="0.18"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" opacity="0.75">{html.escape(label)}</text>'
        )
    return "".join(parts)


def _labels(ends: list[tuple[float, float, Line, str]], unit: str) -> list[str]:
    """Labels beside the ends of the lines, moved apart where they would overlap."""
    ordered = sorted(ends, key=lambda end: end[0])
    positions: list[float] = []
    for y, *_ in ordered:
        positions.append(max(y, positions[-1] + LABEL_GAP) if positions else max(y, TOP + 2))
    lowest = HEIGHT - BOTTOM + 4.0
    for index in reversed(range(len(positions))):
        positions[index] = min(positions[index], lowest)
        lowest = positions[index] - LABEL_GAP
    right = WIDTH - RIGHT
    return [
        f'<line x1="{right + 2}" y1="{y:.1f}" x2="{right + 9}" y2="{position:.1f}" stroke="{colour}"/>'
        f'<text x="{right + 12}" y="{position + 4:.1f}">'
        f"{html.escape(f'{line.label} {format_number(value)} {unit}')}</text>"
        for (y, value, line, colour), position in zip(ordered, positions, strict=True)
    ]
