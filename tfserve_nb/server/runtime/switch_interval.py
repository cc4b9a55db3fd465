"""The interpreter's thread switch interval, shortened while a server shares the process with the user's cells.

A cell of pure Python gives the interpreter away only when another thread has waited for the switch interval, which is
5 ms by default: a request that changes threads a few times waits for each. With 0.1 ms it waits a fiftieth of that.

Thread: any; a lock guards the count of servers.
"""

from __future__ import annotations

import sys
import threading

SHORT_S = 0.0001


class _State:
    """How many servers run, and the interval to go back to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_servers = 0
        self.before_s = 0.0


_state = _State()


def shorten() -> None:
    """A server starts."""
    with _state.lock:
        _state.num_servers += 1
        if _state.num_servers == 1:
            _state.before_s = sys.getswitchinterval()
            sys.setswitchinterval(min(SHORT_S, _state.before_s))


def unshorten() -> None:
    """A server has stopped; the last one puts the interval back, unless the user changed it meanwhile."""
    with _state.lock:
        _state.num_servers -= 1
        if _state.num_servers == 0 and abs(sys.getswitchinterval() - SHORT_S) < 1e-6:
            sys.setswitchinterval(_state.before_s)
