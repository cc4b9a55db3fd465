"""Shares of the traffic that always sum to 100, whichever of them is moved.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping


def rebalanced(shares: Mapping[int, int], version: int, percent: int) -> dict[int, int]:
    """Give one version a share; the others keep their proportions in what remains.

    Args:
        shares: version -> percent of all that take part, `version` among them.
        version: the one that is moved.
        percent: its new share, 0 to 100.

    Returns:
        Whole percents that sum to 100 (largest remainder method). The only version gets 100; when the others had
        nothing so far they share equally.

    Example:
        >>> rebalanced({1: 50, 2: 30, 3: 20}, 1, 90)
        {1: 90, 2: 6, 3: 4}
    """
    others = {other: share for other, share in shares.items() if other != version}
    if not others:
        return {version: 100}
    percent = min(100, max(0, percent))
    left = 100 - percent
    before = sum(others.values())
    exact = {other: left * (share / before if before else 1 / len(others)) for other, share in others.items()}
    whole = {other: int(value) for other, value in exact.items()}
    missing = left - sum(whole.values())
    for other in sorted(exact, key=lambda one: (whole[one] - exact[one], one))[:missing]:
        whole[other] += 1
    return {one: percent if one == version else whole[one] for one in shares}


def whole_shares(traffic: Mapping[int, float], versions: tuple[int, ...]) -> dict[int, int]:
    """The traffic in whole percents, 0 for versions without any."""
    return {version: round(traffic.get(version, 0.0)) for version in versions}
