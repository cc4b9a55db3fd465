"""One output of two versions, row by row: whether it agrees, and how far it is apart.

NaN and infinity agree with the same in the same place; in only one of the two outputs they are a disagreement. Outputs
of different shapes, or of text and of numbers, never agree.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..types import Tensors
from .kinds import ARGMAX, EQUAL, HALF, NOTHING, NUMBERS, Rule, as_numbers, by_position, is_text, rounding_of

TIE = 4
"""Steps of rounding by which two numbers may differ and still share the first place."""


class Judged(NamedTuple):
    """The rows of one output.

    Attributes:
        agrees: whether each row agrees; bool `(n,)`.
        difference: its largest absolute difference of two numbers; 1 for texts that differ, infinite where two cannot
            be subtracted; float64 `(n,)`.
        score: how far it is apart, for the order of the worst rows: in units of A's spread for numbers, otherwise as
            `difference`; float64 `(n,)`.
        bias: mean of B's numbers minus A's in each row; NaN for rows without numbers; float64 `(n,)`.
        squared_error: mean square of the differences in units of A's spread; NaN for outputs that are not compared as
            numbers; float64 `(n,)`.
        decisions: what A and B decide, for outputs with one decision a row; int64 `(n, 2)`, else None.
    """

    agrees: np.ndarray
    difference: np.ndarray
    score: np.ndarray
    bias: np.ndarray
    squared_error: np.ndarray
    decisions: np.ndarray | None


def num_rows(tensors: Tensors) -> int:
    """The common dimension 0; 1 when there is none."""
    sizes = {len(array) if array.ndim else -1 for array in tensors.values()}
    return sizes.pop() if len(sizes) == 1 and -1 not in sizes else 1


def with_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """An array whose dimension 0 is its rows; what has no rows of its own is one that belongs to all of them."""
    return array if array.ndim and len(array) == rows else array[np.newaxis]


def row_of(tensors: Tensors, row: int, rows: int) -> dict[str, np.ndarray]:
    """A copy of one row of each array, shape `(1, ...)`; a view would keep its whole batch alive."""
    return {
        name: (array[row : row + 1] if array.ndim and len(array) == rows else array[np.newaxis]).copy()
        for name, array in tensors.items()
    }


def judge(rule: Rule, a: np.ndarray, b: np.ndarray) -> Judged:
    """Compare rows.

    Args:
        rule: of the output.
        a: what A predicted, `(n, ...)`.
        b: what B predicted for the same rows.
    """
    if a.shape != b.shape or is_text(a) != is_text(b):
        return never(len(a))
    if rule.judged_by == NOTHING:
        unknown, none = np.full(len(a), math.nan), np.zeros(len(a))
        return Judged(np.ones(len(a), bool), none, none, unknown, unknown, None)
    if is_text(a):
        return _judge_text(a, b)
    left, right = as_numbers(by_position(a)), as_numbers(by_position(b))
    is_known = np.isfinite(left) & np.isfinite(right)
    apart = distances(left, right)
    is_same = apart == 0
    difference = _worst(apart)
    if rule.judged_by == NUMBERS:
        allowed = rule.tolerance * (np.where(np.isfinite(left), np.abs(left), 0.0) + np.asarray(rule.spread))
        agrees, decisions = (apart <= allowed).all(axis=(1, 2)), None
    elif rule.judged_by == EQUAL:
        is_equal = (by_position(a) == by_position(b)) | (np.isnan(left) & np.isnan(right))
        agrees, decisions = is_equal.all(axis=(1, 2)), _whole(a, b)
    else:
        agrees, decisions = _judge_classes(rule, left, right, TIE * rounding_of(a, b))
        agrees &= (is_same | is_known).all(axis=(1, 2))
    unknown = np.full(len(a), math.nan)
    score, squared = difference, unknown
    if rule.judged_by == NUMBERS:
        with np.errstate(over="ignore"):
            errors = apart / np.asarray(rule.unit)
            score, squared = _worst(errors), _mean(errors**2, is_known)
    with np.errstate(invalid="ignore", over="ignore"):
        bias: np.ndarray = unknown if left.dtype.kind == "c" else _mean(right - left, is_known)
    return Judged(agrees, difference, score, bias, squared, decisions)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far numbers are apart, float64: 0 for the same NaN or infinity in both, infinite for one in only one."""
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(b - a)
    found: np.ndarray = np.where(is_same, 0.0, np.where(np.isfinite(apart), apart, math.inf))
    return found


def never(rows: int) -> Judged:
    """Rows that cannot be compared."""
    unknown, far = np.full(rows, math.nan), np.full(rows, math.inf)
    return Judged(np.zeros(rows, bool), far, far, unknown, unknown, None)


def _judge_text(a: np.ndarray, b: np.ndarray) -> Judged:
    rows = len(a)
    is_equal = np.asarray(a.astype(object) == b.astype(object)).reshape(rows, a.size // max(1, rows))
    differs = np.logical_not(is_equal).any(axis=1, keepdims=True)[:, 0]
    unknown, size = np.full(rows, math.nan), differs.astype(np.float64)
    return Judged(~differs, size, size, unknown, unknown, None)


def _judge_classes(rule: Rule, a: np.ndarray, b: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Whether rows `(n, p, k)` are decided alike, and their decisions when there is one a row."""
    n, _, columns = a.shape
    if rule.judged_by != ARGMAX:
        border = 0.5 if rule.judged_by == HALF else 0.0
        chosen = [(one >= border).astype(np.int64) for one in (a, b)]
    elif not columns:
        return np.ones(n, bool), None
    else:
        chosen = _largest(a, b, rounding)
    agrees: np.ndarray = (chosen[0] == chosen[1]).all(axis=(1, 2))
    has_one = chosen[0].shape[1:] == (1, 1)
    return agrees, np.stack([one.reshape(n) for one in chosen], axis=1) if has_one else None


def _largest(a: np.ndarray, b: np.ndarray, rounding: float) -> list[np.ndarray]:
    """The places of the largest numbers, `(n, p, 1)` each; a tie in both versions is decided alike."""
    ranked = [np.where(np.isnan(one), -math.inf, one) for one in (a, b)]
    places = [one.argmax(axis=2)[..., np.newaxis] for one in ranked]
    is_tie = np.ones(places[0].shape, bool)
    for numbers, places_of_other in zip(ranked, reversed(places), strict=True):
        first, second = numbers.max(axis=2, keepdims=True), np.take_along_axis(numbers, places_of_other, axis=2)
        with np.errstate(invalid="ignore"):
            is_tie &= (first == second) | (first - second <= rounding * np.abs(first))
    return [places[0], np.where(is_tie, places[0], places[1])]


def _whole(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The numbers of an output of one integer a row, which may be classes."""
    if a.dtype.kind not in "iub" or b.dtype.kind not in "iub" or a.size != len(a):
        return None
    return np.stack([one.reshape(-1) for one in (a, b)], axis=1).astype(np.int64)


def _worst(sizes: np.ndarray) -> np.ndarray:
    found: np.ndarray = sizes.max(axis=(1, 2), initial=0.0)
    return found


def _mean(numbers: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Mean of the known numbers of each row; NaN for rows without."""
    num = is_known.sum(axis=(1, 2))
    total = np.where(is_known, numbers, 0.0).sum(axis=(1, 2))
    return np.where(num > 0, total / np.maximum(1, num), math.nan)
