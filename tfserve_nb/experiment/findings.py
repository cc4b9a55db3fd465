"""What was found about each metric, all on one scale: larger is worse.

Whether B is harmful or fine follows from where the interval lies. The probability of a wrong roll-back is shared out:
all intervals are two-sided, and only their harmful end takes B back. The primary metric's interval has the plan's
alpha, so its harmful end costs half of it; the other half is divided among the guardrails (Bonferroni), each of which
has an interval with `alpha / number of guardrails`. So the probability that identical versions are ever told apart to
B's disadvantage is at most alpha, over the whole experiment and all metrics.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import latency, quality, rates, tail
from .agreement import Agreeing
from .blocks import Blocks
from .plan import Plan
from .quality import Labelled
from .reading import Estimate
from .sequential import Effect
from .strata import Sums

NUM_GUARDRAILS = 3
"""Errors, and two of run times, tail and quality."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to judge.

    Attributes:
        strata: times of runs by size.
        blocks: latencies by time.
        failed: failures of A and B.
        requests: requests of A and B.
        labelled: labels of A and B.
        agreeing: outputs on the same rows.
    """

    strata: dict[int, Sums]
    blocks: Blocks
    failed: tuple[int, int]
    requests: tuple[int, int]
    labelled: tuple[Labelled, Labelled]
    agreeing: Agreeing


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one metric.

    Attributes:
        metric: `latency`, `p95`, `errors` or `quality`.
        estimate: for people; None while too little is known.
        effect: the same on the scale of the computation, or None.
        sign: 1 when a larger value is worse, -1 when it is better.
        margin: how much worse on that scale still counts as not worse.
        alpha: of the interval.
    """

    metric: str
    estimate: Estimate | None
    effect: Effect | None
    sign: int
    margin: float
    alpha: float

    @property
    def harm(self) -> tuple[float, float, float]:
        """Value, low and high of the harm on the scale of the computation; everything is possible without an effect."""
        known = self.effect or self.estimate
        if known is None:
            return 0.0, -math.inf, math.inf
        ends = (self.sign * known.low, self.sign * known.high)
        return self.sign * known.value, min(ends), max(ends)

    @property
    def is_harmful(self) -> bool:
        """Whether B is worse for certain, and by more than the margin as far as one can tell."""
        value, low, _ = self.harm
        return low > 0 and value > self.margin

    @property
    def is_fine(self) -> bool:
        """Whether B is for certain not worse by more than the margin."""
        return self.harm[2] < self.margin


def find(evidence: Evidence, plan: Plan) -> dict[str, Finding]:
    """Everything that can be found, by metric."""
    alphas = dict.fromkeys(("latency", "p95", "errors", "quality"), plan.alpha / NUM_GUARDRAILS)
    alphas[plan.metric] = plan.alpha
    relative = math.log1p(plan.margin)
    runs = latency.effect(evidence.strata.values(), alphas["latency"])
    slowest = tail.effect(evidence.blocks.counts(), alphas["p95"])
    right = quality.effect(*evidence.labelled, alphas["quality"])
    fails = rates.difference(
        evidence.failed[0], evidence.requests[0], evidence.failed[1], evidence.requests[1], alphas["errors"]
    )
    share = max(evidence.labelled[0].share, 0.01)
    return {
        "latency": Finding("latency", _relative(runs), runs, 1, relative, alphas["latency"]),
        "p95": Finding("p95", _relative(slowest), slowest, 1, relative, alphas["p95"]),
        "errors": Finding("errors", fails, None, 1, 0.0, alphas["errors"]),
        "quality": Finding("quality", _absolute(right), right, -1, plan.margin * share, alphas["quality"]),
    }


def _relative(effect: Effect | None) -> Estimate | None:
    """A difference of logarithms as a relative difference."""
    if effect is None:
        return None
    value, low, high = (_expm1(one) for one in (effect.value, effect.low, effect.high))
    return Estimate(value, low, high, effect.p_value, effect.num_a + effect.num_b)


def _absolute(effect: Effect | None) -> Estimate | None:
    if effect is None:
        return None
    return Estimate(effect.value, effect.low, effect.high, effect.p_value, effect.num_a + effect.num_b)


def _expm1(value: float) -> float:
    return math.expm1(value) if value < 700 else math.inf
