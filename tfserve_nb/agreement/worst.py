"""The rows on which both versions differ most: a bounded heap.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools

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
    """Tells inputs from others."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(inputs.items()):
        content = str(array.tolist()).encode() if array.dtype == object else array.tobytes()
        digest.update(f"{name} {array.dtype} {array.shape} {len(content)} ".encode() + content)
    return digest.digest()
