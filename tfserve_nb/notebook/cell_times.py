"""Notes which cells run, so that charts can show what else kept the kernel busy; only once a dashboard was shown.

Thread: the kernel's main thread.
"""

from __future__ import annotations

from typing import Any  # IPython's events

from IPython.core.interactiveshell import InteractiveShell

from ..dashboards.cells import CELL_RUNS

MAX_CHARS = 80
_watched: list[InteractiveShell] = []


def watch(shell: InteractiveShell) -> None:
    """Note cells from now on. Idempotent."""
    if shell not in _watched:
        _watched.append(shell)
        shell.events.register("pre_run_cell", _started)
        shell.events.register("post_run_cell", _ended)


def unwatch(shell: InteractiveShell) -> None:
    """The inverse of `watch`."""
    if shell in _watched:
        _watched.remove(shell)
        shell.events.unregister("pre_run_cell", _started)
        shell.events.unregister("post_run_cell", _ended)


def _started(info: Any) -> None:
    lines = [line.strip() for line in str(info.raw_cell or "").splitlines()]
    CELL_RUNS.start(next((line for line in lines if line), "a cell")[:MAX_CHARS])


def _ended(_: Any) -> None:
    CELL_RUNS.end()
