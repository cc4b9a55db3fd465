"""A server's event loop, long work beside it, and the way back to it for outcomes.

Thread: see each.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ..serving.backend import Outcome

T = TypeVar("T")


class _Here(threading.local):
    """What is known of the thread that asks; to ask asyncio for its loop is a system call each time.

    Attributes:
        is_loop: whether the thread runs a server's loop.
    """

    is_loop = False


_here = _Here()


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop, the fastest, for the thread that calls: it does nothing else from then on."""
    import uvloop  # importing it takes a while, and only servers need it

    _here.is_loop = True
    return uvloop.new_event_loop()


def is_on_loop() -> bool:
    """Whether the caller runs on a server's loop, which others wait for."""
    return _here.is_loop


async def run_in_thread(name: str, work: Callable[[], T]) -> T:
    """Run long work on a new daemon thread and wait for it on the loop; cancelling the wait does not stop the work.

    Args:
        name: the thread's.
        work: anything.

    Returns:
        What it returns.

    Raises:
        Exception: what it raises.
    """
    loop = asyncio.get_running_loop()
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    done = asyncio.Event()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again in the coroutine that waits
            future.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done.wait()
    return future.result()


class Completions:
    """Brings outcomes from the runner's thread to one loop, waking the loop once for a whole batch.

    It takes no lock: a deque's ends can be used by two threads at once.

    Args:
        loop: the server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[tuple[Callable[[Outcome], None], Outcome]] = deque()
        self._is_awake = False

    def put(self, finish: Callable[[Outcome], None], outcome: Outcome) -> None:
        """Call `finish` with an outcome on the loop; does nothing once the loop is closed. Any thread."""
        self._ready.append((finish, outcome))
        if self._is_awake:
            return
        self._is_awake = True
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop was closed, and all that waited with it
            self._ready.clear()

    def _drain(self) -> None:
        # First this, then the deque: what is put from now on wakes the loop again.
        self._is_awake = False
        ready = self._ready
        while ready:
            finish, outcome = ready.popleft()
            finish(outcome)
