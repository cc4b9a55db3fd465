"""Work that takes long, waited for on the server's loop without holding it up.

Thread: `run_in_thread` on a loop; the work on a daemon thread of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(name: str, work: Callable[[], T]) -> T:
    """Run `work` on a new thread and wait for it; cancelling the wait does not stop it.

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
