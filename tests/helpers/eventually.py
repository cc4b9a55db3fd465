"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 60.0
"""What happens within milliseconds on an idle machine may take that long on a busy one. A test's limit is longer."""
PAUSE_S = 0.01

T = TypeVar("T")


def eventually(is_so: Callable[[], T], limit_s: float = PATIENCE_S) -> T:
    """Wait until a condition holds.

    Args:
        is_so: the condition; what it raises is raised.
        limit_s: how long to wait.

    Returns:
        The condition's value, which is true.

    Raises:
        AssertionError: if it does not hold in time, with its last value.
    """
    until_s = time.perf_counter() + limit_s
    while not (value := is_so()):
        if time.perf_counter() > until_s:
            raise AssertionError(f"did not come true within {limit_s:g} s, and is still {value!r}")
        time.sleep(PAUSE_S)
    return value
