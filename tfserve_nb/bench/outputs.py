"""Whether two versions answer the same rows alike.

A row agrees when all of its outputs do. An output whose rows are shares that sum to one (softmax) agrees when its
largest share stands at the same place, so that a version that was trained on is not called different because it is
surer; all other numbers agree within a tolerance, texts and integers when they are equal.

Thread: any; a `Comparison` belongs to one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..experiment.reading import Agreement
from ..experiment.state import Disagreement
from ..experiment.statistics.rates import wilson
from ..types import Tensors

DEFAULT_TOLERANCE = 1e-3
"""Relative and absolute, as `numpy.isclose` has it: batches of other sizes change a number's last digits."""

SUM_TOLERANCE = 1e-2
"""How far the shares of a row may be from one; half-precision models are that far away."""

KEPT_ROWS = 20


class Rows(NamedTuple):
    """How the rows of one request compare.

    Attributes:
        is_same: whether each row agrees; bool `(n,)`.
        difference: its largest absolute difference of two numbers, infinite where there is none; float64 `(n,)`.
        classes: what both decide, int64 `(n, 2)`; None for outputs that are no classes.
        shift: sum of B's numbers minus A's.
        num_numbers: how many numbers that is the sum of.
    """

    is_same: np.ndarray
    difference: np.ndarray
    classes: np.ndarray | None
    shift: float
    num_numbers: int


def compare_rows(a: Tensors, b: Tensors, num_rows: int, tolerance: float | None = None) -> Rows:
    """Compare two answers to the same rows.

    Args:
        a: name -> array of the one version, `(num_rows, ...)`.
        b: the same of the other; outputs that only it has do not count.
        num_rows: rows of the request.
        tolerance: difference that counts as none, relative and absolute; None also lets classes decide.
    """
    is_same, difference = np.ones(num_rows, dtype=bool), np.zeros(num_rows)
    classes: np.ndarray | None = None
    shift, num_numbers = 0.0, 0
    for name, left in a.items():
        right = b.get(name)
        if right is None or left.shape != right.shape or (left.dtype == object) != (right.dtype == object):
            is_same[:], difference[:] = False, math.inf
            continue
        # What has no rows of its own belongs to all of them.
        one = left.reshape(num_rows if left.ndim and len(left) == num_rows else 1, -1)
        two = right.reshape(one.shape)
        if left.dtype == object:
            differs = one != two
            is_same &= ~differs.any(axis=1)
            np.maximum(difference, differs.any(axis=1).astype(float), out=difference)
            continue
        apart = _apart(one, two)
        np.maximum(difference, apart.max(axis=1, initial=0.0), out=difference)
        found = _classes(left, right) if tolerance is None and len(one) == num_rows else None
        if found is None:
            is_same &= _is_close(one, apart, tolerance).all(axis=1)
        else:
            classes = found if classes is None else classes
            is_same &= found[:, 0] == found[:, 1]
        if left.dtype.kind != "c":  # numbers without an order have no direction to shift to
            finite = np.isfinite(one) & np.isfinite(two)
            shift += float((two[finite].astype(np.float64) - one[finite].astype(np.float64)).sum())
            num_numbers += int(finite.sum())
    return Rows(is_same, difference, classes, shift, num_numbers)


@dataclass(slots=True)
class Comparison:
    """Sums up many requests.

    Attributes:
        tolerance: as for `compare_rows`.
        failures: what B says instead of answers -> requests.
    """

    tolerance: float | None = None
    failures: Counter[str] = field(default_factory=Counter)
    _num_rows: int = 0
    _num_same: int = 0
    _flips: Counter[tuple[int, int]] = field(default_factory=Counter)
    _shift: float = 0.0
    _num_numbers: int = 0
    _largest: float = 0.0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _worst: list[tuple[tuple[bool, float], int, Disagreement]] = field(default_factory=list)

    def add(self, inputs: Tensors, a: Tensors, b: Tensors, num_rows: int, at: float) -> Rows:
        """One request that both answered.

        Args:
            inputs: name -> array.
            a: what the one answered.
            b: what the other answered.
            num_rows: rows of it.
            at: when, seconds since the epoch.
        """
        rows = compare_rows(a, b, num_rows, self.tolerance)
        self._num_rows += num_rows
        self._num_same += int(rows.is_same.sum())
        self._shift += rows.shift
        self._num_numbers += rows.num_numbers
        self._largest = max(self._largest, float(rows.difference.max(initial=0.0)))
        if rows.classes is not None:
            self._flips.update((int(one), int(two)) for one, two in rows.classes if one != two)
        # More than are kept of one request cannot be among the kept.
        order = np.lexsort((-rows.difference, rows.is_same))[:KEPT_ROWS]
        for row in order[rows.difference[order] > 0].tolist():
            rank = (not rows.is_same[row], float(rows.difference[row]))
            if len(self._worst) < KEPT_ROWS or rank > self._worst[0][0]:
                one, two, three = [_row(tensors, row, num_rows) for tensors in (inputs, a, b)]
                # The number breaks ties: what follows it cannot be compared.
                entry = (rank, next(self._numbers), Disagreement(rank[1], one, two, three, at))
                (heapq.heappush if len(self._worst) < KEPT_ROWS else heapq.heapreplace)(self._worst, entry)
        return rows

    @property
    def agreement(self) -> Agreement | None:
        """Of all rows; None without any."""
        if not self._num_rows:
            return None
        low, high = wilson(self._num_same, self._num_rows)
        return Agreement(
            num_rows=self._num_rows,
            num_same=self._num_same,
            share=self._num_same / self._num_rows,
            low=low,
            high=high,
            flips=dict(self._flips.most_common()),
            shift=self._shift / max(1, self._num_numbers),
            largest=self._largest,
        )

    @property
    def worst(self) -> tuple[Disagreement, ...]:
        """The rows that differ most, those that disagree first."""
        return tuple(entry[2] for entry in sorted(self._worst, key=lambda entry: entry[:2], reverse=True))


def _apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Absolute differences, float64; 0 for two that are NaN or infinite alike, infinite for only one that is."""
    if one.dtype.kind == "c":
        found: np.ndarray = np.abs(two - one).astype(np.float64)
    else:
        left, right = one.astype(np.float64), two.astype(np.float64)
        with np.errstate(invalid="ignore"):
            found = np.abs(right - left)
        found[(left == right) | (np.isnan(left) & np.isnan(right))] = 0.0
    return np.where(np.isnan(found), math.inf, found)


def _is_close(one: np.ndarray, apart: np.ndarray, tolerance: float | None) -> np.ndarray:
    if one.dtype.kind in "iub":
        found: np.ndarray = apart <= (tolerance or 0.0)
        return found
    allowed = DEFAULT_TOLERANCE if tolerance is None else tolerance
    size = np.abs(one).astype(np.float64)
    close: np.ndarray = apart <= allowed * (1 + np.where(np.isfinite(size), size, 0.0))
    return close


def _classes(left: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """What both decide, where the outputs are classes: shares that sum to one, or one integer for each row."""
    if left.dtype.kind in "iu" and left.size == len(left):
        return np.stack([left.reshape(-1), right.reshape(-1)], axis=1).astype(np.int64)
    if left.ndim != 2 or left.shape[1] < 2 or left.dtype.kind in "iubc":
        return None
    both = [left.astype(np.float64), right.astype(np.float64)]
    for shares in both:
        if not ((shares >= 0).all() and (np.abs(shares.sum(axis=1) - 1) <= SUM_TOLERANCE).all()):
            return None
    return np.stack([shares.argmax(axis=1) for shares in both], axis=1)


def _row(tensors: Mapping[str, np.ndarray], row: int, num_rows: int) -> dict[str, np.ndarray]:
    return {
        name: array[row : row + 1].copy() if array.ndim and len(array) == num_rows else array
        for name, array in tensors.items()
    }
