"""An experiment: the verdict first, then its evidence.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...experiment.state import ExperimentState
from ...experiment.views import report
from ...markup import COLOUR, grid, note, text
from ...reports.agreement import kind_notes
from ...reports.html import table_html
from ...types import HistoryEvent
from ..charts.band import band_chart
from ..charts.bar import Outline, latency_histogram
from ..charts.svg import COLOURS
from ..snapshot import event_text

EDGES = {"wait": COLOURS[5], "promote": COLOURS[2], "rollback": COLOURS[1], "blocked": COLOURS[3]}
"""Decision -> colour of the edge beside the verdict; the symbol means the same."""
NUM_EVENTS = 8
AROUND_S = 2.0
"""Events that belong to an experiment may be written a moment before or after it."""
EXPLANATION = (
    "An experiment splits the requests between two versions and compares run times, tails, errors, outputs and labels "
    "until the data show whether B is worse than A. Reading it often does not make wrong verdicts more likely. A "
    "harmful B is rolled back automatically. %abtest has more options: steps, margins, limits, keys."
)


def experiment_page(state: ExperimentState | None, events: Sequence[HistoryEvent] = ()) -> str:
    """A model's latest experiment in full.

    Args:
        state: its current state; None when there was none.
        events: the model's history, newest first.
    """
    if state is None:
        return note(EXPLANATION)
    return "".join(
        [
            _headline(state),
            _srm_line(state),
            table_html(report.arm_table(state)),
            grid(_charts(state)),
            table_html(report.metric_table(state)),
            table_html(report.output_table(state.reading)),
            *(note(_capital(f"{line}.")) for line in kind_notes(state.reading.agreement)),
            _guardrails(state),
            grid(_small_tables(state)) if _small_tables(state) else "",
            _plan_and_history(state, events),
        ]
    )


def _headline(state: ExperimentState) -> str:
    """The verdict, in words and calm."""
    plan, verdict = state.plan, state.verdict
    step = report.step_line(state)
    return (
        f'<div style="border-left:5px solid {EDGES[verdict.decision]};padding:4px 12px;margin:6px 0;{COLOUR}">'
        f'<div style="opacity:0.75">{text(plan.name)}: version {plan.b} (B) compared with version {plan.a} (A)</div>'
        f'<div style="font-size:1.35em;line-height:1.35;font-weight:600"><span aria-hidden="true">'
        f"{report.SYMBOLS[verdict.decision]} </span>{text(_capital(verdict))}</div>"
        f'<div style="line-height:1.5">{text(report.phase_line(state, is_below_verdict=True))}</div>'
        + (f'<div style="line-height:1.5">{text(step)}</div>' if step else "")
        + "</div>"
    )


def _srm_line(state: ExperimentState) -> str:
    """Whether the shares are what they should be: symbol and words, colour only helps."""
    srm = state.reading.srm
    symbol, colour, weight = ("⚠", COLOURS[3], 600) if srm.is_mismatch else ("✓", COLOURS[2], 400)
    return (
        f'<div style="line-height:1.5;font-weight:{weight};{COLOUR}"><span aria-hidden="true" style="color:{colour};'
        f'font-weight:700">{symbol}</span> {text(_capital(report.srm_line(srm)))}</div>'
    )


def _charts(state: ExperimentState) -> list[str]:
    plan = state.plan
    outlines = [
        Outline(arm, report.counts_of_arm(state, version), style)
        for style, (arm, version) in enumerate((("A", plan.a), ("B", plan.b)))
    ]
    title = f"Effect on the {report.METRIC_NAMES[plan.metric]}, {100 * (1 - plan.alpha):g} % band"
    words = report.effect_words(plan.metric)
    return [
        band_chart(title, state.moments, report.margin_of(plan), words, empty=report.nothing_yet(plan)),
        latency_histogram("Latencies of the requests", outlines, empty="no requests yet"),
    ]


def _guardrails(state: ExperimentState) -> str:
    limits = state.plan.limits
    windows = f"{limits.breaches} of the last {limits.windows} windows of {limits.window_s:g} s"
    rule = f"A limit is broken when {windows} are bad." if state.reading.guardrails else ""
    return table_html(report.guardrail_table(state)) + note(rule)


def _small_tables(state: ExperimentState) -> list[str]:
    shown = (table_html(report.flip_table(state.reading)), table_html(report.calibration_table(state)))
    return [table for table in shown if table]


def _plan_and_history(state: ExperimentState, events: Sequence[HistoryEvent]) -> str:
    """The experiment's plan, and the events while it ran."""
    until = state.ended_at if state.ended_at is not None else float("inf")
    shown = [event for event in events if state.started_at - AROUND_S <= event.at <= until + AROUND_S][:NUM_EVENTS]
    lines = "".join(f"<li>{text(event_text(event))}, {text(event.actor)}</li>" for event in shown)
    plan = [*report.plan_lines(state.plan)]
    if state.num_shadow_dropped:
        plan.append(f"{state.num_shadow_dropped} copies were left out while the server was busy")
    plan_items = "".join(f"<li>{text(_capital(line))}.</li>" for line in plan)
    return (
        f'<details style="{COLOUR};line-height:1.5"><summary>Plan and history</summary>'
        f'<ul style="margin:2px 0">{plan_items}</ul><ul style="margin:2px 0">{lines}</ul></details>'
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
