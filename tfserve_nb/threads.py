"""How threads begin: named, daemons, ready or an error, and left alone by debuggers.

Thread: any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import ServerFailed

START_LIMIT_S = 2.0


def start_thread(name: str, work: Callable[[threading.Event], None]) -> threading.Thread:
    """Start a daemon thread; returns when it has reported that it is ready.

    Args:
        name: begins with `tfserve-`.
        work: what it does; sets the event that it gets once it works.

    Raises:
        ServerFailed: if it does not within `START_LIMIT_S` seconds.
    """
    ready = threading.Event()
    thread = threading.Thread(target=work, args=(ready,), name=name, daemon=True)
    hide_from_debuggers(thread)
    thread.start()
    if not ready.wait(START_LIMIT_S):
        raise ServerFailed(f"the thread {name} did not start within {START_LIMIT_S:g} s", hint="restart the kernel")
    return thread


def hide_from_debuggers(thread: threading.Thread) -> None:
    """Let no breakpoint in the notebook stop a thread; ipykernel marks its own threads so."""
    thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
    thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
