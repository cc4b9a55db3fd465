"""How many files this process may open, and how many of them may be clients.

A server in a notebook shares the limit with the user's cells and does not change it; a process of our own raises it.

Thread: any.

Reference: getrlimit(2), RLIMIT_NOFILE.
"""

from __future__ import annotations

import contextlib
import resource

HTTP_SHARE = 0.4
GRPC_SHARE = 0.2
BACKLOG_SHARE = 0.2
"""Clients that connect at once are accepted at once, before those that are too many are closed. The rest of the files
is left to the notebook."""

MOST = 65_536
"""What own processes ask for at most: some libraries visit every possible file."""


def limit() -> int:
    """How many files may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def share(most: int, part: float) -> int:
    """How many clients there may be.

    Args:
        most: by the settings.
        part: of all files, such as `HTTP_SHARE`.
    """
    return max(1, min(most, int(limit() * part)))


def raise_limit() -> None:
    """Allow this process as many files as the system lets it have; for processes of our own only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
