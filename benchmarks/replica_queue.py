"""Replicas that answer what waits in one turn, as an event simulation: how long requests take at some rate.

Requests come at random times (a Poisson stream). Each goes to the one of two replicas, drawn at random, that has fewer
requests. A replica that is free takes all that wait for it, up to a limit, and answers them together after a time
that grows with their number. For one replica this is the queue with bulk service of N. T. J. Bailey, "On queueing
processes with bulk service", Journal of the Royal Statistical Society B 16 (1954); the choice of two is that of
M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE Transactions on Parallel and Distributed
Systems 12 (2001), and of Ray Serve's router.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

MAX_BATCH = 1000
"""As `tfserve-nb serve`."""

WARM_UP = 0.1
"""Share of the requests at the begin that are not counted: the queues begin empty."""


@dataclass(frozen=True)
class Cost:
    """What a turn of a replica takes.

    Attributes:
        turn_s: however many requests it answers.
        request_s: for each of them.
    """

    turn_s: float
    request_s: float

    @property
    def most(self) -> float:
        """Requests per second that a replica could answer at most."""
        return 1 / self.request_s


@dataclass
class _Replica:
    waiting: deque[float]
    free_at: float = 0.0
    running: int = 0

    def ongoing(self, now: float) -> int:
        """Requests that wait or are being answered."""
        return len(self.waiting) + (self.running if self.free_at > now else 0)

    def advance(self, now: float, cost: Cost, max_batch: int, taken: list[float]) -> None:
        """Carry out the turns that begin until now."""
        while self.waiting:
            start = max(self.free_at, self.waiting[0])
            if start > now:
                return
            batch = [self.waiting.popleft()]
            while self.waiting and self.waiting[0] <= start and len(batch) < max_batch:
                batch.append(self.waiting.popleft())
            self.running, self.free_at = len(batch), start + cost.turn_s + cost.request_s * len(batch)
            taken += [self.free_at - arrived for arrived in batch]


def latencies(
    rate: float, replicas: int, cost: Cost, *, requests: int = 20_000, max_batch: int = MAX_BATCH, seed: int = 20
) -> np.ndarray:
    """How long requests take.

    Args:
        rate: requests per second, all replicas together.
        replicas: how many there are.
        cost: what a turn takes.
        requests: how many are simulated.
        max_batch: most requests of a turn.
        seed: of the random numbers.

    Returns:
        Seconds, of those after the warm-up, in the order in which they were answered.
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, requests)).tolist()
    pairs = random.integers(0, replicas, (requests, 2)).tolist()
    all_replicas = [_Replica(deque()) for _ in range(replicas)]
    taken: list[float] = []
    for now, pair in zip(arrivals, pairs, strict=True):
        first, second = (all_replicas[place] for place in pair)
        first.advance(now, cost, max_batch, taken)
        second.advance(now, cost, max_batch, taken)
        chosen = first if first.ongoing(now) <= second.ongoing(now) else second
        chosen.waiting.append(now)
    for one in all_replicas:
        one.advance(math.inf, cost, max_batch, taken)
    return np.array(taken[int(WARM_UP * requests) :])


def needed(rate: float, cost: Cost, limit_s: float, *, at_least: int = 1, at_most: int = 64) -> int | None:
    """The smallest number of replicas with which 99 % of the requests take no longer than a limit.

    Args:
        rate: requests per second.
        cost: what a turn takes.
        limit_s: the limit in seconds.
        at_least: where the search begins; for a lower rate so many were needed.
        at_most: where it ends.

    Returns:
        The number, or None when so many are not enough.
    """
    for replicas in range(max(at_least, math.ceil(rate / cost.most)), at_most + 1):
        # Longer where more replicas share the requests: each has to see enough of them.
        seen = latencies(rate, replicas, cost, requests=max(10_000, 600 * replicas))
        if np.percentile(seen, 99) <= limit_s:
            return replicas
    return None
