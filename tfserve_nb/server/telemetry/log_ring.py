"""The server's log: a bounded ring in memory. Nothing is printed into the user's cells.

Thread: any; `logging` has its own locks, the ring is a `deque`.
"""

from __future__ import annotations

import logging
from collections import deque

RING_LINES = 500


class RingHandler(logging.Handler):
    """Keeps the newest formatted records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=RING_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines.append(self.format(record))


def open_log(name: str) -> tuple[logging.Logger, RingHandler]:
    """A logger that writes into a ring only.

    Not propagated: ipykernel prints what reaches the `tornado` and root loggers into cells.
    """
    logger = logging.getLogger(f"tfserve_nb.server.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    ring = RingHandler()
    logger.addHandler(ring)
    return logger, ring
