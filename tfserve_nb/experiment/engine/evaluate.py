"""From observations to a reading.

Thread: that of the observations.
"""

from __future__ import annotations

from ..plan import Plan
from ..reading import Guardrail, Reading, SampleRatio
from .findings import Finding, biases, find
from .limits import guardrails
from .observations import Observations
from .verdict import decide, harm_text

HARMS = ("latency", "errors", "quality")
"""Metrics that take B back besides the primary one. The tail does so only when it is the primary one: it depends on
load, which unequal arms share unequally; `--slo-p99-ms` is its guardrail."""


def evaluate(observations: Observations, now_s: float) -> Reading:
    """What can be said now; fast enough to be asked twice a second.

    Args:
        observations: what was seen.
        now_s: seconds since the experiment began.
    """
    plan = observations.plan
    evidence = observations.evidence()
    found = find(evidence, plan)
    primary = found[plan.metric]
    harms = [found[metric] for metric in (plan.metric, *HARMS) if found[metric].is_harmful]
    harm = harms[0] if harms else None
    observations.assigned.settle(now_s)
    limits = guardrails(observations.windows.complete(now_s), plan.limits)
    srm = _sample_ratio(observations)
    labels = tuple(one.num_rows for one in evidence.labelled)
    verdict = decide(
        plan, primary, harm, limits, srm,
        num_units=(labels[0], labels[1]) if plan.metric == "quality" else evidence.requests,
        share_b=observations.share_b or plan.shadow / 100,
    )  # fmt: skip
    calibration = {version: one.calibration() for version, one in zip((plan.a, plan.b), evidence.labelled, strict=True)}
    return Reading(
        verdict=verdict,
        effect=primary.estimate,
        samples={plan.a: evidence.requests[0], plan.b: evidence.requests[1]},
        units=_units(primary, plan),
        srm=srm,
        latency=found["latency"].estimate,
        tail=found["p95"].estimate,
        errors=found["errors"].estimate,
        quality=found["quality"].estimate,
        agreement=evidence.agreement,
        bias=biases(evidence.agreement, plan.alpha),
        calibration={version: one for version, one in calibration.items() if one is not None},
        guardrails=(*limits, _harm_guardrail(harm)),
    )


def _units(primary: Finding, plan: Plan) -> dict[int, int]:
    effect = primary.effect
    return {plan.a: effect.num_a if effect else 0, plan.b: effect.num_b if effect else 0}


def _harm_guardrail(harm: Finding | None) -> Guardrail:
    text = "no metric says that B is worse" if harm is None else harm_text(harm)
    return Guardrail("harm", text, is_breached=harm is not None)


def _sample_ratio(observations: Observations) -> SampleRatio:
    plan, assigned = observations.plan, observations.assigned
    counts, expected = assigned.counts(), assigned.expected()
    return SampleRatio(
        counts={plan.a: counts[0], plan.b: counts[1]},
        expected={plan.a: expected[0], plan.b: expected[1]},
        unit="keys" if assigned.has_keys else "requests",
        p_value=assigned.p_value(),
    )
