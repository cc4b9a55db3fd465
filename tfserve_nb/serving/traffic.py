"""Split the requests that name no version between loaded versions, by weight.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidOption


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
