"""An experiment in words: lines, and rows of tables as text. Views and reports are made of them.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...markup import alert, note, table, text
from ...serving.telemetry.histogram import NUM_BUCKETS, percentile_s
from ..plan import Plan
from ..reading import Calibration, Estimate, Guardrail, Reading, SampleRatio
from ..state import BY_HAND, ExperimentState

Row = Mapping[str, str]

METRIC_NAMES = {"latency": "time of a run", "p95": "p95 of a request", "quality": "share of right answers"}
SYMBOLS = {"wait": "…", "promote": "✓", "rollback": "✗", "blocked": "⚠"}
"""Decision -> what stands before the verdict, so that colour never says it alone."""
_WINDOW = {True: "✗", False: "✓", None: "·"}
NUM_FLIPS = 8


def to_text(state: ExperimentState) -> str:
    """For terminals."""
    lines = [title_of(state), *(f"  {line}" for line in where_it_stands(state))]
    for heading, rows in sections_of(state):
        lines += ["", f"  {heading}", *_aligned(rows)]
    lines += ["", *(f"  {line}" for line in plan_lines(state.plan))]
    return "\n".join(lines)


def to_html(state: ExperimentState) -> str:
    """For notebooks; the figure is beside it."""
    srm = state.reading.srm
    parts = [alert(srm_line(srm)) if srm.is_mismatch else "", *map(note, where_it_stands(state))]
    for heading, rows in sections_of(state):
        columns = list(rows[0])
        escaped = [{column: text(cell) for column, cell in row.items()} for row in rows]
        parts.append(table(text(heading), columns, escaped))
    parts += [note(line) for line in plan_lines(state.plan)]
    return f"<div><div><b>{text(title_of(state))}</b></div>{''.join(parts)}</div>"


def sections_of(state: ExperimentState) -> list[tuple[str, list[dict[str, str]]]]:
    """Headings and rows of everything that is known; empty tables are left out."""
    reading = state.reading
    found = [
        ("Arms", arm_rows(state)),
        ("Sample ratio", [srm_row(reading.srm)]),
        ("Metrics", metric_rows(state)),
        ("Guardrails", guardrail_rows(reading.guardrails)),
        ("Decided differently, on the same rows", flip_rows(reading)),
        ("How sure, and how often right", calibration_rows(state)),
    ]
    return [(heading, rows) for heading, rows in found if rows]


def title_of(state: ExperimentState) -> str:
    """The model, its versions and the verdict."""
    plan, verdict = state.plan, state.verdict
    symbol = SYMBOLS[verdict.decision]
    return f"{symbol} {plan.name}, version {plan.b} (B) against version {plan.a} (A): {verdict}"


def phase_line(state: ExperimentState, *, is_below_verdict: bool = False) -> str:
    """Where it stands, such as `rolled back at 14:03:09: B is slower by 31 %`.

    Args:
        state: of the experiment.
        is_below_verdict: whether the verdict is read just before, so that a reason which it holds is not said again.
    """
    reason = state.reason.removesuffix("; waits for a person")
    is_said = is_below_verdict and reason.removesuffix(": promote") in state.verdict
    why = f": {reason}" if reason and not is_said else ""
    if state.phase == "running":
        return f"running since {_clock(state.started_at)}{why}"
    if state.phase == "held" and reason != state.reason:
        return "passed, and waits for you"
    if state.phase == "held":
        return f"waits for you{why}"
    when = "" if state.ended_at is None else f" at {_clock(state.ended_at)}"
    return f"{state.phase}{when}{why}"


def where_it_stands(state: ExperimentState) -> list[str]:
    """What stands below the verdict in a report: the phase, and the step of a canary."""
    return [line for line in (phase_line(state, is_below_verdict=True), step_line(state)) if line]


def step_line(state: ExperimentState) -> str:
    """The current canary step, or "" for an experiment without steps or one that is over."""
    steps = state.plan.steps
    if not steps or state.is_over:
        return ""
    words = " → ".join(f"{step:g}" for step in steps)
    until = ""
    if state.phase == "running" and state.step_since is not None:
        until = f", at least until {_clock(state.step_since + state.plan.hold_s)}"
    return f"step {min(state.step + 1, len(steps))} of {len(steps)} ({words} %){until}"


def nothing_yet(plan: Plan) -> str:
    """What stands in the place of an effect that is not known yet."""
    return "too few labels yet" if plan.metric == "quality" else "too few requests yet"


def plan_lines(plan: Plan) -> list[str]:
    """What was asked for."""
    percents = " → ".join(f"{step:g}" for step in plan.steps)
    share = f"{percents if plan.steps else format(plan.split, 'g')} % of the requests"
    held = f", each step at least {plan.hold_s:g} s" if plan.steps else ""
    copies = f"{plan.shadow:g} % of A's requests are copied to B, unseen by clients" if plan.shadow else "no copies"
    promoted = "promoted by itself" if plan.auto_promote else "promoted when you say so"
    back = "taken back by itself" if plan.auto_rollback else "taken back when you say so"
    wrong = f"wrong with a probability of {_share(plan.alpha)} at most, however often you look"
    return [
        f"B gets {share}{held}; {copies}; the header {plan.key} keeps a client with its version",
        f"about: {METRIC_NAMES[plan.metric]}, margin {_share(plan.margin)}; {wrong}",
        f"B is {promoted}, {back}",
    ]


def srm_line(srm: SampleRatio) -> str:
    """Whether the split can be trusted, in words."""
    if srm.is_mismatch:
        return (
            f"sample ratio mismatch (p = {srm.p_value:.1g}): {_counts(srm)}. Nothing below can be believed: find out "
            "why the arms do not get their shares, then start again"
        )
    return f"the split is as planned: {_counts(srm)} (p = {srm.p_value:.2g})"


def srm_row(srm: SampleRatio) -> dict[str, str]:
    """The same as a row."""
    found = {f"version {version}": f"{count} of {srm.expected.get(version, 0):.0f} due"
             for version, count in srm.counts.items()}  # fmt: skip
    return {srm.unit: "⚠ mismatch" if srm.is_mismatch else "✓ as planned", **found, "p": f"{srm.p_value:.2g}"}


def arm_rows(state: ExperimentState) -> list[dict[str, str]]:
    """Both arms: share of the traffic, requests, latencies."""
    plan, reading = state.plan, state.reading
    # Once somebody else moved the traffic, nothing is known of it here.
    is_known = state.phase != "stopped" or state.reason.endswith(BY_HAND)
    rows = []
    for arm, version, share in (("A", plan.a, 100 - state.percent), ("B", plan.b, state.percent)):
        counts = counts_of_arm(state, version)
        values = {f"p{100 * q:g}": _ms(percentile_s(counts, q)) for q in (0.5, 0.95, 0.99)}
        rows.append(
            {
                "arm": arm,
                "version": str(version),
                "traffic now": f"{share:g} %" if is_known else "–",
                "requests": str(reading.samples.get(version, 0)),
                "units": str(reading.units.get(version, 0)),
                **values,
            }
        )
    return rows


def counts_of_arm(state: ExperimentState, version: int) -> np.ndarray:
    """The histogram of a version's latencies, shape `(NUM_BUCKETS,)`, int64; zeros when nothing is known."""
    given = np.asarray((state.latencies or {}).get(version, ()), dtype=np.int64)[:NUM_BUCKETS]
    return np.pad(given, (0, NUM_BUCKETS - len(given)))


def metric_rows(state: ExperimentState) -> list[dict[str, str]]:
    """What is known of B against A, the plan's metric marked."""
    plan, reading = state.plan, state.reading
    known: list[tuple[str, str, Estimate | None, Callable[[float], str], int]] = [
        ("latency", "time of a run at equal batch sizes", reading.latency, _percent, 1),
        ("p95", "p95 of a request's latency", reading.tail, _percent, 1),
        ("errors", "share of failed requests", reading.errors, _points, 1),
        ("quality", "share of right answers", reading.quality, _points, -1),
    ]
    rows = [
        _metric_row(f"{name}{' ◀ decides' if key == plan.metric else ''}", one, words,
                    estimate_says(one, plan.margin if words is _percent else None, worse))
        for key, name, one, words, worse in known if one is not None
    ]  # fmt: skip
    return rows + _agreement_rows(reading)


def estimate_says(one: Estimate, margin: float | None, worse: int) -> str:
    """What an interval says.

    Args:
        one: the effect.
        margin: how much worse still counts as not worse; None where there is no margin.
        worse: 1 if more is worse, -1 if less is.
    """
    low, high = sorted((worse * one.low, worse * one.high))
    if low > 0:
        return "B is worse"
    if high < 0:
        return "B is better"
    if margin is not None and high <= margin:
        return f"B is not worse by more than {_share(margin)}"
    return "no difference known yet"


def guardrail_rows(guardrails: Sequence[Guardrail]) -> list[dict[str, str]]:
    """The limits and how B keeps them."""
    return [
        {
            "guardrail": one.name,
            "now": "✗ broken" if one.is_breached else "✓ kept",
            "last windows": windows_text(one.windows),
            "in words": one.text,
        }
        for one in guardrails
    ]


def windows_text(windows: Sequence[bool | None]) -> str:
    """The last windows as symbols, oldest first: ✓ fine, ✗ bad, · too little traffic."""
    return " ".join(_WINDOW[window] for window in windows) or "–"


def flip_rows(reading: Reading) -> list[dict[str, str]]:
    """The most frequent changes of the decided class."""
    agreement = reading.agreement
    if agreement is None or not agreement.num_rows:
        return []
    return [
        {"A says": str(a), "B says": str(b), "rows": str(count), "of all": _share(count / agreement.num_rows)}
        for (a, b), count in list(agreement.flips.items())[:NUM_FLIPS]
    ]  # fmt: skip


def calibration_rows(state: ExperimentState) -> list[dict[str, str]]:
    """How sure each version is against how often it is right."""
    arms: list[tuple[str, Calibration | None]] = [
        (f"{arm}: version {version}", state.reading.calibration.get(version))
        for arm, version in (("A", state.plan.a), ("B", state.plan.b))
    ]
    return [
        {
            "arm": arm,
            "rows with a label": str(one.num_rows),
            "right": _share(one.accuracy),
            "mean score": f"{one.confidence:.3f}",
            "calibration error": f"{one.error:.3f}",
        }
        for arm, one in arms
        if one is not None
    ]


def effect_text(one: Estimate, metric: str) -> str:
    """An effect of the plan's metric with its interval, such as `+3.1 % [-0.4, +6.9] %`."""
    words = effect_words(metric)
    return f"{words(one.value)} {interval_text(one.low, one.high, words)}"


def interval_text(low: float, high: float, words: Callable[[float], str]) -> str:
    """An interval with its unit once, such as `[-0.4, +6.9] %`."""
    first, second = words(low), words(high)
    number, _, unit = second.partition(" ")
    return f"[{first.removesuffix(f' {unit}')}, {number}] {unit}"


def effect_words(metric: str) -> Callable[[float], str]:
    """How effects of a metric are written: relative ones in percent, differences of shares in points."""
    return _points if metric == "quality" else _percent


def _metric_row(name: str, one: Estimate, words: Callable[[float], str], says: str) -> dict[str, str]:
    return {
        "metric": name,
        "B against A": words(one.value),
        "interval": interval_text(one.low, one.high, words),
        "units": str(one.num_units),
        "which means": says,
    }


def _agreement_rows(reading: Reading) -> list[dict[str, str]]:
    one = reading.agreement
    if one is None or not one.num_rows:
        return []
    differ = one.num_rows - one.num_same
    return [
        {
            "metric": "outputs that agree",
            "B against A": _share(one.share),
            "interval": interval_text(one.low, one.high, _share),
            "units": str(one.num_rows),
            "which means": f"of the same rows {differ} are decided differently"
            if differ
            else "all rows are decided alike",
        },
        {
            "metric": "shift of the outputs",
            "B against A": f"{one.shift:+.3g}",
            "interval": "",
            "units": str(one.num_rows),
            "which means": f"one number differs by {one.largest:.3g} at most",
        },
    ]


def _counts(srm: SampleRatio) -> str:
    parts = [f"version {version} got {count} of {srm.expected.get(version, 0):.0f} {srm.unit} due"
             for version, count in srm.counts.items()]  # fmt: skip
    return ", ".join(parts) or "no requests yet"


def _percent(value: float, *, sign: bool = True) -> str:
    return f"{_number(100 * value, sign=sign)} %"


def _share(value: float) -> str:
    return _percent(value, sign=False)


def _points(value: float) -> str:
    return f"{_number(100 * value, sign=True)} points"


def _number(value: float, *, sign: bool) -> str:
    """No decimal from a hundred on, two below one; no more than a reader needs."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "+∞" if value > 0 else "-∞"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    shown = f"{abs(value):.{digits}f}"
    if "." in shown and not sign:
        shown = shown.rstrip("0").rstrip(".")
    before = "-" if value < 0 and float(shown) else "+" if sign and float(shown) else ""
    return f"{before}{shown}"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.3g} ms"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Columns of equal width, the names above."""
    columns = list(rows[0])
    widths = [max(len(column), *(len(row.get(column, "")) for row in rows)) for column in columns]
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    return ["    " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines]  # fmt: skip
