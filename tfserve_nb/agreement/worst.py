"""The rows on which both versions differ most: kept in a bounded heap, and shown as a table.

Thread: one; pure apart from the state of `Worst`.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Sequence
from typing import Any  # a DataFrame, where there is pandas

import numpy as np

from ..types import Tensors
from .result import Disagreement
from .rows import row_of

MAX_BYTES = 4 << 20
"""Rows larger than this are not kept."""


class Worst:
    """The worst rows; those with the same inputs are kept once.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[tuple[bool, float], int, bytes, Disagreement]] = []
        self._serial = itertools.count()

    def add(self, inputs: Tensors, a: Tensors, b: Tensors, agrees: np.ndarray, scores: np.ndarray, at: float) -> None:
        """Take in those rows of a request that are among the worst.

        Args:
            inputs: name -> array.
            a: output name -> what A answered.
            b: the same of B.
            agrees: whether each row agrees, bool `(n,)`.
            scores: how far it is apart, float64 `(n,)`.
            at: when.
        """
        rows = len(agrees)
        for row in np.lexsort((-scores, agrees)).tolist():
            rank = (not agrees[row], float(scores[row]))
            is_full = len(self._heap) == self._most
            if rank == (False, 0.0) or (is_full and rank <= self._heap[0][0]):
                return
            self._keep(rank, [row_of(part, row, rows) for part in (inputs, a, b)], at)

    def _keep(self, rank: tuple[bool, float], parts: list[dict[str, np.ndarray]], at: float) -> None:
        if sum(array.nbytes for part in parts for array in part.values()) > MAX_BYTES:
            return
        same = _digest(parts[0])
        if any(entry[2] == same for entry in self._heap):
            return
        inputs, outputs_a, outputs_b = parts
        # The earlier of two equals stands higher: what follows the number cannot be compared.
        entry = (rank, -next(self._serial), same, Disagreement(rank[1], inputs, outputs_a, outputs_b, at))
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def ranked(self) -> tuple[Disagreement, ...]:
        """The worst first."""
        return tuple(entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def _digest(inputs: Tensors) -> bytes:
    """A digest of inputs, equal for equal inputs only."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(inputs.items()):
        content = str(array.tolist()).encode() if array.dtype == object else array.tobytes()
        digest.update(f"{name} {array.dtype} {array.shape} {len(content)} ".encode() + content)
    return digest.digest()


def frame_of(found: Sequence[Disagreement]) -> Any:
    """One row for each disagreement, the worst first.

    Args:
        found: rows of one signature.

    Returns:
        A pandas `DataFrame`; without pandas a dict of arrays of equal length. Columns: `score`, `at` (seconds since
        the epoch), the inputs by their names, and the outputs as `NAME_a` and `NAME_b`; an input that is named so too
        is called `NAME_in`. Cells hold numbers, texts, or arrays without the batch dimension.
    """
    columns = columns_of(found)
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame({name: list(values) if values.ndim > 1 else values for name, values in columns.items()})


def columns_of(found: Sequence[Disagreement]) -> dict[str, np.ndarray]:
    """The columns as arrays of shape `(n, ...)`; `object` where rows have different shapes."""
    columns = {
        "score": np.array([one.score for one in found], dtype=np.float64),
        "at": np.array([one.at for one in found], dtype=np.float64),
    }
    if not found:
        return columns
    arms = {"a": [one.outputs_a for one in found], "b": [one.outputs_b for one in found]}
    outputs = {
        f"{name}_{arm}": [tensors.get(name) for tensors in rows_of_arm]
        for name in found[0].outputs_a
        for arm, rows_of_arm in arms.items()
    }
    taken = {*columns, *outputs}
    for name in found[0].inputs:
        column = f"{name}_in" if name in taken else name
        columns[column] = _stacked([one.inputs.get(name) for one in found])
    return columns | {name: _stacked(rows) for name, rows in outputs.items()}


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray:
    """Rows of shape `(1, ...)` as one array; ragged ones as an array of objects."""
    known = [None if row is None else row[0] if row.ndim else row[()] for row in rows]
    kinds = {None if one is None else (np.shape(one), np.asarray(one).dtype) for one in known}
    if len(kinds) == 1 and None not in kinds:
        return np.stack([np.asarray(one) for one in known])
    found = np.empty(len(known), dtype=object)
    for place, row in enumerate(known):
        found[place] = row
    return found
