"""Our own defects, as clients see them: a number, under which the log has the details.

Thread: any.
"""

from __future__ import annotations

import logging
import secrets

from ...errors import ServingError


def as_public(error: BaseException, log: logging.Logger, where: str) -> ServingError:
    """The error that a client may see.

    Args:
        error: whatever was raised; a `ServingError` is returned as it is.
        log: gets the trace of everything else.
        where: what was being done.
    """
    if isinstance(error, ServingError):
        return error
    number = secrets.token_hex(4)
    log.error("error %s in %s", number, where, exc_info=error)
    return ServingError(f"Internal error {number}; the server's log has the details")
