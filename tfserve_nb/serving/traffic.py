"""Split the requests that name no version between loaded versions, by weight, and keep clients with their version.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from ..errors import InvalidOption

DEFAULT_KEY_HEADER = "x-tfserve-key"
"""The header (gRPC: metadata) whose value keeps a client with its version."""

_BITS = 64


class Shadow(NamedTuple):
    """A version that gets copies of the requests that others answer.

    Attributes:
        version: its number.
        percent: share of those requests that are copied, above 0 and at most 100.
    """

    version: int
    percent: float = 100.0

    def check(self) -> Shadow:
        """This value, if it is one.

        Raises:
            InvalidOption: if the share is none.
        """
        percent = self.percent
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 < percent <= 100:
            raise InvalidOption(
                f"shadow={percent!r} must be a percentage above 0, at most 100", hint="d.shadow(4, percent=20)"
            )
        return self


def check_weights(weights: Mapping[int, float]) -> dict[int, float]:
    """Percentages per version, zeros left out, newest version last.

    Args:
        weights: version -> percent; they must sum to 100.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """
    for version, percent in weights.items():
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise InvalidOption(
                f"traffic of version {version} is {percent!r}, it must be a percentage from 0 to 100",
                hint="d.set_traffic({1: 90, 2: 10})",
            )
    total = sum(weights.values())
    if abs(total - 100) > 1e-6:
        raise InvalidOption(
            f"traffic {dict(weights)} sums to {total:g}, it must sum to 100", hint="d.set_traffic({1: 90, 2: 10})"
        )
    return {version: float(percent) for version, percent in sorted(weights.items()) if percent > 0}


def choose(weights: Mapping[int, float], draw: float) -> int:
    """The version for one request.

    Args:
        weights: version -> percent, summing to 100, not empty.
        draw: uniform on [0, 1).

    Returns:
        A version, with a probability proportional to its weight.
    """
    left = draw * 100.0
    for version, percent in weights.items():
        left -= percent
        if left < 0:
            return version
    return max(weights)  # the weights' rounding left a hair


def choose_by_key(weights: Mapping[int, float], salt: str, key: str) -> int:
    """The version for all requests of one client.

    Each version draws a number u for the key, uniform on (0, 1), and the smallest -ln(u) / weight wins: the first of
    independent exponential clocks whose rates are the weights, so version v wins with probability weight / sum. A
    version whose weight grows only wins keys and loses none, and no others move.

    Args:
        weights: version -> percent, all above 0, not empty.
        salt: another salt draws anew.
        key: the client.

    Returns:
        A version, always the same for the same arguments.

    Reference: rendezvous hashing (Thaler, Ravishankar, 1998), with weights by the logarithmic method (Schindelhauer,
    Schomaker, 2005).
    """
    return min(weights, key=lambda version: (-math.log(_uniform(salt, version, key)) / weights[version], version))


def _uniform(salt: str, version: int, key: str) -> float:
    """A number on (0, 1) that depends on all three; the salt's length separates it from the key."""
    text = f"{len(salt)}:{salt}:{version}:{key}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(blake2b(text, digest_size=_BITS // 8).digest(), "big")
    return min((number + 0.5) / float(2**_BITS), 1 - 2.0**-53)
