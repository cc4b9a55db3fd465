"""The figure of an experiment, which stays in the notebook.

Thread: the caller's, one at a time.
"""

from __future__ import annotations

import functools
import textwrap
from typing import Any  # matplotlib is imported when it is needed

import numpy as np

from ...agreement.result import Agreement
from ...reports.agreement import number
from ...reports.figure import A, B, drawn, log_ms, place_text, plain_text, tidy, to_png
from ...serving.telemetry.histogram import NUM_BUCKETS, edges_ms
from ..state import ExperimentState
from .report import (
    METRIC_NAMES,
    counts_of_arm,
    effect_text,
    guardrail_table,
    margin_of,
    nothing_yet,
    plan_lines,
    srm_line,
    title_of,
    trace_of,
    where_it_stands,
)

BUCKETS_OF_A_STEP = 2
NUM_FLIPS = 6
TEXT_CHARS = 62


def figure_of(state: ExperimentState) -> Any:
    """A matplotlib `Figure`: the effect and its band, latencies of both arms, agreement, and what it all rests on."""
    return drawn(title_of(state), functools.partial(_draw, state), height=6.2)


def png_of(state: ExperimentState) -> bytes:
    """The same as PNG."""
    return to_png(figure_of(state))


def _draw(state: ExperimentState, figure: Any) -> None:
    effect, latencies, outputs, words = figure.subplots(2, 2, width_ratios=(1.25, 1)).flat
    _draw_effect(effect, state)
    _draw_latencies(latencies, state)
    _draw_outputs(outputs, state)
    _write(words, state)


def _draw_effect(axes: Any, state: ExperimentState) -> None:
    plan = state.plan
    is_share = plan.metric == "quality"
    unit = "points" if is_share else "%"
    margin = 100 * margin_of(plan)
    for level, line, name in ((0.0, "-", "no difference"), (margin, "--", f"margin {margin:+g} {unit}")):
        axes.axhline(level, color="0.3", linewidth=1.2, linestyle=line)
        is_above = (level == margin) == (margin > 0)  # the names of both lines on their far sides
        place, shift = ("bottom", 2) if is_above else ("top", -2)
        axes.annotate(name, (0.99, level), xycoords=("axes fraction", "data"), xytext=(0, shift),
                      textcoords="offset points", ha="right", va=place, fontsize=7.5)  # fmt: skip
    band = f"{100 * (1 - plan.alpha):g} % band that holds at all times at once"
    axes.set_title(f"effect of B on the {METRIC_NAMES[plan.metric]}, {band}", fontsize=9)
    axes.set_ylabel(unit)
    axes.set_xlabel("requests of both arms")
    tidy(axes)
    trace = trace_of(state.moments, margin_of(plan))
    if trace is None:
        axes.set_ylim(-3 * abs(margin), 3 * abs(margin))
        axes.set_xticks([])
        place_text(axes, nothing_yet(plan))
        return
    if not trace.is_by_requests:
        axes.set_xlabel("seconds")
    bottom, top = 100 * trace.bottom, 100 * trace.top
    low, high = (np.clip(100 * end, bottom, top) for end in (trace.low, trace.high))
    axes.fill_between(trace.x, low, high, color=A, alpha=0.22, linewidth=0)
    axes.plot(trace.x, 100 * trace.value, color=A, linewidth=1.8)
    axes.plot(trace.x[-1], 100 * trace.value[-1], color=A, marker="o", markersize=4)
    axes.set_ylim(bottom, top)
    axes.set_xlim(0, 1.03 * trace.x[-1] or 1)


def _draw_latencies(axes: Any, state: ExperimentState) -> None:
    plan = state.plan
    axes.set_title("latencies of the requests", fontsize=9)
    axes.set_ylabel("% of the arm's requests")
    tidy(axes)
    edges = edges_ms()[::BUCKETS_OF_A_STEP]
    seen = []
    for arm, version, colour, line in (("A", plan.a, A, "-"), ("B", plan.b, B, "--")):
        counts = counts_of_arm(state, version)
        if counts.any():
            seen += list(np.flatnonzero(counts)[[0, -1]])
            shares = 100 * counts.reshape(NUM_BUCKETS // BUCKETS_OF_A_STEP, -1).sum(axis=1) / counts.sum()
            axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.4, label=f"{arm}: version {version}")
    if not seen:
        axes.set_xticks([])
        axes.set_yticks([])
        place_text(axes, "no requests yet")
        return
    log_ms(axes, "x")
    axes.set_xlim(edges_ms()[max(0, min(seen) - 2)], edges_ms()[min(NUM_BUCKETS, max(seen) + 3)])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, loc="upper right")


def _draw_outputs(axes: Any, state: ExperimentState) -> None:
    """Agreement, and the most frequent changes of the decision."""
    agreement = state.reading.agreement
    axes.set_title("outputs on the same rows", fontsize=9)
    if not agreement:
        axes.set_axis_off()
        place_text(axes, "no rows were compared" if state.plan.shadow else "no requests are copied")
        return
    flips = next((list(one.flips.items())[:NUM_FLIPS] for one in agreement.values() if one.flips), [])
    axes.set_title(_agreement(agreement), fontsize=9)
    if not flips:
        axes.set_axis_off()
        place_text(axes, _numbers_in_words(agreement))
        return
    counts = [count for _, count in flips]
    axes.barh(range(len(flips)), counts, color=B, height=0.6)
    axes.set_yticks(range(len(flips)), [f"A: {a} → B: {b}" for (a, b), _ in flips], fontsize=8)
    axes.set_ylim(max(len(flips), 3) - 0.4, -0.6)
    for place, count in enumerate(counts):
        axes.annotate(str(count), (count, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlabel("rows that are decided differently")
    axes.set_xlim(0, 1.12 * max(counts))
    tidy(axes)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _agreement(found: Agreement) -> str:
    if not found.is_compared:
        return "outputs are not compared: they differ each time"
    low, high = found.interval
    return f"{100 * found.share:.1f} % of {found.num_rows} rows agree [{100 * low:.1f}, {100 * high:.1f}] %"


def _numbers_in_words(found: Agreement) -> str:
    """Text in the place of changed classes: errors and bias of the outputs that are compared as numbers."""
    lines = [
        f"{name}: error {number(output.error)} spreads of A, bias {number(output.bias, sign=True)}"
        for name, output in list(found.items())[:NUM_FLIPS]
        if output.is_numbers
    ]
    return plain_text("\n".join(lines)) or ("no decision changed" if found.num_same == found.num_rows else "no classes")


def _write(axes: Any, state: ExperimentState) -> None:
    """Plan, split and guardrails in words."""
    reading, plan = state.reading, state.plan
    effect = "not known yet" if reading.effect is None else effect_text(reading.effect, plan.metric)
    samples = f"{reading.samples.get(plan.a, 0)} requests to A, {reading.samples.get(plan.b, 0)} to B"
    lines = [*where_it_stands(state), f"effect {effect}; {samples}", srm_line(reading.srm)]
    lines += [f"{now}: {name}, {words}" for name, now, _, words in guardrail_table(state).rows]
    lines += plan_lines(plan)
    wrapped = [piece for line in lines for piece in textwrap.wrap(line, TEXT_CHARS, subsequent_indent="   ")]
    axes.set_axis_off()
    axes.text(0, 1, plain_text("\n".join(wrapped)), fontsize=7.5, va="top", linespacing=1.35, transform=axes.transAxes)
