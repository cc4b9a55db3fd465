"""An experiment: the verdict first, then what it rests on.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...experiment.reading import Guardrail
from ...experiment.state import ExperimentState
from ...experiment.views.report import (
    METRIC_NAMES,
    SYMBOLS,
    arm_rows,
    calibration_rows,
    counts_of_arm,
    effect_words,
    flip_rows,
    guardrail_rows,
    metric_rows,
    nothing_yet,
    phase_line,
    plan_lines,
    srm_line,
    step_line,
)
from ...markup import COLOUR, grid, note, table, text
from ...types import HistoryEvent
from ..charts.band import band_chart
from ..charts.bar import Outline, latency_histogram
from ..charts.svg import COLOURS
from ..snapshot import event_text

EDGES = {"wait": COLOURS[5], "promote": COLOURS[2], "rollback": COLOURS[1], "blocked": COLOURS[3]}
"""Decision -> colour of the edge beside the verdict; the symbol says the same."""
NUM_EVENTS = 8
AROUND_S = 2.0
"""Events that belong to an experiment may be written a moment before or after it."""
_WRAPPED = {"metric": "9em;max-width:15em", "in words": "14em;max-width:34em", "which means": "10em;max-width:24em"}
"""Columns with sentences: they take several lines in a narrow column."""
EXPLANATION = (
    "An experiment splits the requests between two versions and watches run times, tails, errors, outputs and labels "
    "until it can say whether B is worse than A. Looking at it often does not make it wrong more often. A harmful B is "
    "taken back by itself. %abtest has more options: steps, margins, limits, keys."
)


def experiment_page(state: ExperimentState | None, events: Sequence[HistoryEvent] = ()) -> str:
    """Everything that is known of a model's latest experiment.

    Args:
        state: where it stands; None when there was none.
        events: the model's history, newest first.
    """
    if state is None:
        return note(EXPLANATION)
    return "".join(
        [
            _headline(state),
            _light(state),
            _table("Arms", arm_rows(state), numbers=("traffic now", "requests", "units", "p50", "p95", "p99")),
            grid(_charts(state)),
            _table("Metrics, B against A", metric_rows(state), numbers=("B against A", "interval", "units")),
            _guardrails(state),
            grid(_small_tables(state)) if _small_tables(state) else "",
            _story(state, events),
        ]
    )


def _headline(state: ExperimentState) -> str:
    """The verdict, in words and calm."""
    plan, verdict = state.plan, state.verdict
    step = step_line(state)
    return (
        f'<div style="border-left:5px solid {EDGES[verdict.decision]};padding:4px 12px;margin:6px 0;{COLOUR}">'
        f'<div style="opacity:0.75">{text(plan.name)}: version {plan.b} (B) against version {plan.a} (A)</div>'
        f'<div style="font-size:1.35em;line-height:1.35;font-weight:600"><span aria-hidden="true">'
        f"{SYMBOLS[verdict.decision]} </span>{text(_capital(verdict))}</div>"
        f'<div style="line-height:1.5">{text(phase_line(state, is_below_verdict=True))}</div>'
        + (f'<div style="line-height:1.5">{text(step)}</div>' if step else "")
        + "</div>"
    )


def _light(state: ExperimentState) -> str:
    """Whether the shares are what they should be: symbol and words, colour only helps."""
    srm = state.reading.srm
    symbol, colour, weight = ("⚠", COLOURS[3], 600) if srm.is_mismatch else ("✓", COLOURS[2], 400)
    return (
        f'<div style="line-height:1.5;font-weight:{weight};{COLOUR}"><span aria-hidden="true" style="color:{colour};'
        f'font-weight:700">{symbol}</span> {text(_capital(srm_line(srm)))}</div>'
    )


def _charts(state: ExperimentState) -> list[str]:
    plan = state.plan
    margin = -plan.margin if plan.metric == "quality" else plan.margin
    outlines = [
        Outline(arm, counts_of_arm(state, version), style)
        for style, (arm, version) in enumerate((("A", plan.a), ("B", plan.b)))
    ]
    title = f"Effect on the {METRIC_NAMES[plan.metric]}, {100 * (1 - plan.alpha):g} % band"
    return [
        band_chart(title, state.moments, margin, effect_words(plan.metric), empty=nothing_yet(plan)),
        latency_histogram("Latencies of the requests", outlines, empty="no requests yet"),
    ]


def _guardrails(state: ExperimentState) -> str:
    guardrails = state.reading.guardrails
    rows = guardrail_rows(guardrails)
    for row, one in zip(rows, guardrails, strict=True):
        row["last windows"] = _windows(one)
    limits = state.plan.limits
    windows = f"{limits.breaches} of the last {limits.windows} windows of {limits.window_s:g} s"
    rule = f"A limit is broken when {windows} are bad."
    broken = next((place for place, one in enumerate(guardrails) if one.is_breached), None)
    return _table("Guardrails", rows, html=("last windows",), current=broken) + note(rule if rows else "")


def _windows(one: Guardrail) -> str:
    """Symbols for eyes, words for ears."""
    words = {True: "bad", False: "fine", None: "too little traffic"}
    label = f"oldest first: {', '.join(words[window] for window in one.windows)}" if one.windows else "none yet"
    shown = " ".join({True: "✗", False: "✓", None: "·"}[window] for window in one.windows) or "–"
    return f'<span role="img" aria-label="{text(label)}" title="{text(label)}">{shown}</span>'


def _small_tables(state: ExperimentState) -> list[str]:
    flips = _table("Decided differently, on the same rows", flip_rows(state.reading), numbers=("rows", "of all"))
    sure = _table("How sure, and how often right", calibration_rows(state))
    return [one for one in (flips, sure) if one]


def _story(state: ExperimentState, events: Sequence[HistoryEvent]) -> str:
    """What was asked for, and what happened meanwhile."""
    until = state.ended_at if state.ended_at is not None else float("inf")
    told = [one for one in events if state.started_at - AROUND_S <= one.at <= until + AROUND_S][:NUM_EVENTS]
    lines = "".join(f"<li>{text(event_text(one))}, {text(one.actor)}</li>" for one in told)
    plan = [*plan_lines(state.plan)]
    if state.num_shadow_dropped:
        plan.append(f"{state.num_shadow_dropped} copies were left out because the server had better things to do")
    asked = "".join(f"<li>{text(_capital(line))}.</li>" for line in plan)
    return (
        f'<details style="{COLOUR};line-height:1.5"><summary>Plan and history</summary>'
        f'<ul style="margin:2px 0">{asked}</ul><ul style="margin:2px 0">{lines}</ul></details>'
    )


def _table(
    caption: str,
    rows: Sequence[Mapping[str, str]],
    *,
    numbers: Collection[str] = (),
    html: Collection[str] = (),
    current: int | None = None,
) -> str:
    """A table of plain text; nothing without rows. Sentences may have several lines."""
    if not rows:
        return ""
    columns = list(rows[0])
    shown = [{column: cell if column in html else _cell(column, cell) for column, cell in row.items()} for row in rows]
    return table(text(caption), columns, shown, numbers=numbers, current=current)


def _cell(column: str, cell: str) -> str:
    width = _WRAPPED.get(column)
    if width is None:
        return text(cell)
    return f'<span style="display:inline-block;white-space:normal;min-width:{width}">{text(cell)}</span>'


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
