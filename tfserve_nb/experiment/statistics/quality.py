"""How much more often B is right than A, from labels that come later, clustered by client.

The predictions for one client are alike, so the client's key is the unit; a label without a key is a unit of its own.
With n_k labels and r_k right predictions for key k, an arm's share is p = sum(r_k) / sum(n_k); its variance is that of
a ratio,

    sum((r_k - p n_k)^2) / sum(n_k)^2 * K / (K - 1),

with one right and one wrong prediction added as units of their own, so that an arm that was always right or wrong so
far is not taken for certain. The interval of the difference is the confidence sequence of `sequential`, information
`K_a K_b / (K_a + K_b)`.

Assumptions: clients are independent, and labels come for either arm alike; asymptotic in the number of clients.
Sources: A. Deng, J. Lu, S. Litz, "Trustworthy Analysis of Online A/B Tests", WSDM 2017 (clusters and the delta
method); A. Agresti, B. Caffo, The American Statistician 54 (2000), for the added predictions.

Calibration compares how sure an arm is with how often it is right: the expected calibration error is the mean of
|share right - mean confidence| over ten bins of confidence, weighted by their rows (C. Guo, G. Pleiss, Y. Sun,
K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017).

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # JSON

import numpy as np

from ..state import Calibration
from . import sequential
from .sequential import Effect

FEWEST_UNITS = 20
MOST_KEYS = 20_000
"""Keys of an arm whose labels are brought together; those of later keys are units of their own."""
NUM_BINS = 10


class Labelled:
    """The labels of one arm.

    Attributes:
        num_rows: labels.
        num_right: of these, right predictions.
        num_units: keys, and labels without one.
    """

    def __init__(self) -> None:
        self.num_rows = self.num_right = self.num_units = 0
        self._squares = np.zeros(3)  # sums of r r, r n, n n over units
        self._keys: dict[str, tuple[int, int]] = {}
        self._bins = np.zeros((NUM_BINS, 3))  # rows, confidence, right

    def add(self, key: str, is_right: bool, confidence: float | None) -> None:
        """One label."""
        right = int(is_right)
        old_right, old_rows = self._keys.get(key, (0, 0)) if key else (0, 0)
        new_right, new_rows = old_right + right, old_rows + 1
        if key and (old_rows or len(self._keys) < MOST_KEYS):
            self._keys[key] = (new_right, new_rows)
        else:
            old_right = old_rows = 0
            new_right, new_rows = right, 1
        self.num_units += not old_rows
        self.num_rows += 1
        self.num_right += right
        self._squares += [
            new_right**2 - old_right**2,
            new_right * new_rows - old_right * old_rows,
            new_rows**2 - old_rows**2,
        ]
        if confidence is not None and np.isfinite(confidence):
            number = min(NUM_BINS - 1, max(0, int(confidence * NUM_BINS)))
            self._bins[number] += [1, confidence, right]

    @property
    def share(self) -> float:
        """Share of right predictions."""
        return self.num_right / self.num_rows if self.num_rows else 0.0

    def variance(self) -> float:
        """Of the share."""
        rows, right = self.num_rows + 2, self.num_right + 1
        p = right / rows
        rr, rn, nn = self._squares + np.array([1, 1, 2])
        units = self.num_units + 2
        return float(rr - 2 * p * rn + p * p * nn) / rows**2 * units / (units - 1)

    def calibration(self) -> Calibration | None:
        """How sure compared with how often right; None without a label that came with a confidence."""
        rows, confidence, right = self._bins.T
        if not rows.sum():
            return None
        return Calibration(
            num_rows=int(rows.sum()),
            accuracy=float(right.sum() / rows.sum()),
            confidence=float(confidence.sum() / rows.sum()),
            error=float(np.abs(right - confidence).sum() / rows.sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads; which key had which labels is not kept."""
        return {
            "rows": self.num_rows,
            "right": self.num_right,
            "units": self.num_units,
            "squares": self._squares.tolist(),
            "bins": self._bins.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labelled:
        """The inverse of `to_json`."""
        self = cls()
        self.num_rows, self.num_right, self.num_units = value["rows"], value["right"], value["units"]
        self._squares, self._bins = np.asarray(value["squares"], float), np.asarray(value["bins"], float)
        return self


def effect(a: Labelled, b: Labelled, alpha: float) -> Effect | None:
    """B's share of right predictions minus A's; None while an arm has too few clients."""
    if min(a.num_units, b.num_units) < FEWEST_UNITS:
        return None
    return sequential.effect(
        b.share - a.share,
        a.variance() + b.variance(),
        a.num_units * b.num_units / (a.num_units + b.num_units),
        a.num_units + b.num_units - 2,
        alpha=alpha,
        num_a=a.num_units,
        num_b=b.num_units,
    )
