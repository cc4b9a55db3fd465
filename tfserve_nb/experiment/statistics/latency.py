"""How much longer B's runs take than A's at equal batch sizes.

Model: within one cell (size and stretch of time, see `strata`) the logarithm of a run's time is

    cell + d * (1 if B) + g1 * last + g2 * level + error

Cells are nuisance parameters and drop out by centring. Sizes are weighted with one over their error variance, which is
estimated from both arms together; arms without a batch of some size in a cell contribute nothing about d. The relative
effect is `exp(d) - 1`, that of the geometric mean of (pulled-in) run times. The interval is the confidence sequence of
`sequential` for linear models; information is `h = n_a n_b / (n_a + n_b)` summed over cells, less what `last` and
`level` explain of the arms.

Weighting by variances of both arms together and by counts keeps the estimate symmetric in the arms, so under "no
difference" it has mean 0 whatever the weights. When B's times scatter more than A's and the arms differ in size, the
pooled variance would be too small; it is then scaled up to `(s_a^2 G_a + s_b^2 G_b) / (s^2 H)` with `G = sum h^2 / n`
(Welch's idea), the arms' variances drawn towards the common one with `PRIOR_DF` degrees of freedom.

Assumptions: given cell, `last` and `level`, which arm a batch belongs to says nothing about the machine's speed;
effects of different sizes have the same sign. The former holds nearly: with nine to one requests on a busy device
whose speed varies by a third from moment to moment, a bias of one to two percent is left of the more than twenty that
comparing equal sizes alone would show.

Sources: as in `sequential`; covariates as in A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the Sensitivity of Online
Controlled Experiments by Utilizing Pre-Experiment Data", WSDM 2013.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from . import sequential
from .sequential import Effect
from .strata import RIDGE, Sums, slopes

PRIOR_DF = 20.0
FEWEST = 8
"""Batches that each arm must have at sizes and times that both have."""


def effect(strata: Iterable[Sums], alpha: float) -> Effect | None:
    """The difference of mean log run times, B minus A.

    Args:
        strata: what there is of each size.
        alpha: probability that the interval ever misses the truth.

    Returns:
        The effect, or None while too little is known.
    """
    used = [sums for sums in strata if sums.num_cells]
    num_a, num_b = (int(sum(sums.counts[arm] for sums in used)) for arm in (0, 1))
    if min(num_a, num_b) < FEWEST:
        return None
    known = slopes(np.sum([sums.within.sum(axis=0) for sums in used], axis=0))
    rests = [np.array([_rest(arm, known) for arm in sums.within]) for sums in used]
    dfs = [float(sums.df.sum()) for sums in used]
    df = sum(dfs) + sum(sums.num_cells for sums in used) - 3
    if df < FEWEST or sum(dfs) < FEWEST:
        return None
    common = max(float(sum(rest.sum() for rest in rests)) / sum(dfs), 1e-12)
    variances = [float(rest.sum() + PRIOR_DF * common) / (own + PRIOR_DF) for rest, own in zip(rests, dfs, strict=True)]
    weights = [common / one for one in variances]
    total = np.sum([weight * _products(sums) for weight, sums in zip(weights, used, strict=True)], axis=0)
    inverse = np.linalg.inv(total[:3, :3] + RIDGE * np.eye(3))
    solution = inverse @ total[:3, 3]
    rest_sum = float(total[3, 3] - solution @ total[:3, 3])
    information = 1 / float(inverse[0, 0])
    variance = max(rest_sum, 1e-12 * df) / df / information * _uneven(used, rests, variances, weights)
    return sequential.effect(
        float(solution[0]), variance, information, df, alpha=alpha, num_a=num_a, num_b=num_b
    )  # fmt: skip


def _rest(within: np.ndarray, known: np.ndarray) -> float:
    """The sum of squares that `last` and `level` leave."""
    return float(max(within[2, 2] - 2 * known @ within[:2, 2] + known @ within[:2, :2] @ known, 0.0))


def _products(sums: Sums) -> np.ndarray:
    """Sums of squares and products of `(is B, last, level, time)` around cell means, shape `(4, 4)`."""
    products = sums.between.copy()
    products[1:, 1:] += sums.within.sum(axis=0)
    return products


def _uneven(used: list[Sums], rests: list[np.ndarray], variances: list[float], weights: list[float]) -> float:
    """How much larger the variance is than the pooled one says, because arms differ in scatter and in size."""
    separate = pooled = 0.0
    for sums, rest, variance, weight in zip(used, rests, variances, weights, strict=True):
        own = (rest + PRIOR_DF * variance) / (sums.df + PRIOR_DF)
        separate += weight**2 * float(own @ sums.shares)
        pooled += weight**2 * variance * float(sums.shares.sum())
    return max(1.0, separate / pooled) if pooled else 1.0
