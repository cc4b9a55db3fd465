"""Whether another process of ours is still alive: one that is stopped or hangs takes requests and never answers.

What counts is how often it did not answer, not for how long: where this process gets little time too, because the
machine is busy or was asleep, it asks less often.

Thread: any one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

PAUSE_S = 2.0
"""Between two looks, in seconds."""

ANSWER_S = 10.0
"""How long an answer may take."""

MOST_STOPPED = 4
"""So often in a row a process may be found stopped by a signal: 8 s."""

MOST_SILENT = 6
"""So often in a row it may not answer: a minute and more."""


class VitalSigns:
    """Looks at one process.

    Args:
        pid: the process.
        answers: asks it; may take `ANSWER_S` seconds.
        most_silent: so often in a row it may not answer.
    """

    def __init__(self, pid: int, answers: Callable[[], bool], *, most_silent: int = MOST_SILENT) -> None:
        self._pid = pid
        self._answers = answers
        self._most_silent = most_silent
        self._num_stopped = 0
        self._num_silent = 0

    def are_gone(self) -> bool:
        """Look once more; whether it has not shown any sign of life for too long."""
        if is_stopped(self._pid):
            self._num_stopped += 1
        else:
            self._num_stopped = 0
            self._num_silent = 0 if self._answers() else self._num_silent + 1
        return self._num_stopped >= MOST_STOPPED or self._num_silent >= self._most_silent


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, as far as this system tells."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False
