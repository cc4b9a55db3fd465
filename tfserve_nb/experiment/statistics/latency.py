"""How much longer B's runs take than A's at equal batch sizes.

Run times are compared only within the same batch size and the same stretch of time.

The unit is one batch, never one request: the requests of a batch share their latency, and a test that counts them as
independent raises false alarms in a third to three quarters of comparisons of identical versions.

A *cell* holds the batches of one padded size in one stretch of time. It is closed soon after both arms have some in it,
so a machine that becomes slower, or a canary step that changes the arms' shares, does not appear as a difference
between the arms. What a closed cell leaves behind are sums of squares and products, so memory is bounded.

Three things are known about each batch: `time`, the logarithm of its run time; `last`, by how much the run before it
deviated from what is usual for its size and arm; `level`, the same, smoothed over the runs before. The two show how
busy the machine is right now. They are needed for fairness, not only for precision: after a slow run more requests
wait, so at equal size the arm with less traffic is measured more often in busy moments than the other.

Extreme times (a real machine has runs that take 20 times as long) are pulled in to `CLIP` robust standard deviations
around the median of the last runs of either arm, whichever is further out. The bounds come from the past of both arms
alike, so that under "no difference" both arms are treated alike whatever the distribution; the effect is that of
typical runs. Slow outliers are what `tail` is about.

Model: within one cell (size and stretch of time) the logarithm of a run's time is

    cell + d * (1 if B) + g1 * last + g2 * level + error

Cells are nuisance parameters and drop out by centring. Sizes are weighted with one over their error variance, which is
estimated from both arms together; arms without a batch of some size in a cell contribute nothing about d. The relative
effect is `exp(d) - 1`, that of the geometric mean of (pulled-in) run times. The interval is the confidence sequence of
`sequential` for linear models; information is `h = n_a n_b / (n_a + n_b)` summed over cells, less what `last` and
`level` explain of the arms.

Weighting by variances of both arms together and by counts keeps the estimate symmetric in the arms, so under "no
difference" it has mean 0 whatever the weights. Its variance is that of the regression, scaled up by how much more the
cells' own differences scatter around `d` than the scatter of batches within cells lets expect, with `PRIOR_CELLS` more
cells that scatter as expected (a variance that is robust to clusters, the clusters being the cells); so its degrees of
freedom are the cells. Neither moments that favour one arm, which a busy machine has, nor arms of different scatter and
size make the interval too narrow then.

Assumptions: given cell, `last` and `level`, which arm a batch belongs to says nothing about the machine's speed;
effects of different sizes have the same sign. The former holds nearly: with nine to one requests on a busy device
whose speed varies by a third from moment to moment, a bias of one to two percent is left of the more than twenty that
comparing equal sizes alone would show.

Sources: as in `sequential`; covariates as in A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the Sensitivity of Online
Controlled Experiments by Utilizing Pre-Experiment Data", WSDM 2013; variance by clusters as in K.-Y. Liang, S. Zeger,
"Longitudinal data analysis using generalized linear models", Biometrika 73 (1986).

Thread: one; pure apart from the state of `Strata`.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any  # JSON

import numpy as np
from numpy.typing import NDArray

from ...serialization import from_json, to_json
from ..plan import ARMS
from . import sequential
from .sequential import Effect

WARM_UP = 4
"""Batches of each arm and size that only show where its times lie."""
RECENT = 48
REFRESH = 8
CLIP = 4.0
LEAST_SD = 0.05
SMOOTHING = 0.6
RIDGE = 1e-6
GAP_S = 1.0
"""After a pause as long as this, earlier runs do not show how busy the machine is."""
FIRST_SLOPES = (0.5, 0.0)
RELEARN = 25
LEARN_DF = 50
ENOUGH = 5
"""A cell is closed once each arm has so many batches in it, and it is `LEAST_S` old."""
LEAST_S = 0.5
MOST = 1024
LONGEST_S = 30.0
MAX_SIZES = 64
PRIOR_DF = 20.0
PRIOR_CELLS = 1.0
FEWEST = 8
"""Batches that each arm must have at sizes and times that both have."""


class Usual:
    """Median and robust spread of the last times of one arm and size."""

    __slots__ = ("_recent", "median", "num", "spread")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.num = 0
        self.median = 0.0
        self.spread = math.inf

    def add(self, value: float) -> None:
        """One more."""
        self._recent.append(value)
        self.num += 1
        if self.num <= 2 * REFRESH or self.num % REFRESH == 0:
            ordered = sorted(self._recent)
            self.median = ordered[len(ordered) // 2]
            deviations = sorted(abs(value - self.median) for value in ordered)
            self.spread = CLIP * max(LEAST_SD, 1.4826 * deviations[len(deviations) // 2])

    @property
    def is_known(self) -> bool:
        """Whether the warm-up is over."""
        return self.num >= WARM_UP


class MachinePace:
    """How busy the machine seems to be: by how much the last runs deviated from what is usual for their size and arm.

    What that means for the next run is learned from differences within cells and arms. What is usual is learned from
    times without it: the median of plain times of, say, an arm's small batches would be that of idle moments, in which
    small batches come up, and the next run would seem to be in a busier moment than it is.
    """

    def __init__(self) -> None:
        self._last = self._level = 0.0
        self._last_s = -math.inf
        self._slopes = FIRST_SLOPES

    def now(self, at_s: float) -> tuple[float, float, float]:
        """The deviation of the last run, the smoothed one, and what both predict for the next, in logarithms."""
        if at_s - self._last_s > GAP_S:
            self._last = self._level = 0.0
        return self._last, self._level, self._slopes[0] * self._last + self._slopes[1] * self._level

    def add(self, at_s: float, deviation: float) -> None:
        """A run deviated so much."""
        self._last_s = at_s
        self._last = deviation
        self._level += SMOOTHING * (deviation - self._level)

    def learn(self, strata: Iterable[Sums]) -> None:
        """Learn from the batches so far."""
        strata = list(strata)
        if sum(float(sums.df.sum()) for sums in strata) >= LEARN_DF:
            first, second = slopes(np.sum([sums.within.sum(axis=0) for sums in strata], axis=0)).tolist()
            self._slopes = (first, second)


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over the closed cells of one size.

    Attributes:
        counts: batches of A and B, shape `(2,)`.
        df: degrees of freedom within cells and arms, of A and B, shape `(2,)`.
        within: sums of squares and products of `(last, level, time)` around the means of each cell and arm, shape
            `(2, 3, 3)`.
        between: for cells with both arms, the sum of `h v v'`; v is `(1, last, level, time)` of B's mean minus A's
            and `h = n_a n_b / (n_a + n_b)`; shape `(4, 4)`.
        squares: for the same cells, the sum of `h^2 v v'`, shape `(4, 4)`.
        num_cells: cells with both arms.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    df: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    within: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 3, 3)))
    between: NDArray[np.float64] = field(default_factory=lambda: np.zeros((4, 4)))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros((4, 4)))
    num_cells: int = 0

    def add(self, cell: Cell) -> None:
        """Take in a cell."""
        means = []
        for arm, rows in enumerate(cell.rows):
            if not rows:
                continue
            values = np.asarray(rows)
            means.append(values.mean(axis=0))
            centred = values - means[-1]
            self.counts[arm] += len(rows)
            self.df[arm] += len(rows) - 1
            self.within[arm] += centred.T @ centred
        if len(means) == 2:
            num_a, num_b = len(cell.rows[0]), len(cell.rows[1])
            weight = num_a * num_b / (num_a + num_b)
            v = np.concatenate(([1.0], means[1] - means[0]))
            self.between += weight * np.outer(v, v)
            self.squares += weight**2 * np.outer(v, v)
            self.num_cells += 1


class Cell:
    """Batches of one size that were run at about the same time: for A and B, rows of `(last, level, time)`."""

    __slots__ = ("rows", "started_s")

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.rows: tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]] = ([], [])

    def is_done(self, now_s: float) -> bool:
        """Whether it is large or old enough; only counts and time decide, never the times of runs."""
        num_a, num_b = len(self.rows[0]), len(self.rows[1])
        age_s = now_s - self.started_s
        is_full = min(num_a, num_b) >= ENOUGH and age_s >= LEAST_S
        return is_full or max(num_a, num_b) >= MOST or age_s > LONGEST_S


class Strata:
    """The times of runs of both arms, by padded batch size."""

    def __init__(self) -> None:
        self._usual: dict[tuple[int, int], Usual] = {}
        self._sums: dict[int, Sums] = {}
        self._open: dict[int, Cell] = {}
        self._pace = MachinePace()
        self._num = 0

    def add(self, arm: str, at_s: float, size: int, run_s: float) -> None:
        """A batch was run; those before it must have been added before.

        Args:
            arm: `a` or `b`.
            at_s: when it was done, in seconds.
            size: rows that the model got, padding included.
            run_s: how long the run took, in seconds.
        """
        if size not in self._sums:
            if len(self._sums) >= MAX_SIZES:
                return
            self._sums[size] = Sums()
        number = ARMS.index(arm)
        mine = self._usual.setdefault((size, number), Usual())
        other = self._usual.get((size, 1 - number))
        time = math.log(max(run_s, 1e-9))
        last, level, expected = self._pace.now(at_s)
        if mine.is_known:
            pulled_in = _pulled_in(time - expected, mine, other) + expected
            self._put(size, number, at_s, (last, level, pulled_in))
            self._pace.add(at_s, pulled_in - mine.median)
        mine.add(time - expected)
        self._num += 1
        if self._num % RELEARN == 0:
            self._pace.learn(self._sums.values())

    def _put(self, size: int, arm: int, at_s: float, row: tuple[float, float, float]) -> None:
        cell = self._open.get(size)
        if cell is not None and cell.is_done(at_s):
            self._sums[size].add(cell)
            cell = None
        if cell is None:
            cell = self._open[size] = Cell(at_s)
        cell.rows[arm].append(row)

    def close(self) -> None:
        """Compare nothing from before with anything after: the arms' shares change now."""
        for size, cell in self._open.items():
            self._sums[size].add(cell)
        self._open.clear()

    def forget(self) -> None:
        """Leave out what was seen so far, but not what is usual."""
        self._sums = {size: Sums() for size in self._sums}
        self._open.clear()

    def sums(self) -> dict[int, Sums]:
        """Padded batch size -> what there is of it, open cells included."""
        found = dict(self._sums)
        for size, cell in self._open.items():
            found[size] = copy.deepcopy(found[size])
            found[size].add(cell)
        return found

    def to_json(self) -> dict[str, Any]:
        """The sums by size; medians and spreads are learned anew."""
        found: dict[str, Any] = to_json(self.sums(), dict[int, Sums])
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Strata:
        """The inverse of `to_json`."""
        self = cls()
        self._sums = from_json(value, dict[int, Sums])
        return self


def slopes(within: np.ndarray) -> np.ndarray:
    """How a time depends on `last` and `level`.

    Args:
        within: sums of squares and products of `(last, level, time)` within cells and arms, shape `(3, 3)`.

    Returns:
        Coefficients, shape `(2,)`.
    """
    return np.linalg.solve(within[:2, :2] + RIDGE * np.eye(2), within[:2, 2])


def _pulled_in(time: float, mine: Usual, other: Usual | None) -> float:
    """A time within the bounds that both arms' recent past sets."""
    low, high = mine.median - mine.spread, mine.median + mine.spread
    if other is not None and other.is_known:
        low, high = min(low, other.median - other.spread), max(high, other.median + other.spread)
    return min(max(time, low), high)


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
    num_cells = sum(sums.num_cells for sums in used)
    df = sum(dfs) + num_cells - 3
    if df < FEWEST or sum(dfs) < FEWEST:
        return None
    common = max(float(sum(rest.sum() for rest in rests)) / sum(dfs), 1e-12)
    variances = [float(rest.sum() + PRIOR_DF * common) / (own + PRIOR_DF) for rest, own in zip(rests, dfs, strict=True)]
    weights = [common / variance for variance in variances]
    total = np.sum([weight * _products(sums) for weight, sums in zip(weights, used, strict=True)], axis=0)
    inverse = np.linalg.inv(total[:3, :3] + RIDGE * np.eye(3))
    solution = inverse @ total[:3, 3]
    rest_sum = float(total[3, 3] - solution @ total[:3, 3])
    information = 1 / float(inverse[0, 0])
    variance = max(rest_sum, 1e-12 * df) / df / information * _scatter(used, solution, variances, weights)
    moments = min(df, num_cells - 1 + PRIOR_CELLS)
    return sequential.effect(float(solution[0]), variance, information, moments, alpha=alpha, num_a=num_a, num_b=num_b)


def _rest(within: np.ndarray, known: np.ndarray) -> float:
    """The sum of squares that `last` and `level` leave."""
    return float(max(within[2, 2] - 2 * known @ within[:2, 2] + known @ within[:2, :2] @ known, 0.0))


def _products(sums: Sums) -> np.ndarray:
    """Sums of squares and products of `(is B, last, level, time)` around cell means, shape `(4, 4)`."""
    products = sums.between.copy()
    products[1:, 1:] += sums.within.sum(axis=0)
    return products


def _scatter(used: list[Sums], solution: np.ndarray, variances: list[float], weights: list[float]) -> float:
    """By how much more the cells' differences scatter than the batches within cells let expect; at least 1."""
    contrast = np.array([-solution[0], -solution[1], -solution[2], 1.0])
    found = expected = num_cells = 0.0
    for sums, variance, weight in zip(used, variances, weights, strict=True):
        found += weight**2 * float(contrast @ sums.squares @ contrast)
        expected += weight**2 * variance * float(sums.between[0, 0])
        num_cells += sums.num_cells
    prior = PRIOR_CELLS * expected / num_cells
    return max(1.0, (found + prior) / (expected + prior)) if expected else 1.0
