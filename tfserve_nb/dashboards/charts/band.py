"""An effect with its confidence band as an experiment goes on, with the zero line and the margin.

Line, band and limits differ in shape and have words beside them; colour only helps.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...experiment.state import Moment
from ...experiment.views.report import interval_text, trace_of
from . import svg

BAND = 'fill-opacity="0.22" stroke-width="0.8" stroke-dasharray="2 2"'
MAX_NOTES = 60
"""Moments with a note under the pointer; more would be most of the SVG's text."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The y axis.

    Attributes:
        low: lowest value drawn.
        high: highest value drawn.
    """

    low: float
    high: float

    def y(self, value: np.ndarray) -> np.ndarray:
        """Where values lie, in units of the drawing; those outside lie on the edge."""
        share = (np.clip(value, self.low, self.high) - self.low) / (self.high - self.low)
        found: np.ndarray = svg.TOP + svg.PLOT_HEIGHT * (1 - share)
        return found


def band_chart(
    title: str, moments: Sequence[Moment], margin: float | None, words: Callable[[float], str], *, empty: str
) -> str:
    """An SVG element.

    Args:
        title: plain text above the chart.
        moments: the effect over time, oldest first.
        margin: the effect from which on B counts as worse; None for no line.
        words: an effect as plain text, such as `+3 %`.
        empty: the text while there is nothing to draw, plain text.
    """
    trace = trace_of(moments, margin)
    if trace is None:
        return svg.element(f"{title}: {empty}", [svg.heading(title), svg.nothing(empty)])
    scale = Scale(trace.bottom, trace.top)
    x = svg.LEFT + svg.PLOT_WIDTH * trace.x / max(1e-9, float(trace.x[-1]))
    value, low, high = map(scale.y, (trace.value, trace.low, trace.high))
    upper = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, high, strict=True))
    lower = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True))
    middle = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, value, strict=True))
    colour = svg.colour_of(0)
    parts = [
        svg.heading(title),
        *_ticks(scale, words),
        *_limits(scale, margin, words),
        f'<polygon points="{upper} {lower}" fill="{colour}" stroke="{colour}" {BAND}/>',
        f'<polyline points="{middle}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"/>',
        f'<circle cx="{x[-1]:.1f}" cy="{value[-1]:.1f}" r="3.2" fill="{colour}"/>',
        *_axis(trace.moments[-1]),
        *_notes(trace.moments, x, words),
    ]
    return svg.element(_in_words(title, trace.moments[-1], margin, words), parts)


def _ticks(scale: Scale, words: Callable[[float], str]) -> list[str]:
    """Round values at the left."""
    step = svg.nice_ceiling((scale.high - scale.low) / 4)
    parts = []
    for number in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1):
        y = float(scale.y(np.array(number * step)))
        parts.append(svg.grid_line(y, _short(words(number * step)).removesuffix(" points")))
    return parts


def _short(words: str) -> str:
    """`+5 %` for `+5.0 %`."""
    return re.sub(r"\.0+(?= )", "", words)


def _limits(scale: Scale, margin: float | None, words: Callable[[float], str]) -> list[str]:
    """The zero line and the margin, with their names at the right."""
    lines = [(0.0, "", "1.4", "no difference")]
    if margin is not None:
        lines.append((margin, "6 3", "1.4", f"margin {_short(words(margin))}"))
    parts, ends = [], []
    for value, dash, width, name in lines:
        y = float(scale.y(np.array(value)))
        parts.append(
            f'<line x1="{svg.LEFT}" x2="{svg.WIDTH - svg.RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
            f'stroke-width="{width}" stroke-opacity="0.75"{svg.dashed(dash)}/>'
        )
        ends.append((y, "currentColor", name))
    return parts + svg.end_labels(ends)


def _axis(end: Moment) -> list[str]:
    y = svg.HEIGHT - svg.BOTTOM + 16
    last = f"{end.num_requests} requests, {end.at_s:.0f} s"
    return [
        f'<text x="{svg.LEFT}" y="{y}" opacity="0.75">0</text>',
        f'<text x="{svg.WIDTH - svg.RIGHT}" y="{y}" text-anchor="end" opacity="0.75">{last}</text>',
    ]


def _notes(known: Sequence[Moment], x: np.ndarray, words: Callable[[float], str]) -> list[str]:
    """A note for the moment under the pointer."""
    step = max(1, -(-len(known) // MAX_NOTES))
    places = sorted({*range(0, len(known), step), len(known) - 1})
    parts: list[str] = []
    left = float(svg.LEFT)
    for place in places:
        right, moment = float(x[place]), known[place]
        note = f"{moment.num_requests} requests: {words(moment.value)} {interval_text(moment.low, moment.high, words)}"
        parts.append(svg.hover_note(left, max(1.0, right - left), note))
        left = right
    return parts


def _in_words(title: str, last: Moment, margin: float | None, words: Callable[[float], str]) -> str:
    limit = "" if margin is None else f"; the margin is {words(margin)}"
    return (
        f"{title}: {words(last.value)}, from {words(last.low)} to {words(last.high)}, after {last.num_requests} "
        f"requests; zero is no difference{limit}"
    )
