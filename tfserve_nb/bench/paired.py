"""How latencies of two versions relate that got the same requests at the same times.

Thread: any; pure functions.
"""

from __future__ import annotations

import math

import numpy as np

from .compare import COMPARED, Effect
from .statistics import CONFIDENCE, FEWEST

NUM_DRAWS = 1000
MAX_NUMBERS = 4_000_000
"""Numbers that are drawn at most, to stay below a second."""


def paired_effects(a_s: np.ndarray, b_s: np.ndarray, seed: int = 0) -> tuple[Effect, ...]:
    """The ratio of each percentile that there are requests enough for, with a circular block bootstrap.

    Requests that follow each other share batches and what the machine was doing, so blocks of about √n neighbours are
    drawn and not single requests; the same blocks of both versions, since both had the same requests at the same times
    (Politis & Romano 1992, "A circular block-resampling procedure for stationary data"). What was different for one
    version's whole run, such as another program that woke up, is not in the interval.

    Args:
        a_s: latencies of the one version in the order of the schedule; seconds, float64 `(n,)`.
        b_s: those of the other, of the same requests.
        seed: of the draws.
    """
    n = len(a_s)
    shown = [quantile for quantile in COMPARED if n >= FEWEST[quantile]]
    if not shown:
        return ()
    block = max(1, round(math.sqrt(n)))
    num_draws = max(100, min(NUM_DRAWS, MAX_NUMBERS // n))
    starts = np.random.default_rng(seed).integers(0, n, size=(num_draws, math.ceil(n / block)))
    places = ((starts[:, :, np.newaxis] + np.arange(block)) % n).reshape(num_draws, -1)[:, :n]
    drawn_a, drawn_b = a_s[places], b_s[places]
    tail = (1 - CONFIDENCE) / 2
    found = []
    for quantile in shown:
        ratio = _quantile(b_s, quantile) / _quantile(a_s, quantile)
        ratios = _quantile(drawn_b, quantile) / _quantile(drawn_a, quantile)
        low, high = np.quantile(ratios, (tail, 1 - tail))
        found.append(Effect(quantile, float(ratio), float(low), float(high), n))
    return tuple(found)


def _quantile(values: np.ndarray, quantile: float) -> np.ndarray:
    """The sample of rank `ceil(q n)` along the last axis, as everywhere here."""
    found: np.ndarray = np.maximum(np.quantile(values, quantile, axis=-1, method="inverted_cdf"), 1e-9)
    return found
