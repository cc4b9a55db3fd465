"""What a model decided, row by row: the class of the highest score, or the value itself.

Thread: any; pure functions.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ..types import Tensors
from .pairs import flat_rows


class Decisions(NamedTuple):
    """The decisions of some rows.

    Attributes:
        values: shape `(n,)`: classes (int64) for scores, otherwise the first output's value of each row.
        confidences: highest score of each row, shape `(n,)`, float64; None for outputs that are no scores.
    """

    values: np.ndarray
    confidences: np.ndarray | None


def decisions_of(outputs: Tensors) -> Decisions:
    """The decisions of a model's first output.

    Args:
        outputs: name -> array `(n, ...)`.

    Returns:
        For floats of shape `(n, k)` with k > 1 the index of the largest; for floats of shape `(n,)` or `(n, 1)` that
        all lie in [0, 1] whether they are at least 0.5; otherwise the rows' values, of those of several numbers
        a hash, which no label equals: what they decide is not known.
    """
    array = next(iter(outputs.values()))
    if array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] > 1:
        return Decisions(array.argmax(axis=1), array.max(axis=1).astype(np.float64))
    rows = flat_rows(array, len(array)) if array.ndim else array.reshape(1, 1)
    if rows.shape[1] != 1:
        return Decisions(np.array([_digest(row) for row in rows], dtype=object), None)
    values = rows[:, 0]
    if array.dtype.kind == "f" and len(values) and bool(((values >= 0) & (values <= 1)).all()):
        is_positive = values >= 0.5
        return Decisions(is_positive.astype(np.int64), np.where(is_positive, values, 1 - values).astype(np.float64))
    return Decisions(values.copy(), None)  # a view would keep all of a batch, or what came with it, alive


def _digest(row: np.ndarray) -> str:
    """What stands for a row of many numbers: the row itself may be large."""
    content = repr(row.tolist()).encode() if row.dtype == object else row.tobytes()
    return blake2b(content, digest_size=16).hexdigest()
