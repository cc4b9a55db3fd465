"""How much longer the slowest requests take with B than with A: the ratio of the 95th percentiles of latency.

For a hypothetical ratio r, B's latencies are divided by r and a threshold u is found that 95 % of both arms' requests
together stay below. If r is right, both arms have the same share below it. The difference D of the shares has the
variance of a difference of two ratios over blocks of time (see `blocks`): with x blocks' requests below u and n all of
them, for each block

    e = (x_a - F_a n_a) / N_a - (x_b - F_b n_b) / N_b,      V = (sum(e^2) + 2 sum(e e')) * k / (k - 1),

e' being that of the next block, its sum left out when negative; and never less than independent requests would have. D
/ sqrt(V) is judged by the mixture of `sequential` with k - 2 degrees of freedom; the interval holds the ratios that
are not rejected. No density has to be estimated, and what slows down both arms in the same moments cancels.

At most `MOST_BLOCKS` blocks are used, neighbours joined, so that blocks grow with the experiment.

Assumptions: blocks are nearly independent; asymptotic in their number. Latency includes waiting, which depends on load:
an arm with more traffic, or whose requests fill batches, waits otherwise than the other. So the tails of unequal arms
differ even for identical versions; compare tails at a split of 50 %.

Sources: score intervals for quantiles by inversion of a test: as in S. Howard, A. Ramdas, "Sequential estimation of
quantiles with applications to A/B testing and best-arm identification", Bernoulli 28 (2022), whose bands take requests
for independent, which those of one batch are not; variance of ratios by clusters: W. Cochran, Sampling Techniques, 3rd
ed., section 6.3; blocks: H. Kuensch, Annals of Statistics 17 (1989).

Thread: any; pure functions.
"""

from __future__ import annotations

import math

import numpy as np

from . import sequential
from .blocks import STEPS
from .sequential import Effect

QUANTILE = 0.95
FEWEST_REQUESTS = 150
FEWEST_BLOCKS = 10
MOST_BLOCKS = 30
REQUESTS_PER_INFORMATION = 8.0
FARTHEST = 5 * STEPS
"""Ratios are looked for up to 2**5."""
PRECISION = 0.01
"""Of a position in buckets: 0.04 %."""
"""Of the range of ratios: to a thousandth."""


def effect(counts: np.ndarray, alpha: float, quantile: float = QUANTILE) -> Effect | None:
    """Logarithm of B's percentile over A's.

    Args:
        counts: histograms of the blocks, shape `(k, 2, WIDTH)`.
        alpha: probability that the interval ever misses the truth.
        quantile: which one.

    Returns:
        The effect, or None while there are too few requests or blocks.
    """
    num_a, num_b = (int(one) for one in counts.sum(axis=(0, 2)))
    if len(counts) < FEWEST_BLOCKS or min(num_a, num_b) < FEWEST_REQUESTS:
        return None
    tails = Tails(_joined(counts), quantile)
    information = num_a * num_b / (num_a + num_b) / REQUESTS_PER_INFORMATION
    df = tails.num_blocks - 2
    critical = sequential.critical_t(information, df, alpha)
    value = tails.ratio()
    low, high = (tails.end(value, direction * critical) for direction in (-1, 1))
    p = sequential.p_value(tails.t(0.0), information, df)
    unit = math.log(2) / STEPS
    return Effect(value * unit, low * unit, high * unit, p, information, df, num_a, num_b)


class Tails:
    """Cumulated histograms of blocks; positions and ratios are in buckets, so ratios are differences.

    Args:
        counts: shape `(k, 2, WIDTH)`.
        quantile: between 0 and 1.
    """

    def __init__(self, counts: np.ndarray, quantile: float) -> None:
        self.num_blocks = len(counts)
        self._quantile = quantile
        self._below = np.concatenate([np.zeros((*counts.shape[:2], 1)), counts.cumsum(axis=2)], axis=2)
        self._sizes = self._below[:, :, -1]
        totals = self._below.sum(axis=0)
        self._num = totals[:, -1]
        grid = np.arange(totals.shape[1])
        self._quantiles = [float(np.interp(quantile * one[-1], one, grid)) for one in totals]
        self._totals: list[list[float]] = totals.tolist()

    def ratio(self) -> float:
        """B's quantile over A's, in buckets."""
        return self._quantiles[1] - self._quantiles[0]

    def t(self, ratio: float) -> float:
        """By how many standard errors more of B's requests are slow than that ratio explains."""
        u = self._threshold(ratio)
        below = np.stack([self._at(0, u), self._at(1, u + ratio)], axis=1)
        shares = below.sum(axis=0) / self._num
        rests = (below - shares * self._sizes) / self._num
        k = self.num_blocks
        rest = rests[:, 0] - rests[:, 1]
        # A busy moment may reach over the end of its block.
        shared = max(0.0, 2 * float(rest[1:] @ rest[:-1]))
        variance = (float(rest @ rest) + shared) * k / (k - 1)
        independent = self._quantile * (1 - self._quantile) * float((1 / self._num).sum())
        return float(shares[0] - shares[1]) / math.sqrt(max(variance, independent))

    def end(self, ratio: float, critical: float) -> float:
        """The ratio on one side at which `t` reaches a critical value; infinite when there is none."""
        direction = 1.0 if critical > 0 else -1.0
        if not math.isfinite(critical):
            return direction * math.inf
        near, far = 0.0, float(FARTHEST)
        if abs(self.t(ratio + direction * far)) < abs(critical):
            return direction * math.inf
        while far - near > PRECISION:
            middle = (near + far) / 2
            if abs(self.t(ratio + direction * middle)) < abs(critical):
                near = middle
            else:
                far = middle
        return ratio + direction * far

    def _threshold(self, ratio: float) -> float:
        """Where the quantile of A's requests and B's, divided by the ratio, lies."""
        target = self._quantile * float(self._num.sum())
        # It lies between both arms' own quantiles.
        low, high = sorted((self._quantiles[0], self._quantiles[1] - ratio))
        while high - low > PRECISION:
            middle = (low + high) / 2
            if _read(self._totals[0], middle) + _read(self._totals[1], middle + ratio) < target:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _at(self, arm: int, position: float) -> np.ndarray:
        """Requests of each block below a position, shape `(k,)`."""
        table = self._below[:, arm]
        position = min(max(position, 0.0), table.shape[1] - 1.0)
        left = min(int(position), table.shape[1] - 2)
        part = position - left
        return np.asarray(table[:, left] * (1 - part) + table[:, left + 1] * part)


def _joined(counts: np.ndarray) -> np.ndarray:
    """At most `MOST_BLOCKS` blocks, neighbours joined."""
    size = -(-len(counts) // MOST_BLOCKS)
    return np.add.reduceat(counts, np.arange(0, len(counts), size), axis=0) if size > 1 else counts


def _read(cumulated: list[float], position: float) -> float:
    if position <= 0:
        return 0.0
    last = len(cumulated) - 1
    if position >= last:
        return cumulated[last]
    left = int(position)
    part = position - left
    return cumulated[left] * (1 - part) + cumulated[left + 1] * part
