"""The server's log: a bounded ring in memory, and the numbers of the internal errors that it explains.

Nothing is printed into the user's cells; `tfserve-nb serve` prints warnings and errors on its standard error.

Thread: any; `logging` has its own locks, the ring is a `deque`.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque

from ...errors import ServingError

LOG_NAME = "tfserve_nb.server.log"
"""The logger of a server; error texts name it, so that users can read its handler's `lines` or add a handler."""

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


def open_log() -> tuple[logging.Logger, RingHandler]:
    """A logger that writes into a ring only.

    Not propagated: ipykernel prints what reaches the `tornado` and root loggers into cells.
    """
    logger = logging.getLogger(LOG_NAME)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    ring = RingHandler()
    logger.addHandler(ring)
    return logger, ring


def public_error(error: BaseException, log: logging.Logger, where: str) -> ServingError:
    """The error that a client may see: a number for an internal error, which the log explains under this number.

    Args:
        error: what was raised; a `ServingError` is returned as it is.
        log: gets the trace of everything else.
        where: what was being done.
    """
    if isinstance(error, ServingError):
        return error
    number = secrets.token_hex(4)
    log.error("error %s in %s", number, where, exc_info=error)
    return ServingError(f"Internal error {number}; the server's log (Python logger {LOG_NAME}) has the details")
