"""How many bytes all unfinished requests of a process may hold together.

Thread: the server's loop.

Reference: malloc_trim(3).
"""

from __future__ import annotations

import contextlib
import ctypes

FREE_BYTES = 64 * 1024
"""Smaller requests are not counted, so that large ones cannot keep them out; their number is bounded by connections."""


TRIM_BYTES = 32 * 1024 * 1024
"""After so many bytes of requests, what the C library keeps for later is worth returning."""


class ByteBudget:
    """Counts what requests hold from the first byte of their body to the end of their response.

    Args:
        most: bytes.

    Attributes:
        num_held: bytes that are held now.
        num_passed: bytes that were held since `give_back_memory` was called last.
    """

    __slots__ = ("most", "num_held", "num_passed")

    def __init__(self, most: int) -> None:
        self.most = most
        self.num_held = 0
        self.num_passed = 0

    def take(self, num_bytes: int) -> bool:
        """Hold some more; False if that is too much."""
        if self.num_held + num_bytes > self.most:
            return False
        self.num_held += num_bytes
        self.num_passed += num_bytes
        return True

    def give_back(self, num_bytes: int) -> None:
        """A request is over."""
        self.num_held -= num_bytes

    def give_back_memory(self) -> None:
        """Return to the system what large requests needed, once there was much of it and none is left."""
        if self.num_held or self.num_passed < TRIM_BYTES:
            return
        self.num_passed = 0
        with contextlib.suppress(OSError, AttributeError):  # not the GNU C library
            ctypes.CDLL(None).malloc_trim(0)

    @property
    def is_full(self) -> bool:
        """Whether no further request of more than `FREE_BYTES` fits."""
        return self.num_held + FREE_BYTES > self.most

    @property
    def refusal(self) -> str:
        """Why a request was refused, in words."""
        return f"the server holds as many bytes of unfinished requests as it may ({self.most}); try again in a second"
