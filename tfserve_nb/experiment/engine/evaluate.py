"""Compute an experiment's current results from its observations: estimates, guardrails and one of four decisions.

The order of the decisions is that of urgency: a broken limit or certain harm rolls B back, whatever the split is; a
split that is not what it should be blocks every other conclusion; a metric that is certainly not worse by more than the
margin promotes B; everything else waits, with a forecast of how long.

Thread: that of the observations.
"""

from __future__ import annotations

import math

from ..plan import Plan
from ..state import Guardrail, Reading, SampleRatio, Verdict
from ..statistics.tail import FEWEST_BLOCKS, FEWEST_REQUESTS, FIRST_S
from .findings import Finding, biases, find
from .limits import guardrails
from .observations import Observations

HARMS = ("latency", "errors", "quality")
"""Metrics that roll B back besides the primary one. The tail does so only when it is the primary one: it depends on
load, which unequal arms share unequally; `--slo-p99-ms` is its guardrail."""
METRIC_WORDS = {"latency": "run times", "p95": "tails", "quality": "qualities"}
WORDS = {
    "latency": ("slower", "faster", "at equal batch sizes"),
    "p95": ("slower", "faster", "at p95"),
    "quality": ("less often right", "more often right", ""),
    "errors": ("failing more often", "failing less often", ""),
}
FIRST_REQUESTS = 60
"""Requests of each arm before there is an estimate."""
FIRST_TAIL = 300
FIRST_LABELS = 25
MOST_TIMES = 1000.0
"""With more than so many times the data still needed, no number is given."""
MOST_REQUESTS = 100_000
"""With more requests than so many still needed, the versions cannot be told apart here."""
QUIET_S = 1.0
"""After so many seconds without a request, the verdict says that none come."""


def evaluate(observations: Observations, now_s: float) -> Reading:
    """The current results; fast enough to be computed twice a second.

    Args:
        observations: what was seen.
        now_s: seconds since the experiment began.
    """
    plan = observations.plan
    evidence = observations.evidence()
    found = find(evidence, plan)
    primary = found[plan.metric]
    effect = primary.effect
    harms = [found[metric] for metric in (plan.metric, *HARMS) if found[metric].is_harmful]
    harm = harms[0] if harms else None
    harm_words = "B is not worse in any metric" if harm is None else harm_text(harm)
    observations.assigned.settle(now_s)
    limits = guardrails(observations.windows.complete(now_s), plan.limits)
    srm = _sample_ratio(observations)
    labels = tuple(one.num_rows for one in evidence.labelled)
    verdict = decide(
        plan, primary, harm, limits, srm,
        num_units=(labels[0], labels[1]) if plan.metric == "quality" else evidence.requests,
        share_b=observations.share_b,
        is_quiet=now_s >= QUIET_S and not sum(evidence.requests),
    )  # fmt: skip
    calibration = {version: one.calibration() for version, one in zip((plan.a, plan.b), evidence.labelled, strict=True)}
    return Reading(
        verdict=verdict,
        effect=primary.estimate,
        samples={plan.a: evidence.requests[0], plan.b: evidence.requests[1]},
        units={plan.a: effect.num_a if effect else 0, plan.b: effect.num_b if effect else 0},
        srm=srm,
        latency=found["latency"].estimate,
        tail=found["p95"].estimate,
        errors=found["errors"].estimate,
        quality=found["quality"].estimate,
        agreement=evidence.agreement,
        bias=biases(evidence.agreement, plan.alpha),
        calibration={version: one for version, one in calibration.items() if one is not None},
        guardrails=(*limits, Guardrail("harm", harm_words, is_breached=harm is not None)),
    )


def _sample_ratio(observations: Observations) -> SampleRatio:
    plan, assigned = observations.plan, observations.assigned
    counts, expected = assigned.counts(), assigned.expected()
    return SampleRatio(
        counts={plan.a: counts[0], plan.b: counts[1]},
        expected={plan.a: expected[0], plan.b: expected[1]},
        unit="keys" if assigned.has_keys else "requests",
        p_value=assigned.p_value(),
    )


def decide(
    plan: Plan,
    primary: Finding,
    harm: Finding | None,
    limits: tuple[Guardrail, ...],
    srm: SampleRatio,
    *,
    num_units: tuple[int, int],
    share_b: float,
    is_quiet: bool = False,
) -> Verdict:
    """The verdict.

    Args:
        plan: the experiment's options.
        primary: the metric that the verdict is about.
        harm: the first metric by which B is harmful.
        limits: hard limits.
        srm: whether the split is what it should be.
        num_units: requests of A and B so far; labels when the metric is `quality`.
        share_b: what B gets now, 0 to 1.
        is_quiet: whether no request has come for a while.
    """
    broken = next((one for one in limits if one.is_breached), None)
    if broken is not None:
        return Verdict(broken.text, "rollback")
    if harm is not None:
        return Verdict(harm_text(harm), "rollback")
    if srm.is_mismatch:
        return Verdict(_mismatch_text(plan, srm), "blocked")
    if primary.is_fine and share_b:
        return Verdict(_fine_text(primary, plan.margin), "promote")
    if is_quiet:
        why = "not yet: no requests come in; send requests or use --values"
    else:
        why = _wait_text(primary, num_units, share_b) if share_b else _copies_text(plan)
    return Verdict(why, "wait")


def harm_text(finding: Finding) -> str:
    """How B is worse."""
    worse = WORDS[finding.metric][0]
    return f"B is {worse} by {_size(finding)}{_where(finding)}"


def _fine_text(finding: Finding, margin: float) -> str:
    worse, better, where = WORDS[finding.metric]
    _, _, high = finding.harm
    if high < 0:
        return f"B is {better} by {_size(finding)}{_where(finding)}: promote"
    bound = f"{100 * margin:g} %"
    if finding.metric == "quality":
        return f"B is not {worse} than A by more than {bound}: promote"
    return f"B is not worse than A by more than {bound} {where}: promote"


def _copies_text(plan: Plan) -> str:
    """Why there is no verdict for a B that answers no client."""
    return (
        f"{METRIC_WORDS[plan.metric]} cannot be compared while B gets copies only: they run in idle moments, requests "
        "in busy ones; give B requests (split=50), predictions are compared all the same"
    )


def _wait_text(finding: Finding, num_units: tuple[int, int], share_b: float) -> str:
    what = "labelled requests" if finding.metric == "quality" else "requests"
    more = more_needed(finding, num_units, share_b)
    if more is not None and more > MOST_REQUESTS:
        more = None
    if _room(finding) <= 0:
        text = (
            f"not yet: at a split of {100 - 100 * share_b:g} to {100 * share_b:g} the version with less traffic is "
            "slower for that reason; compare at 60 to 40 or nearer"
        )
    elif finding.effect is None and finding.metric == "p95" and min(num_units) >= FEWEST_REQUESTS:
        text = f"not yet: tails are compared over {FEWEST_BLOCKS * FIRST_S:g} seconds of traffic at least"
    elif more is None:
        return f"cannot be decided here; {_bound_text(finding)}"
    else:
        text = f"not yet: about {rounded(more):,} more {what}".replace(",", " ")
    if finding.estimate is None or not math.isfinite(finding.estimate.low + finding.estimate.high):
        return text
    low, high = finding.estimate.interval
    width = high - low
    so_far = f"{end_text(low, width, signed=True)} to {end_text(high, width, signed=True)}"
    return f"{text} (B compared with A{_where(finding)} so far: {so_far})"


def _bound_text(finding: Finding) -> str:
    """The largest difference that is still possible."""
    low, high = (-math.inf, math.inf) if finding.estimate is None else finding.estimate.interval
    largest = max(abs(low), abs(high))
    if not math.isfinite(largest):
        return "nothing is known of the difference yet"
    bound = percent(largest, high - low)
    bound = bound.replace("%", "points") if finding.metric == "quality" else bound
    return f"no difference beyond {bound} seen{_where(finding)}"


def _mismatch_text(plan: Plan, srm: SampleRatio) -> str:
    got, expected = srm.counts[plan.b], srm.expected[plan.b]
    total = sum(srm.counts.values())
    return (
        f"blocked: B got {got} of {total} {srm.unit}, {expected:.0f} were expected (p {_p(srm.p_value)}); something "
        "loses or misdirects requests, so no other number can be believed"
    )


def _p(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def more_needed(finding: Finding, num_units: tuple[int, int], share_b: float) -> float | None:
    """How many more requests of both arms until the interval is decisive, if the value stays what it is.

    Returns:
        The number, or None when it would be more than `MOST_TIMES` of those so far.
    """
    if finding.effect is None or not math.isfinite(finding.effect.low):
        fewest = {"p95": FIRST_TAIL, "quality": FIRST_LABELS}.get(finding.metric, FIRST_REQUESTS)
        rates = (1 - share_b, share_b)
        lacking = [(fewest - num) / rate for num, rate in zip(num_units, rates, strict=True) if rate > 0]
        return max(fewest / 2, *lacking)
    room = _room(finding)
    low, high = 1.0, MOST_TIMES
    if finding.effect.half_width(high, finding.alpha) > room:
        return None
    for _ in range(30):
        middle = math.sqrt(low * high)
        if finding.effect.half_width(middle, finding.alpha) > room:
            low = middle
        else:
            high = middle
    return sum(num_units) * (high - 1)


def _room(finding: Finding) -> float:
    """How far the value is from where the interval must not reach to; not positive where no interval is decisive."""
    value, low, _ = finding.harm
    if not math.isfinite(low):
        return math.inf
    if value > finding.margin + finding.cold_b:
        return value - finding.cold_b
    return finding.margin - finding.cold_a - value


def rounded(number: float) -> int:
    """One significant digit, two from the hundreds on: as precise as a forecast can be; at least 10."""
    number = max(10.0, number)
    step = 10 ** max(1, math.floor(math.log10(number)) - 1)
    return int(math.ceil(number / step) * step)


def percent(value: float, width: float, *, signed: bool = False) -> str:
    """A share as a percentage with the digits that an interval of that width leaves.

    Example:
        >>> percent(0.1234, 0.08), percent(0.0123, 0.004), percent(-0.02, 0.1, signed=True)
        ('12 %', '1.2 %', '-2 %')
    """
    digits = 0 if width >= 0.05 else 1 if width >= 0.002 else 2
    text = f"{100 * value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return f"{'+' if signed and float(text) > 0 else ''}{text} %"


def end_text(value: float, width: float, *, signed: bool = False) -> str:
    """An end of an interval as `percent`, but one beside zero never looks like zero.

    Example:
        >>> end_text(0.0004, 0.08, signed=True), end_text(0.0, 0.08), end_text(0.081, 0.08)
        ('+0.04 %', '0 %', '8 %')
    """
    text = percent(value, width, signed=signed)
    if value and not float(text.removesuffix(" %")):
        text = f"{100 * value:{'+' if signed else ''}.1g} %"
    return text


def _size(finding: Finding) -> str:
    """How large the effect is, without its sign: `12 % (8 % to 16 %)`."""
    if finding.estimate is None:
        return "an unknown amount"
    value, low, high = finding.estimate[:3]
    unit = "%" if finding.metric in ("latency", "p95") else "points"
    ends = sorted((abs(low), abs(high)))
    texts = (percent(abs(value), high - low), *(end_text(end, high - low) for end in ends))
    words = [text.removesuffix(" %") for text in texts]
    return f"{words[0]} {unit} ({words[1]} {unit} to {words[2]} {unit})"


def _where(finding: Finding) -> str:
    where = WORDS[finding.metric][2]
    return f" {where}" if where else ""
