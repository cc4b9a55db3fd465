"""Bring outcomes from the runner's thread to the server's loop, waking the loop once for a whole batch.

Thread: `put` on the runner's thread (or any); `Waiting.finish` is called on the loop's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from ...serving.backend import Outcome


class Waiting(Protocol):
    """Who waits for an outcome."""

    def finish(self, outcome: Outcome) -> None:
        """Called once, on the loop."""


class Completions:
    """The way back into one loop. Takes no lock: a deque's ends can be used by two threads at once.

    Args:
        loop: the server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[tuple[Waiting, Outcome]] = deque()
        self._is_awake = False

    def put(self, waiting: Waiting, outcome: Outcome) -> None:
        """Pass `outcome` to `waiting` on the loop; does nothing once the loop is closed."""
        self._ready.append((waiting, outcome))
        if self._is_awake:
            return
        self._is_awake = True
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop was closed, and all that waited with it
            self._ready.clear()

    def _drain(self) -> None:
        # First this, then look: what is put from now on wakes the loop again.
        self._is_awake = False
        ready = self._ready
        while ready:
            waiting, outcome = ready.popleft()
            waiting.finish(outcome)
