"""How latencies of two versions relate that got the same requests at the same times, in turns.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bench.comparison import COMPARED, Effect
from ..bench.statistics import CONFIDENCE, FEWEST

NUM_DRAWS = 1000
MAX_NUMBERS = 8_000_000
"""Numbers that are drawn at most, to stay below a second."""


def paired_effects(a_s: Sequence[np.ndarray], b_s: Sequence[np.ndarray], seed: int = 0) -> tuple[Effect, ...]:
    """The ratio of each percentile that there are requests enough for, with a bootstrap over the rounds.

    Requests of one round share batches and what the machine was doing: not they are independent evidence, but rounds.
    So rounds are drawn with replacement, both versions' halves of them together, and the 95 % interval lies between the
    2.5th and the 97.5th percentile of the ratios (the cluster bootstrap: Davison & Hinkley 1997, Bootstrap Methods and
    Their Application, section 3.8). It assumes that one round says nothing about the next, and is too narrow with
    fewer than about ten.

    Args:
        a_s: latencies of the one version in each round; seconds, float64.
        b_s: those of the other.
        seed: of the draws.
    """
    a, b = _Ordered(a_s), _Ordered(b_s)
    shown = [quantile for quantile in COMPARED if min(len(a.values), len(b.values)) >= FEWEST[quantile]]
    if not shown:
        return ()
    num = len(a_s)
    num_draws = max(100, min(NUM_DRAWS, MAX_NUMBERS // max(len(a.values), len(b.values))))
    drawn = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=num_draws)
    once = np.ones((1, num), dtype=np.int64)
    tail = (1 - CONFIDENCE) / 2
    found = []
    for quantile in shown:
        ratio = float((b.quantile(quantile, once) / a.quantile(quantile, once))[0])
        ratios = b.quantile(quantile, drawn) / a.quantile(quantile, drawn)
        low, high = np.quantile(ratios, (tail, 1 - tail))
        found.append(Effect(quantile, ratio, float(low), float(high), num))
    return tuple(found)


class _Ordered:
    """All latencies in order, and which round each is from."""

    def __init__(self, rounds: Sequence[np.ndarray]) -> None:
        values = np.concatenate([np.zeros(0), *rounds])
        order = np.argsort(values, kind="stable")
        self.values = np.maximum(values[order], 1e-9)
        self._rounds = np.repeat(np.arange(len(rounds)), [len(one) for one in rounds])[order]

    def quantile(self, quantile: float, counts: np.ndarray) -> np.ndarray:
        """The sample of rank `ceil(q n)` when each round counts that often.

        Args:
            quantile: between 0 and 1.
            counts: of each round; `(draws, rounds)`.

        Returns:
            `(draws,)`; a draw of rounds without any answer gives the largest.
        """
        cumulated = np.cumsum(counts[:, self._rounds], axis=1)
        wanted = np.ceil(quantile * cumulated[:, -1:] - 1e-9)
        place = np.argmax(cumulated >= np.maximum(wanted, 1), axis=1)
        found: np.ndarray = self.values[place]
        return found
