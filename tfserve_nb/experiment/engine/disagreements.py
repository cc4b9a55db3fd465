"""The rows on which both versions differ most: a bounded list of the worst.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from ...types import Tensors
from ..pairs import Compared, by_row
from ..state import Disagreement

MOST = 64
MOST_BYTES = 4 << 20
"""Rows larger than this are not kept."""
FLIP = 1.0
"""What another decision adds to the distance: rows that are decided differently come first where outputs are shares."""


class Worst:
    """A reservoir of the worst disagreements; the same inputs are kept once."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Disagreement]] = []
        self._serial = itertools.count()

    def add(self, at_s: float, inputs: Tensors, outputs_a: Tensors, outputs_b: Tensors, compared: Compared) -> None:
        """Take in the rows of one pair, those that are among the worst."""
        rows = len(compared.is_same)
        scores = compared.distance + FLIP * ~compared.is_same
        best = np.argsort(scores)[::-1][:MOST]
        lowest = self._heap[0][0] if len(self._heap) == MOST else 0.0
        if not rows or scores[best[0]] <= lowest:
            return
        parts = [by_row(tensors, rows) for tensors in (inputs, outputs_a, outputs_b)]
        for row in best.tolist():
            score = float(scores[row])
            if score <= (self._heap[0][0] if len(self._heap) == MOST else 0.0):
                return
            self._keep(score, at_s, [{name: array[row : row + 1] for name, array in part.items()} for part in parts])

    def _keep(self, score: float, at_s: float, parts: list[dict[str, np.ndarray]]) -> None:
        if sum(array.nbytes for part in parts for array in part.values()) > MOST_BYTES:
            return
        same = hash(tuple((name, str(array.tolist()) if array.dtype == object else array.tobytes())
                          for name, array in sorted(parts[0].items())))  # fmt: skip
        if any(one[2] == same for one in self._heap):
            return
        # Copies: a row must not keep its whole batch alive.
        inputs, outputs_a, outputs_b = ({name: array.copy() for name, array in part.items()} for part in parts)
        entry = (score, next(self._serial), same, Disagreement(score, inputs, outputs_a, outputs_b, at_s))
        if len(self._heap) < MOST:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def worst(self, limit: int) -> list[Disagreement]:
        """The worst first."""
        return [entry[3] for entry in sorted(self._heap, key=lambda one: one[:2], reverse=True)[:limit]]
