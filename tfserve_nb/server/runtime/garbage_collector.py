"""Keep the garbage collector's long pauses away from requests while a server runs in this process.

A full collection looks at every object of the process: 0.2 s and more once TensorFlow is imported, with every request
waiting. While servers run, the automatic ones are put off, and this module collects when no request is on its way;
young objects are collected as ever. Nothing changes for memory that reference counts free, which is nearly all.

Thread: any; the pause happens on the thread that calls `collect_when_idle`.
"""

from __future__ import annotations

import gc
import threading
import time

YOUNG = 20_000
"""Objects more than were freed before young ones are collected: a few hundred requests on their way are no garbage."""

MIDDLE = 20
NEVER = 1_000_000

PENDING = 2
"""Collections of middle-aged objects after which a full one is worth its while."""

SHARE = 0.05
"""Most of the time that full collections may take."""

LONGEST_S = 300.0
"""How long a server without an idle moment goes without a full collection."""


class _State:
    """How many servers run, the thresholds to go back to, and when the last full collection was over."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_servers = 0
        self.before = (0, 0, 0)
        self.done_s = 0.0
        self.took_s = 0.0


_state = _State()


def put_off() -> None:
    """A server starts."""
    with _state.lock:
        _state.num_servers += 1
        if _state.num_servers == 1 and gc.isenabled():
            _state.before = gc.get_threshold()
            gc.set_threshold(YOUNG, MIDDLE, NEVER)


def resume() -> None:
    """A server has stopped; the last one puts the thresholds back, unless the user changed them meanwhile."""
    with _state.lock:
        _state.num_servers -= 1
        if _state.num_servers == 0 and gc.get_threshold() == (YOUNG, MIDDLE, NEVER):
            gc.set_threshold(*_state.before)


def collect_when_idle(*, is_idle: bool) -> None:
    """Collect everything if it is due and no request runs; called now and then by a server."""
    now_s = time.perf_counter()
    waited_s = now_s - _state.done_s
    is_due = gc.get_count()[2] >= PENDING and waited_s > _state.took_s / SHARE
    if gc.get_threshold() != (YOUNG, MIDDLE, NEVER) or not is_due or not (is_idle or waited_s > LONGEST_S):
        return
    gc.collect()
    _state.done_s = time.perf_counter()
    _state.took_s = _state.done_s - now_s
