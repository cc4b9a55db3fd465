"""How much longer the slowest requests take with B than with A: the ratio of the 95th percentiles of latency.

Requests of one batch, and of one busy moment, are slow together. A *block* holds all that was answered in the same
second or so; blocks are the units. When there are too many, neighbours are joined, so memory is bounded and blocks grow
with the experiment, which makes them ever more independent.

For a hypothetical ratio r, B's latencies are divided by r and a threshold u is found that 95 % of both arms' requests
together stay below. If r is right, both arms have the same share below it. The difference D of the shares has the
variance of a difference of two ratios over blocks of time: with x blocks' requests below u and n all of
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

Thread: one; pure apart from the state of `Blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any  # JSON

import numpy as np

from ...serving.telemetry.histogram import LOWEST_S, NUM_BUCKETS, STEPS_PER_OCTAVE
from ..plan import ARMS
from . import sequential
from .sequential import Effect

FINER = 2
STEPS = FINER * STEPS_PER_OCTAVE
"""Buckets of ratio 2**(1/16), 4.4 %; quantiles are read between their bounds."""
WIDTH = FINER * NUM_BUCKETS
MOST = 128
FIRST_S = 1.0
WARM_UP = 10
"""Requests of each arm that are left out."""
QUANTILE = 0.95
FEWEST_REQUESTS = 150
FEWEST_BLOCKS = 10
MOST_BLOCKS = 30
REQUESTS_PER_INFORMATION = 8.0
FARTHEST = 5 * STEPS
"""Ratios are looked for up to 2**5."""
PRECISION = 0.01
"""Of a position in buckets: 0.04 %."""


class Blocks:
    """Histograms of latencies by time and arm."""

    def __init__(self) -> None:
        self.length_s = FIRST_S
        self._counts = np.zeros((MOST, 2, WIDTH), np.int32)
        self._seen = [0, 0]
        self._since_s = 0.0

    def forget(self, now_s: float) -> None:
        """Leave out of `counts` what was answered until now."""
        self._since_s = now_s

    def add(self, arm: str, at_s: float, latency_s: float) -> None:
        """A request was answered.

        Args:
            arm: `a` or `b`.
            at_s: when, in seconds, not before 0.
            latency_s: how long it took, in seconds.
        """
        number = ARMS.index(arm)
        self._seen[number] += 1
        if self._seen[number] <= WARM_UP:
            return
        block = max(0, int(at_s / self.length_s))
        while block >= MOST:
            self._join()
            block = int(at_s / self.length_s)
        self._counts[block, number, bucket_of(latency_s)] += 1

    def _join(self) -> None:
        """Make one block of two neighbours."""
        joined = self._counts[0::2] + self._counts[1::2]
        self._counts = np.concatenate([joined, np.zeros_like(joined)])
        self.length_s *= 2

    def counts(self) -> np.ndarray:
        """Histograms of the blocks that have requests, in order of time; shape `(k, 2, WIDTH)`, int32."""
        counts = self._counts[math.ceil(self._since_s / self.length_s) :]
        return counts[counts.any(axis=(1, 2))]

    def totals(self) -> np.ndarray:
        """Histograms over all time with the buckets of `serving.histogram`, shape `(2, NUM_BUCKETS)`, int64."""
        totals = self._counts.sum(axis=0, dtype=np.int64)
        return np.asarray(totals.reshape(2, NUM_BUCKETS, FINER).sum(axis=2))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        where = np.nonzero(self._counts)
        return {
            "length_s": self.length_s,
            "seen": self._seen,
            "since_s": self._since_s,
            "at": np.ravel_multi_index(where, self._counts.shape).tolist(),
            "counts": self._counts[where].tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Blocks:
        """The inverse of `to_json`."""
        self = cls()
        self.length_s, self._since_s = value["length_s"], value["since_s"]
        self._seen = list(value["seen"])
        self._counts.reshape(-1)[np.asarray(value["at"], np.int64)] = value["counts"]
        return self


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency: bucket i holds `[LOWEST_S * 2**(i/16), LOWEST_S * 2**((i+1)/16))`."""
    if latency_s <= LOWEST_S:
        return 0
    return min(WIDTH - 1, int(math.log2(latency_s / LOWEST_S) * STEPS))


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
        """The position of the quantile of A's requests and B's, divided by the ratio."""
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
