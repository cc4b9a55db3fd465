"""Interpreter settings that keep pauses away from requests while servers share the process with the user's cells.

Garbage collection: a full collection visits every object of the process: 0.2 s and more once TensorFlow is imported,
with every request waiting. While servers run, the automatic ones are put off, and `collect_when_idle` collects when no
request is on its way; young objects are collected as ever. Nothing changes for memory that reference counts free, which
is nearly all.

Switching threads: a cell of pure Python gives the interpreter away only when another thread has waited for the switch
interval, which is 5 ms by default: a request that changes threads a few times waits for each. With 0.1 ms it waits a
fiftieth of that.

Thread: any; a lock guards the count of servers. A collection pauses the thread that calls `collect_when_idle`.
"""

from __future__ import annotations

import gc
import sys
import threading
import time

SWITCH_S = 0.0001

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
    """How many servers run, the settings to go back to, and when the last full collection was over."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_servers = 0
        self.user_thresholds = (0, 0, 0)
        self.user_switch_s = 0.0
        self.done_s = 0.0
        self.took_s = 0.0


_state = _State()


def server_starts() -> None:
    """The first server changes the settings."""
    with _state.lock:
        _state.num_servers += 1
        if _state.num_servers > 1:
            return
        _state.user_switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, _state.user_switch_s))
        if gc.isenabled():
            _state.user_thresholds = gc.get_threshold()
            gc.set_threshold(YOUNG, MIDDLE, NEVER)


def server_stopped() -> None:
    """The last server puts the settings back, but for those that the user changed meanwhile."""
    with _state.lock:
        _state.num_servers -= 1
        if _state.num_servers > 0:
            return
        if abs(sys.getswitchinterval() - SWITCH_S) < 1e-6:
            sys.setswitchinterval(_state.user_switch_s)
        if gc.get_threshold() == (YOUNG, MIDDLE, NEVER):
            gc.set_threshold(*_state.user_thresholds)


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
