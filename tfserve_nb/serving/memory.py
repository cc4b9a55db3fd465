"""Memory that was freed goes back to the system: glibc keeps most of it otherwise, and versions come and go.

Thread: any; the interpreter is free meanwhile.

Reference: malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Return what the C library holds for later; does nothing where it cannot be told to."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if found is not None:
            trim: Callable[[int], object] = found
            return trim
    return lambda _: 0
