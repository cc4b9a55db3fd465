"""Bars: how often each of some things happened, and histograms of latencies as outlines.

Thread: any; pure functions.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...serving.telemetry.histogram import STEPS_PER_OCTAVE, edges_ms
from . import svg

BUCKETS_OF_A_STEP = 2
"""Buckets of the recorder that one step of the outline joins: a ratio of 1.19."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One histogram.

    Attributes:
        label: plain text, such as `v2`.
        counts: samples of each bucket of `serving.histogram`, shape `(NUM_BUCKETS,)`.
        style: index of dashes and colour.
    """

    label: str
    counts: np.ndarray
    style: int


def bar_chart(title: str, counts: Mapping[str, int], *, unit: str = "", empty: str) -> str:
    """Bars side by side, each with its name below and its number above.

    Args:
        title: plain text above the chart.
        counts: name -> number.
        unit: what is counted, plain text.
        empty: the text when there is nothing to draw, plain text.
    """
    total = sum(counts.values())
    top = svg.nice_ceiling(float(max(counts.values(), default=0)))
    parts = [svg.frame(title, unit, top)]
    if not total:
        return svg.element(f"{title}: {empty}", [*parts, svg.nothing(empty)])
    step = svg.PLOT_WIDTH / len(counts)
    bottom = svg.HEIGHT - svg.BOTTOM
    for index, (name, count) in enumerate(counts.items()):
        height = svg.PLOT_HEIGHT * count / top
        x = svg.LEFT + step * index
        middle = x + step / 2
        text = f"{name}: {count} ({100 * count / total:.0f} %)"
        parts.append(
            f'<g><rect x="{x + step * 0.12:.1f}" y="{bottom - height:.1f}" width="{step * 0.76:.1f}" '
            f'height="{height:.1f}" fill="{svg.COLOURS[0]}"/><title>{html.escape(text)}</title>'
            f'<text x="{middle:.1f}" y="{svg.HEIGHT - 6}" text-anchor="middle">{html.escape(name)}</text>'
            f'<text x="{middle:.1f}" y="{max(svg.TOP + 2.0, bottom - height - 3):.1f}" text-anchor="middle" '
            f'opacity="0.75">{svg.format_number(100 * count / total)}%</text></g>'
        )
    words = ", ".join(f"{name} {count}" for name, count in counts.items())
    return svg.element(f"{title}: {words}", parts)


def latency_histogram(title: str, outlines: Sequence[Outline], *, empty: str) -> str:
    """How latencies are spread, as shares of each version's requests over a logarithmic axis.

    Args:
        title: plain text above the chart.
        outlines: one for each version.
        empty: the text when there is nothing to draw, plain text.
    """
    drawn = [outline for outline in outlines if outline.counts.any()]
    if not drawn:
        return svg.element(f"{title}: {empty}", [svg.frame(title, "%", 1.0), svg.nothing(empty)])
    used = np.flatnonzero(np.sum([outline.counts for outline in drawn], axis=0))
    first = max(0, int(used[0]) - BUCKETS_OF_A_STEP)
    first -= first % BUCKETS_OF_A_STEP
    num_steps = max(4, -(-(int(used[-1]) + 1 + BUCKETS_OF_A_STEP - first) // BUCKETS_OF_A_STEP))
    steps = [(outline, _shares(outline.counts, first, num_steps)) for outline in drawn]
    top = svg.nice_ceiling(max(float(shares.max()) for _, shares in steps))
    bounds = 1e-3 * np.round(1e3 * edges_ms(), 6)
    parts = [svg.frame(title, "%", top), *_ticks(bounds, first, num_steps)]
    ends = []
    for outline, shares in steps:
        colour, dashes = svg.colour_of(outline.style), svg.dashes_of(outline.style)
        parts.append(
            f'<path d="{_outline(shares / top)}" fill="{colour}" fill-opacity="0.18" stroke="{colour}" '
            f'stroke-width="1.6"{dashes}/>'
        )
        peak = int(shares.argmax())
        low = float(bounds[min(first + peak * BUCKETS_OF_A_STEP, len(bounds) - 1)])
        text = f"{outline.label} peak {svg.format_number(low)} ms"
        ends.append((svg.TOP + svg.PLOT_HEIGHT * (1 - float(shares[peak]) / top), colour, text))
    parts += svg.end_labels(ends)
    return svg.element(f"{title}: {', '.join(text for *_, text in ends)}", parts)


def _shares(counts: np.ndarray, first: int, num_steps: int) -> np.ndarray:
    """Percent of the samples in each step."""
    wanted = num_steps * BUCKETS_OF_A_STEP
    some = counts[first : first + wanted]
    padded = np.concatenate([some, np.zeros(wanted - len(some), dtype=counts.dtype)])
    found: np.ndarray = 100 * padded.reshape(num_steps, BUCKETS_OF_A_STEP).sum(axis=1) / max(1, int(counts.sum()))
    return found


def _outline(heights: np.ndarray) -> str:
    """Steps from the bottom left to the bottom right."""
    width, bottom = svg.PLOT_WIDTH / len(heights), svg.HEIGHT - svg.BOTTOM
    words = [f"M{svg.LEFT} {bottom}"]
    for index, height in enumerate(heights.tolist()):
        words.append(f"V{bottom - svg.PLOT_HEIGHT * height:.1f}H{svg.LEFT + width * (index + 1):.1f}")
    return "".join(words) + f"V{bottom}Z"


def _ticks(bounds: np.ndarray, first: int, num_steps: int) -> list[str]:
    """Round latencies below the axis: 1, 2, 5, 10 and so on, fewer where there is no room."""
    low, high = float(bounds[first]), float(bounds[min(first + num_steps * BUCKETS_OF_A_STEP, len(bounds) - 1)])
    per_octave = svg.PLOT_WIDTH * STEPS_PER_OCTAVE / (num_steps * BUCKETS_OF_A_STEP)
    steps = (1, 2, 5) if per_octave > 32 else (1,)
    found = [step * 10.0**power for power in range(-2, 6) for step in steps]
    parts = [
        f'<text x="{svg.LEFT + per_octave * math.log2(value / low):.1f}" y="{svg.HEIGHT - 6}" text-anchor="middle" '
        f'opacity="0.75">{svg.format_number(value)}</text>'
        for value in found
        if low <= value <= high
    ]
    return [*parts, f'<text x="{svg.WIDTH - svg.RIGHT + 12}" y="{svg.HEIGHT - 6}" opacity="0.75">ms</text>']
