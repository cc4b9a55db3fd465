"""What became of each request, as arrays.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # arrays by name

import numpy as np

OK = 200
UNREACHABLE = 0
TIMED_OUT = -1
GRPC = 1000
"""A status of gRPC other than OK is this and its number."""

_GRPC_NAMES = {1: "CANCELLED", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 7: "PERMISSION_DENIED",
               8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 12: "UNIMPLEMENTED", 13: "INTERNAL",
               14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}  # fmt: skip
ARRAYS = ("due_s", "taken_s", "sent_s", "done_s", "status")
"""The arrays of `Samples`."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Requests in the order of their responses; all arrays have shape `(n,)`.

    Attributes:
        due_s: when each was due, in seconds from the start of what is measured (negative: warm-up); float64.
        taken_s: when the generator got to it: how late the generator is itself; float64.
        sent_s: when it was sent, after a wait for a free connection, if there was none; float64.
        done_s: when its response was complete; float64.
        status: HTTP status, or `UNREACHABLE`, `TIMED_OUT`, or `GRPC` and a code; int16.
        reasons: status -> the text of the first response with it.
    """

    due_s: np.ndarray
    taken_s: np.ndarray
    sent_s: np.ndarray
    done_s: np.ndarray
    status: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.due_s)

    @property
    def latency_s(self) -> np.ndarray:
        """From the moment at which each was due to its response: how long a user would have waited."""
        found: np.ndarray = self.done_s - self.due_s
        return found

    def among(self, mask: np.ndarray) -> Samples:
        """Some of them."""
        return Samples(**{name: getattr(self, name)[mask] for name in ARRAYS}, reasons=self.reasons)

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float, float, int]], reasons: Mapping[int, str]) -> Samples:
        """From tuples in the order of the arrays."""
        numbers = np.array(rows, dtype=np.float64).reshape(-1, len(ARRAYS))
        due_s, taken_s, sent_s, done_s = numbers[:, :4].T.copy()
        return cls(due_s, taken_s, sent_s, done_s, numbers[:, 4].astype(np.int16), dict(reasons))


def joined(parts: Sequence[Samples]) -> Samples:
    """All of several, one after the other."""
    if not parts:
        return Samples.of([], {})
    reasons = {status: text for part in reversed(parts) for status, text in part.reasons.items()}
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Samples(**arrays, reasons=reasons)


def status_text(status: int) -> str:
    """A status in words, such as `503`, `timed out` or `UNAVAILABLE`."""
    if status == UNREACHABLE:
        return "no connection"
    if status == TIMED_OUT:
        return "timed out"
    return _GRPC_NAMES.get(status - GRPC, f"gRPC {status - GRPC}") if status >= GRPC else str(status)
