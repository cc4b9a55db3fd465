"""Bring outcomes from the runner's thread to the server's loop, waking the loop once for a whole batch.

Thread: `put` on the runner's thread (or any); `Waiting.finish` is called on the loop's.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from ..serving.port import Outcome


class Waiting(Protocol):
    """Who waits for an outcome."""

    def finish(self, outcome: Outcome) -> None:
        """Called once, on the loop."""


class Completions:
    """The way back into one loop.

    Args:
        loop: the server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ready: list[tuple[Waiting, Outcome]] = []
        self._is_awake = False

    def put(self, waiting: Waiting, outcome: Outcome) -> None:
        """Pass `outcome` to `waiting` on the loop; does nothing once the loop is closed."""
        with self._lock:
            self._ready.append((waiting, outcome))
            if self._is_awake:
                return
            self._is_awake = True
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop was closed: nobody waits any more
            self._ready.clear()

    def _drain(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, []
            self._is_awake = False
        for waiting, outcome in ready:
            waiting.finish(outcome)
