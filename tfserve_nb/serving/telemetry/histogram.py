"""Histograms of latencies with logarithmic buckets, and the percentiles that can be read from them.

Thread: any; pure functions.
"""

from __future__ import annotations

import math

import numpy as np

LOWEST_S = 10e-6
STEPS_PER_OCTAVE = 8
NUM_BUCKETS = 200
"""Buckets of ratio 2**(1/8): 10 µs to 5 minutes, each percentile within ±4.5 % of the truth."""

FEWEST_SAMPLES = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662}
"""Samples below which a percentile is hidden: with fewer, a 99 % binomial bound that allows one sample above the
percentile cannot be met (the rule of MLPerf LoadGen's early stopping; its figure for p99 is 662)."""


def bucket_of(latency_s: float) -> int:
    """The histogram bucket of a latency: bucket i holds `[LOWEST_S * 2**(i/8), LOWEST_S * 2**((i+1)/8))`."""
    if latency_s <= LOWEST_S:
        return 0
    return min(NUM_BUCKETS - 1, int(math.log2(latency_s / LOWEST_S) * STEPS_PER_OCTAVE))


def counts_of(latencies_s: np.ndarray) -> np.ndarray:
    """A histogram.

    Args:
        latencies_s: seconds, shape `(n,)`, float64.

    Returns:
        Samples of each bucket, shape `(NUM_BUCKETS,)`, int64.
    """
    octaves = np.log2(np.maximum(latencies_s, LOWEST_S) / LOWEST_S)
    buckets = np.minimum((octaves * STEPS_PER_OCTAVE).astype(np.int64), NUM_BUCKETS - 1)
    return np.bincount(buckets, minlength=NUM_BUCKETS)


def edges_ms() -> np.ndarray:
    """The bounds of the buckets in milliseconds, shape `(NUM_BUCKETS + 1,)`."""
    return 1e3 * LOWEST_S * 2 ** (np.arange(NUM_BUCKETS + 1) / STEPS_PER_OCTAVE)


def percentile_s(counts: np.ndarray, quantile: float) -> float | None:
    """A percentile of one histogram, in seconds; None when there are too few samples, see `percentiles_ms`."""
    (found,) = percentiles_ms(np.cumsum(counts)[None, :], quantile)
    return None if math.isnan(found) else float(found) * 1e-3


def percentiles_ms(cumulated: np.ndarray, quantile: float, first_bucket: int = 0) -> np.ndarray:
    """A percentile of each of several histograms.

    Args:
        cumulated: samples up to each bucket, shape `(n, buckets)`, any integer type.
        quantile: between 0 and 1; a key of `FEWEST_SAMPLES`.
        first_bucket: the number of the first column's bucket, when the empty ones before it were left out.

    Returns:
        Milliseconds, shape `(n,)`: the geometric middle of the bucket that holds the sample of rank
        `ceil(quantile * samples)`, or NaN where there are fewer samples than `FEWEST_SAMPLES[quantile]`.
    """
    num_samples = cumulated[:, -1]
    # Rounding must not make the 133rd of 140 samples (0.95 * 140) the 134th.
    ranks = np.ceil(quantile * num_samples - 1e-9)
    buckets = first_bucket + (cumulated < ranks[:, None]).sum(axis=1)
    found = 1e3 * LOWEST_S * 2 ** ((buckets + 0.5) / STEPS_PER_OCTAVE)
    return np.where(num_samples < FEWEST_SAMPLES[quantile], np.nan, found)
