"""Latencies of requests by stretches of time: what the tail is judged by.

Requests of one batch, and of one busy moment, are slow together. A *block* holds all that was answered in the same
second or so; blocks are the units. When there are too many, neighbours are joined, so memory is bounded and blocks grow
with the experiment, which makes them ever more independent.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any  # JSON

import numpy as np

from ...serving.telemetry.histogram import LOWEST_S, NUM_BUCKETS, STEPS_PER_OCTAVE
from .strata import ARMS

FINER = 2
STEPS = FINER * STEPS_PER_OCTAVE
"""Buckets of ratio 2**(1/16), 4.4 %; quantiles are read between their bounds."""
WIDTH = FINER * NUM_BUCKETS
MOST = 128
FIRST_S = 1.0
WARM_UP = 10
"""Requests of each arm that are left out."""


class Blocks:
    """Histograms of latencies by time and arm."""

    def __init__(self) -> None:
        self.length_s = FIRST_S
        self._counts = np.zeros((MOST, 2, WIDTH), np.int32)
        self._seen = [0, 0]
        self._since_s = 0.0

    def forget(self, now_s: float) -> None:
        """Leave out of `counts` what was answered until now."""
        self._since_s = now_s

    def add(self, arm: str, at_s: float, latency_s: float) -> None:
        """A request was answered.

        Args:
            arm: `a` or `b`.
            at_s: when, in seconds, not before 0.
            latency_s: how long it took, in seconds.
        """
        number = ARMS.index(arm)
        self._seen[number] += 1
        if self._seen[number] <= WARM_UP:
            return
        block = max(0, int(at_s / self.length_s))
        while block >= MOST:
            self._join()
            block = int(at_s / self.length_s)
        self._counts[block, number, bucket_of(latency_s)] += 1

    def _join(self) -> None:
        """Make one block of two neighbours."""
        joined = self._counts[0::2] + self._counts[1::2]
        self._counts = np.concatenate([joined, np.zeros_like(joined)])
        self.length_s *= 2

    def counts(self) -> np.ndarray:
        """Histograms of the blocks that have requests, in order of time; shape `(k, 2, WIDTH)`, int32."""
        counts = self._counts[math.ceil(self._since_s / self.length_s) :]
        return counts[counts.any(axis=(1, 2))]

    def totals(self) -> np.ndarray:
        """Histograms over all time with the buckets of `serving.histogram`, shape `(2, NUM_BUCKETS)`, int64."""
        totals = self._counts.sum(axis=0, dtype=np.int64)
        return np.asarray(totals.reshape(2, NUM_BUCKETS, FINER).sum(axis=2))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        where = np.nonzero(self._counts)
        return {
            "length_s": self.length_s,
            "seen": self._seen,
            "since_s": self._since_s,
            "at": np.ravel_multi_index(where, self._counts.shape).tolist(),
            "counts": self._counts[where].tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Blocks:
        """The inverse of `to_json`."""
        self = cls()
        self.length_s, self._since_s = value["length_s"], value["since_s"]
        self._seen = list(value["seen"])
        self._counts.reshape(-1)[np.asarray(value["at"], np.int64)] = value["counts"]
        return self


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency: bucket i holds `[LOWEST_S * 2**(i/16), LOWEST_S * 2**((i+1)/16))`."""
    if latency_s <= LOWEST_S:
        return 0
    return min(WIDTH - 1, int(math.log2(latency_s / LOWEST_S) * STEPS))
