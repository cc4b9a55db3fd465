"""How the outputs of both versions compare on the rows that both answered.

The share of rows decided alike has Wilson's interval (`rates.wilson`) for one look. It takes rows for independent,
which copies of different requests are; many rows of one request count as many. It describes and decides nothing by
itself: the limit on disagreement has a test of its own.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any  # JSON

from .pairs import FAR, Compared
from .reading import Agreement
from .statistics.rates import wilson

MOST_FLIPS = 2000
"""Pairs of classes that are counted separately."""


class Agreeing:
    """Sums over all compared rows."""

    def __init__(self) -> None:
        self.may_threshold = True
        self._num_rows = self._num_same = self._num_numbers = 0
        self._shift = self._largest = 0.0
        self._flips: Counter[tuple[int, int]] = Counter()

    def add(self, compared: Compared) -> None:
        """Take rows in."""
        self._num_rows += len(compared.is_same)
        self._num_same += int(compared.is_same.sum())
        self._num_numbers += compared.num_numbers
        self._shift += compared.shift
        finite = compared.distance[compared.distance < FAR]
        self._largest = max(self._largest, float(finite.max(initial=0.0)))
        if compared.classes is None:
            return
        differing = compared.classes[:, compared.classes[0] != compared.classes[1]]
        for a, b in differing.T.tolist():
            if (a, b) in self._flips or len(self._flips) < MOST_FLIPS:
                self._flips[a, b] += 1

    def agreement(self) -> Agreement | None:
        """What they say; None without rows."""
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

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {
            "rows": self._num_rows,
            "same": self._num_same,
            "numbers": self._num_numbers,
            "shift": self._shift,
            "largest": self._largest,
            "may_threshold": self.may_threshold,
            "flips": [[a, b, count] for (a, b), count in self._flips.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Agreeing:
        """The inverse of `to_json`."""
        self = cls()
        self._num_rows, self._num_same, self._num_numbers = value["rows"], value["same"], value["numbers"]
        self._shift, self._largest = value["shift"], value["largest"]
        self.may_threshold = value["may_threshold"]
        self._flips = Counter({(a, b): count for a, b, count in value["flips"]})
        return self
