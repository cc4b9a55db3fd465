"""The report of an experiment, and the tables and lines that dashboards and figures show too.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...reports.agreement import agreement_table, kind_notes
from ...reports.report import Cell, Report, Table, names, numbers, prose
from ...serving.telemetry.histogram import NUM_BUCKETS, percentile_s
from ..plan import Plan
from ..state import BY_HAND, Estimate, ExperimentState, Moment, Reading, SampleRatio

METRIC_NAMES = {"latency": "time of a run", "p95": "p95 of a request", "quality": "share of right predictions"}
SYMBOLS = {"wait": "…", "promote": "✓", "rollback": "✗", "blocked": "⚠"}
"""Decision -> what stands before the verdict, so that colour is not the only sign."""
_WINDOWS = {True: ("✗", "bad"), False: ("✓", "fine"), None: ("·", "too little traffic")}
"""Whether a window was bad -> symbol, and word for those who cannot see it."""
NUM_FLIPS = 8


def report_of(state: ExperimentState) -> Report:
    """The verdict, then what it rests on, then the plan."""
    srm = state.reading.srm
    return Report(
        title_of(state),
        lead=tuple(where_it_stands(state)),
        warnings=(srm_line(srm),) if srm.is_mismatch else (),
        sections=(
            arm_table(state),
            srm_table(srm),
            metric_table(state),
            guardrail_table(state),
            output_table(state.reading),
            flip_table(state.reading),
            calibration_table(state),
        ),
        notes=(*kind_notes(state.reading.agreement), *plan_lines(state.plan)),
    )


def title_of(state: ExperimentState) -> str:
    """The model, its versions and the verdict."""
    plan, verdict = state.plan, state.verdict
    symbol = SYMBOLS[verdict.decision]
    return f"{symbol} {plan.name}, version {plan.b} (B) compared with version {plan.a} (A): {verdict}"


def phase_line(state: ExperimentState, *, is_below_verdict: bool = False) -> str:
    """The phase, such as `rolled back at 14:03:09: B is slower by 31 %`.

    Args:
        state: of the experiment.
        is_below_verdict: whether the verdict is read just before, so that its reason is not repeated.
    """
    reason = state.reason.removesuffix("; waits for a person")
    is_said = is_below_verdict and reason.removesuffix(": promote") in state.verdict
    why = f": {reason}" if reason and not is_said else ""
    if state.phase == "running":
        return f"running since {_clock(state.started_at)}{why}"
    if state.phase == "held" and reason != state.reason:
        return f"passed, and waits for you: %abtest {state.plan.name} --promote, or --stop"
    if state.phase == "held":
        return f"waits for you{why}"
    when = "" if state.ended_at is None else f" at {_clock(state.ended_at)}"
    return f"{state.phase}{when}{why}"


def where_it_stands(state: ExperimentState) -> list[str]:
    """The lines below the verdict in a report: the phase, and the step of a canary."""
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
    """The text in the place of an effect that is not known yet."""
    return "too few labels yet" if plan.metric == "quality" else "too few requests yet"


def plan_lines(plan: Plan) -> list[str]:
    """The plan, in words."""
    percents = " → ".join(f"{step:g}" for step in plan.steps)
    share = f"{percents if plan.steps else format(plan.split, 'g')} % of the requests"
    held = f", each step at least {plan.hold_s:g} s" if plan.steps else ""
    copies = f"{plan.shadow:g} % of A's requests are copied to B" if plan.shadow else "no requests are copied to B"
    promoted = "automatically" if plan.auto_promote else "by hand"
    back = "automatically" if plan.auto_rollback else "by hand"
    risk = f"at most {_share(plan.alpha)} wrong verdicts, however often you look"
    return [
        f"B gets {share}{held}; {copies}; requests with the same {plan.key} header go to the same version",
        f"primary metric: {METRIC_NAMES[plan.metric]}, margin {_share(plan.margin)}; {risk}",
        f"B is promoted {promoted} and rolled back {back}",
    ]


def srm_line(srm: SampleRatio) -> str:
    """Whether the split can be trusted, in words."""
    if srm.is_mismatch:
        return (
            f"sample ratio mismatch (p = {srm.p_value:.1g}): {_counts(srm)}. Nothing below can be believed: find out "
            "why the arms do not get their shares, then start again"
        )
    return f"the split is as planned: {_counts(srm)} (p = {srm.p_value:.2g})"


def srm_table(srm: SampleRatio) -> Table:
    """The same as a table."""
    counts = [f"{count}, expected {srm.expected.get(version, 0):.0f}" for version, count in srm.counts.items()]
    columns = (*names("counted", "split"), *numbers(*(f"version {version}" for version in srm.counts), "p-value"))
    row = (srm.unit, "⚠ mismatch" if srm.is_mismatch else "✓ as planned", *counts, f"{srm.p_value:.2g}")
    return Table("Sample ratio", columns, (row,))


def arm_table(state: ExperimentState) -> Table:
    """Both arms: share of the traffic, requests, latencies."""
    plan, reading = state.plan, state.reading
    quantiles = (0.5, 0.95, 0.99)
    # Once something else moved the traffic, nothing is known of it here.
    is_known = state.phase != "stopped" or state.reason.endswith(BY_HAND)
    rows = []
    for arm, version, share in (("A", plan.a, 100 - state.percent), ("B", plan.b, state.percent)):
        counts = counts_of_arm(state, version)
        rows.append(
            (
                arm,
                str(version),
                f"{share:g} %" if is_known else "–",
                str(reading.samples.get(version, 0)),
                str(reading.units.get(version, 0)),
                *(_ms(percentile_s(counts, quantile)) for quantile in quantiles),
            )
        )
    latencies = (f"p{100 * quantile:g}" for quantile in quantiles)
    columns = (*names("arm", "version"), *numbers("traffic now", "requests", "units", *latencies))
    return Table("Versions", columns, tuple(rows))


def counts_of_arm(state: ExperimentState, version: int) -> np.ndarray:
    """The histogram of a version's latencies, shape `(NUM_BUCKETS,)`, int64; zeros when nothing is known."""
    given = np.asarray((state.latencies or {}).get(version, ()), dtype=np.int64)[:NUM_BUCKETS]
    return np.pad(given, (0, NUM_BUCKETS - len(given)))


def metric_table(state: ExperimentState) -> Table:
    """The estimates of B compared with A, the plan's metric marked."""
    plan, reading = state.plan, state.reading
    known: list[tuple[str, str, Estimate | None, Callable[[float], str], int]] = [
        ("latency", "time of a run at equal batch sizes", reading.latency, _percent, 1),
        ("p95", "p95 of a request's latency", reading.tail, _percent, 1),
        ("errors", "share of failed requests", reading.errors, _points, 1),
        ("quality", "share of right predictions", reading.quality, _points, -1),
    ]
    rows = [
        (
            f"{name}{' ◀ decides' if key == plan.metric else ''}",
            words(estimate.value),
            interval_text(estimate.low, estimate.high, words),
            str(estimate.num_units),
            estimate_meaning(estimate, plan.margin if words is _percent else None, worse),
        )
        for key, name, estimate, words, worse in known
        if estimate is not None
    ]
    columns = (*prose("metric"), *numbers("effect of B", "confidence interval", "units"), *prose("which means"))
    return Table("Metrics, B compared with A", columns, tuple(rows))


def estimate_meaning(effect: Estimate, margin: float | None, worse: int) -> str:
    """The meaning of an interval, in words.

    Args:
        effect: with its interval.
        margin: how much worse still counts as not worse; None where there is no margin.
        worse: 1 if more is worse, -1 if less is.
    """
    low, high = sorted((worse * effect.low, worse * effect.high))
    if low > 0:
        return "B is worse"
    if high < 0:
        return "B is better"
    if margin is not None and high <= margin:
        return f"B is not worse by more than {_share(margin)}"
    return "no difference known yet"


def guardrail_table(state: ExperimentState) -> Table:
    """The limits and how B keeps them, a broken one stressed."""
    guardrails = state.reading.guardrails
    rows = [
        (
            guardrail.name,
            "✗ broken" if guardrail.is_breached else "✓ kept",
            windows_cell(guardrail.windows),
            guardrail.text,
        )
        for guardrail in guardrails
    ]
    broken = next((place for place, guardrail in enumerate(guardrails) if guardrail.is_breached), None)
    columns = (*names("guardrail", "now", "last windows"), *prose("in words"))
    return Table("Guardrails", columns, tuple(rows), stressed=broken)


def windows_cell(windows: Sequence[bool | None]) -> Cell:
    """The last windows as symbols, oldest first: ✓ fine, ✗ bad, · too little traffic."""
    if not windows:
        return Cell("–", "none yet")
    found = [_WINDOWS[window] for window in windows]
    return Cell(" ".join(symbol for symbol, _ in found), f"oldest first: {', '.join(word for _, word in found)}")


def output_table(reading: Reading) -> Table:
    """How the outputs of both versions compare on the same rows, with an interval that holds at all times at once."""
    biases = {name: bias.interval for name, bias in reading.bias.items()}
    return agreement_table("Outputs, on the same rows", reading.agreement, biases)


def flip_table(reading: Reading) -> Table:
    """The most frequent changes of the predicted class, output by output."""
    rows = [
        (name, str(a), str(b), str(count), _share(count / found.num_rows))
        for name, found in reading.agreement.items()
        for (a, b), count in list(found.flips.items())[:NUM_FLIPS]
    ]
    columns = (*names("output", "A predicts", "B predicts"), *numbers("rows", "of all rows"))
    return Table("Predictions that changed, on the same rows", columns, tuple(rows))


def calibration_table(state: ExperimentState) -> Table:
    """How sure each version is, compared with how often it is right."""
    rows = []
    for arm, version in (("A", state.plan.a), ("B", state.plan.b)):
        found = state.reading.calibration.get(version)
        if found is not None:
            scores = (f"{found.confidence:.3f}", f"{found.error:.3f}")
            rows.append((f"{arm}: version {version}", str(found.num_rows), _share(found.accuracy), *scores))
    columns = (*names("arm"), *numbers("labelled rows", "accuracy", "mean confidence", "calibration error"))
    return Table("Accuracy and calibration", columns, tuple(rows))


def effect_text(effect: Estimate, metric: str) -> str:
    """An effect of the plan's metric with its interval, such as `+3.1 % [-0.4, +6.9] %`."""
    words = effect_words(metric)
    return f"{words(effect.value)} {interval_text(effect.low, effect.high, words)}"


def interval_text(low: float, high: float, words: Callable[[float], str]) -> str:
    """An interval with its unit once, such as `[-0.4, +6.9] %`."""
    first, second = words(low), words(high)
    number, _, unit = second.partition(" ")
    return f"[{first.removesuffix(f' {unit}')}, {number}] {unit}"


def effect_words(metric: str) -> Callable[[float], str]:
    """How effects of a metric are written: relative ones in percent, differences of shares in points."""
    return _points if metric == "quality" else _percent


def _counts(srm: SampleRatio) -> str:
    parts = [f"version {version} got {count} {srm.unit} ({srm.expected.get(version, 0):.0f} expected)"
             for version, count in srm.counts.items()]  # fmt: skip
    return "; ".join(parts) or "no requests yet"


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
    if value and not float(shown):  # the end of an interval that excludes zero must not look like zero
        shown = f"{abs(value):.1g}"
    if "." in shown and not sign:
        shown = shown.rstrip("0").rstrip(".")
    before = "-" if value < 0 and float(shown) else "+" if sign and float(shown) else ""
    return f"{before}{shown}"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.3g} ms"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


@dataclass(frozen=True, slots=True)
class Trace:
    """The moments whose effect is known, oldest first, and the range of effects that is worth drawing.

    Attributes:
        moments: at least one.
        x: requests of both arms, or seconds where copies alone are compared and no request is counted; float64, `(n,)`.
        is_by_requests: which of both `x` is.
        value: the effects; float64, `(n,)`.
        low: lower ends of their intervals, `(n,)`; may be infinite.
        high: upper ends, `(n,)`.
        bottom: lowest effect to draw; intervals of the first moments may reach further.
        top: highest effect to draw.
    """

    moments: tuple[Moment, ...]
    x: np.ndarray
    is_by_requests: bool
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bottom: float
    top: float


def trace_of(moments: Sequence[Moment], margin: float | None) -> Trace | None:
    """The effect over time, ready to draw; None while no effect is known.

    Args:
        moments: the effect over time, oldest first.
        margin: the effect from which on B counts as worse, drawn too; None for none.
    """
    known = tuple(moment for moment in moments if math.isfinite(moment.value))
    if not known:
        return None
    is_by_requests = known[-1].num_requests > known[0].num_requests
    x = np.array([moment.num_requests if is_by_requests else moment.at_s for moment in known], dtype=np.float64)
    value, low, high = (np.array([getattr(moment, name) for moment in known]) for name in ("value", "low", "high"))
    bottom, top = _range(known[len(known) // 2 :], margin)
    return Trace(known, x, is_by_requests, value, low, high, bottom, top)


def margin_of(plan: Plan) -> float:
    """The effect from which on B counts as worse: a longer time, or a smaller share of right predictions."""
    return -plan.margin if plan.metric == "quality" else plan.margin


def _range(late: Sequence[Moment], margin: float | None) -> tuple[float, float]:
    """Fits what was known in the later half; the wide intervals of the first moments are cut off."""
    needed = [0.0, *(moment.value for moment in late), *([] if margin is None else [margin])]
    # An interval that is far wider than everything else would flatten the rest.
    widest = 10 * max(map(abs, needed)) + 0.1
    ends = [end for moment in late for end in (moment.low, moment.high) if math.isfinite(end)]
    needed += [min(max(end, -widest), widest) for end in ends]
    room = 0.08 * (max(needed) - min(needed)) or 0.01
    return min(needed) - room, max(needed) + room
