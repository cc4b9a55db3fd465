"""What the generator's clients share: the interface of a client, and the log of its requests.

Thread: the generator's loop.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from ...serialization import to_json
from .samples import Samples


class Client(Protocol):
    """Sends requests over one protocol."""

    async def open(self, num: int) -> None:
        """Connect."""

    def send(self, due_s: float, taken_s: float) -> None:
        """Send a request now, or as soon as a connection is free."""

    @property
    def num_open(self) -> int:
        """Requests without a response."""

    def expire(self, before_s: float) -> None:
        """Give up what was due before a moment."""

    def close(self) -> None:
        """Drop all connections."""


class Log:
    """Collects what became of requests and writes it.

    Attributes:
        on_done: called after each request, in a closed loop.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, float, int]] = []
        self.reasons: dict[int, str] = {}
        self.start_s = 0.0
        self.on_done: Callable[[], None] = lambda: None

    def done(self, due_s: float, taken_s: float, sent_s: float, status: int) -> None:
        """A request is over."""
        self.rows.append((due_s, taken_s, sent_s, time.perf_counter(), status))
        self.on_done()

    def explain(self, status: int, text: str) -> None:
        """Why requests end with a status."""
        self.reasons.setdefault(status, text[:300])

    def write(self) -> None:
        """One line with what is new."""
        rows, self.rows = self.rows, []
        start_s = self.start_s
        moved = [(a - start_s, b - start_s, c - start_s, d - start_s, status) for a, b, c, d, status in rows]
        write_line(to_json(Samples.of(moved, self.reasons)))


def write_line(value: dict[str, Any]) -> None:
    """Send a message to the process that started this one: a line of JSON on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
