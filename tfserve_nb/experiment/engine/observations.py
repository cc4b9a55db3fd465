"""Everything that an experiment has observed, in bounded memory.

Thread: one at a time; not thread-safe. Times are seconds since the experiment began, on one monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any  # JSON

import numpy as np

from ...agreement.result import Disagreement
from ...agreement.rows import num_rows, with_rows
from ...agreement.summary import Agreeing, Evidences
from ...types import Tensors
from ..plan import ARMS, Plan
from ..statistics.latency import Strata
from ..statistics.quality import Labelled
from ..statistics.rates import MOST_OF_KEY
from ..statistics.ratio import Assigned
from ..statistics.tail import Blocks
from .findings import Evidence, is_even
from .limits import Windows

OK = "OK"
IGNORED_CODES = frozenset({"CANCELLED", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
"""Codes of failed requests that do not count as failures of a version."""
MOST_FAILING_KEYS = 4096


class Observations:
    """The observations of both arms, in bounded memory.

    Attributes:
        plan: the experiment.
        share_b: what B gets now, 0 to 1.
        assigned: independent units by arm.
        windows: counts of the last windows.

    Args:
        plan: the experiment.
        evidence: loss and activation of the outputs, from the versions' provenance.
    """

    def __init__(self, plan: Plan, evidence: Evidences | None = None) -> None:
        self.plan = plan
        self.share_b = plan.first_percent / 100
        self.assigned = Assigned(self.share_b)
        self.windows = Windows(plan.limits.window_s, plan.limits.windows)
        self._strata = Strata()
        self._blocks = Blocks()
        self._requests = [0, 0]
        self._failed = [0, 0]
        self._failing_keys: Counter[tuple[str, str]] = Counter()
        self._agreeing = Agreeing(plan.agreement, evidence)
        self._labelled = (Labelled(), Labelled())

    def set_percent(self, percent: float, at_s: float) -> None:
        """B gets another share of the requests from now on, as at a canary step.

        Args:
            percent: 0 to 100.
            at_s: when the routing changed.
        """
        was_even, self.share_b = is_even(self.share_b), percent / 100
        self.assigned.set_share(self.share_b, at_s)
        self._strata.close()
        if was_even != is_even(self.share_b):
            # Times of a version that had too little to do are no measure of it.
            self._strata.forget()
            self._blocks.forget(at_s)

    def add_request(self, arm: str, at_s: float, latency_s: float, code: str, key: str, is_assigned: bool) -> None:
        """A request was answered or failed.

        Args:
            arm: `a` or `b`.
            at_s: when it was answered.
            latency_s: from its arrival to its response.
            code: gRPC code name, `OK` for an answered request.
            key: the client's key, or "".
            is_assigned: whether the traffic split chose the version; others are counted for limits only.
        """
        number = ARMS.index(arm)
        if is_assigned:
            self.assigned.add(arm, at_s - latency_s, at_s, key)
        if code in IGNORED_CODES:
            return
        has_failed = code != OK
        if has_failed and key and self._fails_often(arm, key):
            return
        self._count(number, at_s, has_failed)
        window = self.windows.at(at_s)
        slo_ms = self.plan.limits.slo_p99_ms
        if number and not has_failed:
            window.answered_b += 1
            window.slow_b += slo_ms is not None and 1e3 * latency_s > slo_ms
        if is_assigned:
            self._requests[number] += 1
            self._failed[number] += has_failed
            if not has_failed:
                self._blocks.add(arm, at_s, latency_s)

    def _count(self, number: int, at_s: float, has_failed: bool) -> None:
        """Count a request for the limit on errors."""
        window = self.windows.at(at_s)
        if number:
            window.requests_b += 1
            window.failed_b += has_failed
        else:
            window.requests_a += 1
            window.failed_a += has_failed

    def _fails_often(self, arm: str, key: str) -> bool:
        """Whether a client has failed so often that another failure of it adds nothing."""
        known = (arm, key)
        if known not in self._failing_keys and len(self._failing_keys) >= MOST_FAILING_KEYS:
            return False
        self._failing_keys[known] += 1
        return self._failing_keys[known] > MOST_OF_KEY

    def add_batch(self, arm: str, at_s: float, size: int, run_s: float, is_background: bool) -> None:
        """A batch was run.

        Args:
            arm: `a` or `b`.
            at_s: when it was done.
            size: rows that the model got, padding included.
            run_s: how long the run took.
            is_background: whether it held copies, which run when nothing else does. They are compared only when B gets
                nothing else.
        """
        if not is_background or not self.plan.first_percent:
            self._strata.add(arm, at_s, size, run_s)

    def add_outputs(self, arm: str, at_s: float, outputs: Tensors) -> None:
        """Check outputs that a client got for NaN and numbers outside the allowed range.

        Args:
            arm: `a` or `b`.
            at_s: when.
            outputs: name -> array `(n, ...)`.
        """
        rows = num_rows(outputs)
        self._count_odd(arm == "b", at_s, odd_rows(outputs, rows), self._outside(outputs, rows))

    def add_pair(
        self,
        at_s: float,
        inputs: Tensors,
        outputs_a: Tensors | None,
        outputs_b: Tensors | None,
        *,
        copied_to: str = "b",
    ) -> None:
        """Both versions got the same rows, one of them from a client and the other as a copy.

        Args:
            at_s: when.
            inputs: name -> array `(n, ...)`.
            outputs_a: what A predicted, or None when it failed.
            outputs_b: what B predicted, or None when it failed.
            copied_to: `a` or `b`, which got the copy. What clients got is checked by `add_outputs`.
        """
        self._count(0, at_s, has_failed=outputs_a is None)
        self._count(1, at_s, has_failed=outputs_b is None)
        if outputs_a is None or outputs_b is None:
            return
        rows = num_rows(inputs)
        agrees = self._agreeing.add(inputs, outputs_a, outputs_b, rows, at_s)
        window = self.windows.at(at_s)
        window.pairs += rows
        window.differing += int((~agrees).sum())
        copied, answered = (outputs_a, outputs_b) if copied_to == "a" else (outputs_b, outputs_a)
        own_rows = num_rows(copied)
        odd = odd_rows(copied, own_rows)
        if num_rows(answered) == own_rows:  # inputs that make every version predict NaN are neither one's fault
            odd &= ~odd_rows(answered, own_rows)
        self._count_odd(copied_to == "b", at_s, odd, self._outside(copied, own_rows))

    def _outside(self, outputs: Tensors, rows: int) -> np.ndarray:
        """Rows with a finite number outside the allowed range."""
        bounds = self.plan.limits.output_range
        return np.zeros(rows, bool) if bounds is None else odd_rows(outputs, rows, bounds)

    def _count_odd(self, is_b: bool, at_s: float, odd: np.ndarray, outside: np.ndarray) -> None:
        bad = outside if self.plan.limits.allow_nan else odd | outside
        window = self.windows.at(at_s)
        if is_b:
            window.rows_b += len(bad)
            window.nonfinite_b += int(bad.sum())
        else:
            window.rows_a += len(bad)
            window.nonfinite_a += int(bad.sum())

    def add_feedback(self, arm: str, key: str, is_right: bool, confidence: float | None) -> None:
        """The right label of a prediction became known.

        Args:
            arm: `a` or `b`, the version that predicted.
            key: the client's key, or "".
            is_right: whether the prediction was right.
            confidence: the prediction's highest score, or None.
        """
        self._labelled[ARMS.index(arm)].add(key, is_right, confidence)

    def disagreements(self, limit: int) -> list[Disagreement]:
        """The rows on which both differed most, the worst first; `at` is in seconds since the experiment began."""
        return list(self._agreeing.worst(limit))

    def latency_counts(self) -> Mapping[str, tuple[int, ...]]:
        """Arm -> histogram of its latencies with the buckets of `serving.histogram`."""
        return {arm: tuple(counts.tolist()) for arm, counts in zip(ARMS, self._blocks.totals(), strict=True)}

    def evidence(self) -> Evidence:
        """The observations that are judged."""
        return Evidence(
            strata=self._strata.sums(),
            blocks=self._blocks,
            failed=(self._failed[0], self._failed[1]),
            requests=(self._requests[0], self._requests[1]),
            labelled=self._labelled,
            agreement=self._agreeing.agreement,
            share_b=self.share_b,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads: all counts, without windows, disagreements and which key did what."""
        return {
            "share_b": self.share_b,
            "assigned": self.assigned.to_json(),
            "strata": self._strata.to_json(),
            "blocks": self._blocks.to_json(),
            "requests": list(self._requests),
            "failed": list(self._failed),
            "agreeing": self._agreeing.to_json(),
            "labelled": [one.to_json() for one in self._labelled],
        }

    @classmethod
    def from_json(cls, plan: Plan, value: Mapping[str, Any], evidence: Evidences | None = None) -> Observations:
        """The inverse of `to_json`."""
        self = cls(plan, evidence)
        self.share_b = value["share_b"]
        self.assigned = Assigned.from_json(value["assigned"])
        self._strata = Strata.from_json(value["strata"])
        self._blocks = Blocks.from_json(value["blocks"])
        self._requests, self._failed = list(value["requests"]), list(value["failed"])
        self._agreeing = Agreeing.from_json(value["agreeing"], plan.agreement, evidence)
        labelled = [Labelled.from_json(one) for one in value["labelled"]]
        self._labelled = (labelled[0], labelled[1])
        return self


def odd_rows(tensors: Tensors, rows: int, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """Rows with NaN or infinity, or with a number outside the bounds; bool `(rows,)`."""
    odd = np.zeros(rows, bool)
    for array in tensors.values():
        if array.dtype.kind not in "fiu":
            continue
        own = with_rows(array, rows)
        flat = own.reshape(len(own), own.size // max(1, len(own)))
        bad = ~np.isfinite(flat) if bounds is None else (flat < bounds[0]) | (flat > bounds[1])
        odd |= bad.any(axis=1)
    return odd
