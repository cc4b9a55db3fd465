"""Bring outcomes from the runner's thread to the server's loop, waking the loop once for a whole batch.

Thread: `on_done` on the runner's thread (or any); futures are resolved on the loop's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from ..serving.port import Outcome


class Completions:
    """The way back into one loop.

    Args:
        loop: the server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ready: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._is_awake = False

    def put(self, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        """Resolve `future` with `outcome` on the loop; does nothing once the loop is closed."""
        with self._lock:
            self._ready.append((future, outcome))
            if self._is_awake:
                return
            self._is_awake = True
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop was closed: nobody waits any more
            self._ready.clear()

    def _drain(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, deque()
            self._is_awake = False
        for future, outcome in ready:
            if not future.done():
                future.set_result(outcome)
