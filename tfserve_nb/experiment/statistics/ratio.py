"""Whether the arms got the shares that they should have: the sequential test for a sample-ratio mismatch.

With n units of which b went to B, and the share s that B should get, the hypothesis "every unit goes to B with
probability s" is tested against "with some other probability", spread as Beta(K s, K (1 - s)):

    evidence = Beta(K s + b, K (1 - s) + n - b) / Beta(K s, K (1 - s)) / (s^b (1 - s)^(n - b))

It is a martingale under the hypothesis, so `1 / evidence` is an always-valid p-value. When a canary step changes s, a
new segment begins; evidence of segments is multiplied.

The unit is what was assigned independently of everything else: a client's key, when it is seen first (its later
requests follow it, so they add nothing), or a request without a key. Units are known when they are answered, a whole
batch of one arm at a time; those that came together with requests that are still being answered are left out until
these have had `PATIENCE` times the longest latency. So a batch is no mismatch, and requests that are never answered
are one.

Assumptions: shares of keys are shares of the hash's range; responses are not lost in one arm only. That something
breaks this is what the test is for. Source: M. Lindon, A. Malek, "Anytime-Valid Inference for Multinomial Count Data",
NeurIPS 2022, eq. 4. The rule to trust no result below p = 0.001: A. Fabijan et al., "Diagnosing Sample Ratio Mismatch
in Online Controlled Experiments", KDD 2019.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import math
from collections.abc import Mapping
from typing import Any  # JSON

import numpy as np

from ..plan import ARMS

CONCENTRATION = 200.0
"""How near to the right share the alternative lies: with 200, within about 7 points of 50 %."""
PATIENCE = 4.0
LONG_AGO_S = 1e300
FORGETTING = 0.998
"""By how much the longest latency counts less after each request."""
LEAST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
MOST_KEYS = 10_000
"""Keys that are remembered; those that come later are not counted, which is fair to both arms."""


class Segment:
    """Units that came while B's share was the same."""

    __slots__ = ("counts", "share", "start_s")

    def __init__(self, start_s: float, share: float, counts: tuple[int, int] = (0, 0)) -> None:
        self.start_s = start_s
        self.share = share
        self.counts = list(counts)


class Assigned:
    """Counts of independent units by arm.

    Args:
        share: what B gets at first, 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._segments = [Segment(-LONG_AGO_S, share)]
        self._keys: set[int] = set()
        self._early: list[tuple[float, int]] = []
        self._longest_s = 0.0
        self.has_keys = False

    def set_share(self, share: float, at_s: float) -> None:
        """B gets another share from now on."""
        if share != self._segments[-1].share:
            self._segments.append(Segment(at_s, share))

    def add(self, arm: str, came_s: float, at_s: float, key: str) -> None:
        """A request that was assigned is answered.

        Args:
            arm: `a` or `b`.
            came_s: when it came, in seconds.
            at_s: when it was answered.
            key: the client's key, or "".
        """
        self._longest_s = max(at_s - came_s, FORGETTING * self._longest_s)
        if key:
            self.has_keys = True
            digest = int.from_bytes(
                hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
            )
            if digest in self._keys or len(self._keys) >= MOST_KEYS:
                return
            self._keys.add(digest)
        heapq.heappush(self._early, (came_s, ARMS.index(arm)))
        self.settle(at_s)

    def settle(self, now_s: float) -> None:
        """Count those that came so long ago that what came with them must be answered by now."""
        until_s = now_s - min(max(LEAST_WAIT_S, PATIENCE * self._longest_s), LONGEST_WAIT_S)
        while self._early and self._early[0][0] <= until_s:
            came_s, arm = heapq.heappop(self._early)
            self._segments[self._place(came_s)].counts[arm] += 1

    def _place(self, came_s: float) -> int:
        """The number of the segment that a time lies in."""
        return next(place for place, one in reversed(list(enumerate(self._segments))) if came_s >= one.start_s)

    def counts(self) -> tuple[int, int]:
        """Units of A and B."""
        return sum(one.counts[0] for one in self._segments), sum(one.counts[1] for one in self._segments)

    def expected(self) -> tuple[float, float]:
        """How many units A and B should have."""
        expected_b = sum(one.share * sum(one.counts) for one in self._segments)
        return sum(self.counts()) - expected_b, expected_b

    def p_value(self) -> float:
        """Always-valid p-value of "the shares are as they should be"."""
        total = sum(log_evidence(one.counts[0], one.counts[1], one.share) for one in self._segments)
        return math.exp(-max(0.0, total))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads; those that are not counted yet count there."""
        counts = [list(one.counts) for one in self._segments]
        for came_s, arm in self._early:
            counts[self._place(came_s)][arm] += 1
        keys = np.fromiter(self._keys, np.uint64, len(self._keys))
        return {
            "segments": [[one.start_s, one.share, n] for one, n in zip(self._segments, counts, strict=True)],
            "keys": base64.b64encode(keys.tobytes()).decode(),
            "has_keys": self.has_keys,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Assigned:
        """The inverse of `to_json`."""
        self = cls(0.0)
        self._segments = [Segment(start_s, share, tuple(counts)) for start_s, share, counts in value["segments"]]
        self._keys = set(np.frombuffer(base64.b64decode(value["keys"]), np.uint64).tolist())
        self.has_keys = bool(value["has_keys"])
        return self


def log_evidence(num_a: int, num_b: int, share: float) -> float:
    """Logarithm of the evidence against "each unit goes to B with probability `share`"."""
    if share <= 0 or share >= 1:
        # One arm gets nothing: a few that came while the routing changed must not count as proof of anything.
        return 0.0
    a, b = CONCENTRATION * (1 - share), CONCENTRATION * share
    mixture = _log_beta(a + num_a, b + num_b) - _log_beta(a, b)
    return mixture - num_a * math.log(1 - share) - num_b * math.log(share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
