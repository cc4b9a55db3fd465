"""Two versions' outputs for the same rows: whether they decide alike, and how far they are apart.

Which output decides: the first float output of two columns or more decides by its largest column; else the first float
output of one column that holds numbers from 0 to 1 decides by whether it is at least a half; else every output must be
equal, whole numbers and text exactly, other numbers within `RTOL` and `ATOL`.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..types import Tensors

RTOL, ATOL = 1e-3, 1e-5
"""Versions that differ by less, by half precision or another order of additions, answer the same."""
FAR = 1e9
"""Stands for the distance to a number that is none."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows that both versions answered.

    Attributes:
        is_same: whether they decide alike, shape `(n,)`.
        distance: largest absolute difference of two numbers in each row, shape `(n,)`.
        classes: what A and B decided, shape `(2, n)`, int64; None when there are no classes.
        shift: sum of B's numbers minus A's, over numbers that are finite in both.
        num_numbers: how many of them.
        nonfinite_a: rows of A with NaN or infinity, shape `(n,)`.
        nonfinite_b: rows of B with NaN or infinity, shape `(n,)`.
    """

    is_same: np.ndarray
    distance: np.ndarray
    classes: np.ndarray | None
    shift: float
    num_numbers: int
    nonfinite_a: np.ndarray
    nonfinite_b: np.ndarray


def num_rows(tensors: Tensors) -> int:
    """The common dimension 0; 1 when there is none."""
    sizes = {len(array) if array.ndim else -1 for array in tensors.values()}
    return sizes.pop() if len(sizes) == 1 and -1 not in sizes else 1


def by_row(tensors: Tensors, rows: int) -> Mapping[str, np.ndarray]:
    """Arrays whose dimension 0 is `rows`; whole tensors become one row."""
    return {
        name: array if array.ndim and len(array) == rows else np.broadcast_to(array, (rows, *array.shape))
        for name, array in tensors.items()
    }


def compare(outputs_a: Tensors, outputs_b: Tensors, *, may_threshold: bool = True) -> Compared:
    """Compare outputs row by row; outputs that only one version has are left out.

    Args:
        outputs_a: name -> array `(n, ...)`.
        outputs_b: the same of the other version, for the same rows.
        may_threshold: False when an output of one column is known to be no probability.
    """
    names = [name for name in outputs_a if name in outputs_b and outputs_a[name].shape == outputs_b[name].shape]
    rows = num_rows({name: outputs_a[name] for name in names}) if names else 1
    a, b = (
        by_row({name: outputs_a[name] for name in names}, rows),
        by_row({name: outputs_b[name] for name in names}, rows),
    )
    nonfinite_a, nonfinite_b = odd_rows(a, rows), odd_rows(b, rows)
    distance, shift, num_numbers = _distances(a, b, rows)
    classes = _classes(a, b, may_threshold=may_threshold)
    if len(names) < max(len(outputs_a), len(outputs_b)) and not names:
        is_same = np.zeros(rows, bool)
    elif classes is not None:
        is_same = (classes[0] == classes[1]) & ~(nonfinite_a ^ nonfinite_b)
    else:
        is_same = np.ones(rows, bool)
        for name in names:
            is_same &= _equal(a[name], b[name], rows)
        classes = _whole(a, b)
    return Compared(is_same, distance, classes, shift, num_numbers, nonfinite_a, nonfinite_b)


def flat_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """The array with shape `(rows, k)`, also for no rows, of which numpy cannot tell k."""
    return array.reshape(rows, -1) if array.size else array.reshape(rows, 0)


def odd_rows(tensors: Tensors, rows: int, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """Rows with NaN or infinity, or with a number outside the bounds; shape `(rows,)`."""
    odd = np.zeros(rows, bool)
    for array in by_row(tensors, rows).values():
        if array.dtype.kind not in "fiu":
            continue
        flat = flat_rows(array, rows)
        bad = ~np.isfinite(flat) if bounds is None else (flat < bounds[0]) | (flat > bounds[1])
        odd |= bad.any(axis=1)
    return odd


def is_share(tensors: Tensors) -> bool:
    """Whether the outputs of one column hold numbers from 0 to 1 only."""
    return all(
        bool(((array >= 0) & (array <= 1) | ~np.isfinite(array)).all())
        for array in tensors.values()
        if _is_float(array) and _is_column(array)
    )


def _classes(a: Tensors, b: Tensors, *, may_threshold: bool) -> np.ndarray | None:
    """What both decide, shape `(2, n)`; None when they do not decide between classes."""
    for name, array in a.items():
        if _is_float(array) and array.ndim == 2 and array.shape[1] >= 2:
            return np.stack([array.argmax(axis=1), b[name].argmax(axis=1)])
    for name, array in a.items():
        if may_threshold and _is_float(array) and _is_column(array):
            return np.stack([(one[name].reshape(-1) >= 0.5).astype(np.int64) for one in (a, b)])
    return None


def _whole(a: Tensors, b: Tensors) -> np.ndarray | None:
    """The numbers of a single output of whole numbers, one a row, which may be classes."""
    if len(a) != 1:
        return None
    (name,) = a
    if a[name].dtype.kind not in "iub" or not _is_column(a[name]):
        return None
    return np.stack([one[name].reshape(-1).astype(np.int64) for one in (a, b)])


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _is_column(array: np.ndarray) -> bool:
    return array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)


def _equal(a: np.ndarray, b: np.ndarray, rows: int) -> np.ndarray:
    close = np.isclose(b, a, rtol=RTOL, atol=ATOL, equal_nan=True) if _is_float(a) and _is_float(b) else a == b
    return np.asarray(flat_rows(np.asarray(close), rows).all(axis=1))


def _distances(a: Tensors, b: Tensors, rows: int) -> tuple[np.ndarray, float, int]:
    """The largest distance of each row, the sum of differences, and of how many numbers."""
    largest, shift, num_numbers = np.zeros(rows), 0.0, 0
    for name, first in a.items():
        if first.dtype.kind not in "fiub" or b[name].dtype.kind not in "fiub" or not first.size:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            difference = b[name].astype(np.float64) - first.astype(np.float64)
        is_finite = np.isfinite(difference)
        both_odd = ~np.isfinite(first.astype(np.float64)) & ~np.isfinite(b[name].astype(np.float64))
        shift += float(difference[is_finite].sum())
        num_numbers += int(is_finite.sum())
        size = np.where(is_finite, np.abs(np.where(is_finite, difference, 0.0)), np.where(both_odd, 0.0, FAR))
        largest = np.maximum(largest, size.reshape(rows, -1).max(axis=1))
    return largest, shift, num_numbers
