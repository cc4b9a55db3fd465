"""What all charts share: size, colours, axes, numbers. Charts are inline SVG text, without JavaScript and files.

Lines differ in their dashes and in the label at their end, colour only helps. Text takes the colour of its
surroundings, so that light and dark themes both work.

Notes about what is under the pointer are groups of class `tfs-h`, which `STYLE` makes visible; without the style (a
page that strips it) they stay hidden.

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
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
COLOURS = ("#3b82c4", "#d9822b", "#2a9d6f", "#b05cc0", "#c94f4f", "#7a8b99")
"""Middle tones: a contrast of at least 3:1 with both white and the dark themes' grey."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
LABEL_GAP = 13.0

STYLE = (
    "<style>.tfs-h{opacity:0}.tfs-h:hover{opacity:1}"
    ".tfs-h rect{fill:currentColor;fill-opacity:.10}.tfs-h text{fill:currentColor;opacity:1}</style>"
)


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment on the time axis.

    Attributes:
        age_s: how many seconds ago.
        text: what happened, plain text.
    """

    age_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time, such as a cell that ran.

    Attributes:
        from_age_s: how many seconds ago it began.
        to_age_s: how many seconds ago it ended; 0 when it goes on.
        text: what it was, plain text.
    """

    from_age_s: float
    to_age_s: float
    text: str


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The x axis of a chart over time.

    Attributes:
        age_s: how long ago each step ended, in seconds; shape `(n,)`, decreasing to 0.
        span_s: seconds that the axis covers.
        markers: moments to mark.
        stretches: stretches to shade below the axis.
    """

    age_s: np.ndarray
    span_s: float
    markers: Sequence[Marker] = ()
    stretches: Sequence[Stretch] = ()

    def x(self, age_s: np.ndarray) -> np.ndarray:
        """Where times lie, in units of the drawing."""
        return LEFT + PLOT_WIDTH * (1 - np.clip(age_s / max(self.span_s, 1e-9), 0, 1))


def element(label: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    """An `<svg>` element.

    Args:
        label: what it shows in words, for screen readers.
        parts: its content.
        height: in units of the drawing, `WIDTH` of which are its width.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}" '
        'style="width:100%;max-width:720px;display:block;color:var(--jp-ui-font-color1,currentColor);'
        'font:11px var(--jp-ui-font-family,sans-serif)" fill="currentColor">' + "".join(parts) + "</svg>"
    )


def heading(title: str) -> str:
    """The title above a chart."""
    return f'<text x="{LEFT}" y="14" font-weight="600" font-size="12">{html.escape(title)}</text>'


def grid_line(y: float, label: str) -> str:
    """A pale line over the plot, with its value at the left."""
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
        f'stroke-opacity="0.16"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" opacity="0.75">'
        f"{html.escape(label)}</text>"
    )


def frame(title: str, unit: str, top: float) -> str:
    """Title, grid and y ticks."""
    parts = [heading(title)]
    for share in (0.0, 0.5, 1.0):
        label = format_number(top * share) + (f" {unit}" if share == 1 else "")
        parts.append(grid_line(HEIGHT - BOTTOM - PLOT_HEIGHT * share, label))
    return "".join(parts)


def time_frame(axis: TimeAxis) -> str:
    """The ends of the time axis, its markers and its stretches."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<text x="{LEFT}" y="{HEIGHT - 6}" opacity="0.75">{format_span(axis.span_s)} ago</text>',
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end" opacity="0.75">now</text>',
    ]
    for stretch in axis.stretches:
        start, end = axis.x(np.array([stretch.from_age_s, stretch.to_age_s]))
        parts.append(
            f'<rect x="{start:.1f}" y="{bottom}" width="{max(1.5, end - start):.1f}" height="4" fill-opacity="0.35">'
            f"<title>{html.escape(stretch.text)}</title></rect>"
        )
    for mark in axis.markers:
        (x,) = axis.x(np.array([mark.age_s]))
        parts.append(
            f'<g><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="currentColor" '
            f'stroke-opacity="0.6" stroke-dasharray="1 2"/><path d="M{x - 3.5:.1f} {TOP - 9}h7l-3.5 5z"/>'
            f"<title>{html.escape(mark.text)}</title></g>"
        )
    return "".join(parts)


def hover(axis: TimeAxis, notes: Sequence[str]) -> str:
    """A note for each step of the axis, shown at the bottom while the pointer is over the step.

    Args:
        axis: with n steps.
        notes: n plain texts; empty ones are left out.
    """
    if len(axis.age_s) == 0:
        return ""
    centres = axis.x(axis.age_s)
    width = PLOT_WIDTH / max(1, len(centres))
    return "".join(
        hover_note(x - width, width, f"{format_span(age_s)} ago: {note}")
        for x, age_s, note in zip(centres.tolist(), axis.age_s.tolist(), notes, strict=True)
        if note
    )


def hover_note(x: float, width: float, words: str) -> str:
    """A note that is shown at the bottom while the pointer is over a stretch of the plot."""
    return (
        f'<g class="tfs-h" opacity="0"><rect x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{PLOT_HEIGHT}"/>'
        f'<text x="{LEFT + 60}" y="{HEIGHT - 6}">{html.escape(words)}</text></g>'
    )


def colour_of(style: int) -> str:
    """The colour of a line or band; there are more styles than colours."""
    return COLOURS[style % len(COLOURS)]


def dashes_of(style: int) -> str:
    """The attribute of a stroke with the dashes of a style."""
    return dashed(DASHES[style % len(DASHES)])


def dashed(pattern: str) -> str:
    """The attribute of a stroke with these dashes; nothing for an unbroken one."""
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def end_labels(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """Labels beside the right end of the plot, moved apart where they would overlap.

    Args:
        ends: y, colour and plain text of each.
    """
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
        f'<text x="{right + 12}" y="{position + 4:.1f}">{html.escape(text)}</text>'
        for (y, colour, text), position in zip(ordered, positions, strict=True)
    ]


def nothing(text: str) -> str:
    """The text in a chart without values."""
    return (
        f'<text x="{LEFT + PLOT_WIDTH / 2:.0f}" y="{HEIGHT / 2 + 6:.0f}" text-anchor="middle" opacity="0.75">'
        f"{html.escape(text)}</text>"
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
    if 1e-4 <= value < 999.5:
        return f"{value:.3g}"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_span(seconds: float) -> str:
    """A time span in seconds or minutes.

    Example:
        >>> format_span(8), format_span(120), format_span(90)
        ('8 s', '2 min', '90 s')
    """
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:.0f} s"
