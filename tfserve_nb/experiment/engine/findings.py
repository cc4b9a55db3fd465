"""The estimate of each metric, all on one scale: larger is worse.

Whether B is harmful or fine follows from where the interval lies. The probability of a wrong roll-back is shared out:
all intervals are two-sided, and only their harmful end rolls B back. The primary metric's interval has the plan's
alpha, so its harmful end costs half of it; the other half is divided among the guardrails (Bonferroni), each of which
has an interval with `alpha / number of guardrails`. So the probability that identical versions ever lead to a rollback
is at most alpha, over the whole experiment and all metrics.

Times are comparable only when both versions have enough to do. A version that gets less than `LEAST_SHARE` of the
requests runs colder than the other, at any batch size, and would be slower than its own copy. So at such a split a
harm of run times must exceed `COLD` before it counts, and when it is A that has little to do, B is not called fine
unless it is better by that. What was seen at an uneven split is left out once the split is even.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...agreement.result import Agreement
from ..plan import Plan
from ..state import Estimate
from ..statistics import latency, quality, rates, sequential, tail
from ..statistics.latency import Sums
from ..statistics.quality import Labelled
from ..statistics.sequential import Effect
from ..statistics.tail import Blocks

NUM_GUARDRAILS = 3
"""Errors, and two of run times, tail and quality."""
LEAST_SHARE = 0.4
COLD = math.log(1.5)
"""By how much a version may be slower because it gets less than `LEAST_SHARE`: caches and threads serve the other
version. With a tenth of the traffic, a copy of the same small network took 10 to 26 % longer at equal batch sizes."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The observations that are judged.

    Attributes:
        strata: times of runs by size.
        blocks: latencies by time.
        failed: failures of A and B.
        requests: requests of A and B.
        labelled: labels of A and B.
        agreement: how outputs compare on the same rows.
        share_b: what B gets now, 0 to 1.
    """

    strata: dict[int, Sums]
    blocks: Blocks
    failed: tuple[int, int]
    requests: tuple[int, int]
    labelled: tuple[Labelled, Labelled]
    agreement: Agreement
    share_b: float


@dataclass(frozen=True, slots=True)
class Finding:
    """The estimate of one metric, and how it is judged.

    Attributes:
        metric: `latency`, `p95`, `errors` or `quality`.
        estimate: for people; None while too little is known.
        effect: the same on the scale of the computation, or None.
        sign: 1 when a larger value is worse, -1 when it is better.
        margin: how much worse on that scale still counts as not worse.
        cold_b: how much of a harm may come from B having too little to do, on that scale.
        cold_a: the same of A.
        alpha: of the interval.
    """

    metric: str
    estimate: Estimate | None
    effect: Effect | None
    sign: int
    margin: float
    alpha: float
    cold_b: float = 0.0
    cold_a: float = 0.0

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
        """Whether B is worse for certain, and by more than the margin by the estimate."""
        value, low, _ = self.harm
        return low > self.cold_b and value > self.margin + self.cold_b

    @property
    def is_fine(self) -> bool:
        """Whether B is for certain not worse by more than the margin."""
        return self.harm[2] < self.margin - self.cold_a


def is_even(share_b: float) -> bool:
    """Whether both arms have enough to do for their times to be compared."""
    return LEAST_SHARE <= share_b <= 1 - LEAST_SHARE


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
    cold_b = COLD if evidence.share_b < LEAST_SHARE else 0.0
    cold_a = COLD if evidence.share_b > 1 - LEAST_SHARE else 0.0
    share = max(evidence.labelled[0].share, 0.01)
    return {
        "latency": Finding("latency", _relative(runs), runs, 1, relative, alphas["latency"], cold_b, cold_a),
        "p95": Finding("p95", _relative(slowest), slowest, 1, relative, alphas["p95"], cold_b, cold_a),
        "errors": Finding("errors", fails, None, 1, 0.0, alphas["errors"]),
        "quality": Finding("quality", _absolute(right), right, -1, plan.margin * share, alphas["quality"]),
    }


def biases(agreement: Agreement, alpha: float) -> dict[str, Estimate]:
    """Output name -> mean of B's number minus A's on the same rows, with an interval that holds at all times at once.

    Rows are taken for independent, and the pairs of numbers in each row are what varies; only outputs that are compared
    as numbers have a bias that means something.
    """
    found = {}
    for name, output in agreement.items():
        num = output.num_biased
        if not output.is_numbers or num < 2 or not math.isfinite(output.bias + output.bias_variance):
            continue
        effect = sequential.effect(
            output.bias, output.bias_variance / num, num / 2, num - 1, alpha=alpha, num_a=num, num_b=num
        )
        found[name] = Estimate(effect.value, effect.low, effect.high, effect.p_value, num)
    return found


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
