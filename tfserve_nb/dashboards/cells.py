"""Which cells ran in this kernel, and when: what else kept the machine busy, for the charts' time axes.

The notebook's side writes it (`notebook.cells`) from the moment a dashboard is shown.

Thread: written by the kernel's main thread, read by any; appending to a bounded deque needs no lock.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

MAX_CELLS = 200
SHORTEST_S = 0.2
"""Cells that took less are not worth a mark."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """One run of a cell.

    Attributes:
        text: its first line.
        started_at: seconds since the epoch.
        ended_at: likewise; None while it runs.
    """

    text: str
    started_at: float
    ended_at: float | None = None


class CellRuns:
    """The cells of this kernel that ran lately."""

    def __init__(self) -> None:
        self._ended: deque[CellRun] = deque(maxlen=MAX_CELLS)
        self._running: CellRun | None = None

    def start(self, text: str) -> None:
        """A cell starts."""
        self._running = CellRun(text, time.time())

    def end(self) -> None:
        """It ended."""
        running, self._running = self._running, None
        now = time.time()
        if running is not None and now - running.started_at >= SHORTEST_S:
            self._ended.append(CellRun(running.text, running.started_at, now))

    def since(self, at: float) -> tuple[CellRun, ...]:
        """Those that ran after a moment, the oldest first."""
        running = self._running
        now = [running] if running is not None and time.time() - running.started_at >= SHORTEST_S else []
        return (*(one for one in tuple(self._ended) if (one.ended_at or 0) >= at), *now)


CELL_RUNS = CellRuns()
"""Those of this process."""
