"""Estimates of one queue while it works: how long runs take by size, and how often requests come in.

Medians are tracked by a step up or down for each sample, so one slow run (a pause of the garbage
collector, for example) moves them a little, and they follow a version that becomes slower or faster within tens of
runs.

Thread: none of its own; guarded by the lock of the `Runner`.

Reference: Ma, Muthukrishnan, Sandler, "Frugal Streaming for Estimating Quantiles" (2013); here the steps are a share
of the estimate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

STEP = 1.05
"""How far one sample moves an estimate."""

FEWEST = 5
"""Samples before an estimate is used."""

CERTAINTY = 0.5
"""A request is refused when even this share of the expected time exceeds its deadline."""

PATIENCE = 3.0
"""Typical gaps after which no other request is expected to join a batch."""


class Median:
    """A running median of positive numbers, in constant memory."""

    __slots__ = ("_value", "num_samples")

    def __init__(self) -> None:
        self._value = 0.0
        self.num_samples = 0

    def add(self, sample: float) -> None:
        """One more number; the first few set the scale by their own mean."""
        self.num_samples += 1
        if self.num_samples <= FEWEST:
            self._value += (sample - self._value) / self.num_samples
        elif sample > self._value:
            self._value *= STEP
        elif sample < self._value:
            self._value /= STEP

    @property
    def value(self) -> float | None:
        """The median, or None while there are too few samples."""
        return self._value if self.num_samples >= FEWEST else None

    @property
    def guess(self) -> float:
        """The same from any number of samples; 0 without one."""
        return self._value


class QueuePace:
    """How long runs take and how fast requests come, for one queue."""

    def __init__(self) -> None:
        self._runs: defaultdict[int, Median] = defaultdict(Median)
        self._gaps = Median()
        self._last_s: float | None = None

    def ran(self, size: int, took_s: float) -> None:
        """A run of `size` rows, padding included, took so long."""
        self._runs[size].add(took_s)

    def arrived(self, now_s: float) -> None:
        """A request came in."""
        if self._last_s is not None:
            self._gaps.add(max(1e-7, now_s - self._last_s))
        self._last_s = now_s

    @property
    def run_s(self) -> Mapping[int, float]:
        """Rows of a run -> seconds that it takes, for the sizes that are known."""
        return {size: run.value for size, run in sorted(self._runs.items()) if run.value is not None}

    def run_s_of(self, size: int) -> float | None:
        """The seconds that a run of `size` rows takes; None while that is not known."""
        known = self._runs.get(size)
        return None if known is None else known.value

    def service_s(self, size: int) -> float:
        """The estimated seconds of a run of `size` rows: at least those of smaller runs; 0 when nothing is known."""
        known = self._runs.get(size)
        if known is not None and known.value is not None:
            return known.value
        smaller = [run.value for other, run in self._runs.items() if other < size and run.value is not None]
        return max(smaller, default=0.0)

    def usual_s(self, size: int) -> float:
        """About the seconds of a run of `size` rows, from however few samples there are; 0 without one."""
        return max((run.guess for other, run in self._runs.items() if other <= size), default=0.0)

    def wait_s(self, rows_ahead: int, size: int, full_size: int) -> float:
        """The expected seconds until a request is done.

        Args:
            rows_ahead: rows that wait before it.
            size: rows of its own run.
            full_size: rows of the runs before it.
        """
        return rows_ahead // full_size * self.service_s(full_size) + self.service_s(size)

    def alone_until_s(self) -> float:
        """When no more requests are expected to join: some typical gaps after the last arrival; infinity if unknown."""
        gap_s = self._gaps.value
        if gap_s is None or self._last_s is None:
            return float("inf")
        return self._last_s + PATIENCE * gap_s

    def is_sparse(self, seconds: float) -> bool:
        """Whether requests usually come further apart than `seconds`."""
        gap_s = self._gaps.value
        return gap_s is not None and gap_s > seconds
