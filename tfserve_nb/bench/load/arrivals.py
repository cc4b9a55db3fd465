"""When requests are due. The whole schedule is made before the first one is sent, and is the same for the same seed.

Thread: any; pure functions.
"""

from __future__ import annotations

import numpy as np

from .schedule import Load


def due_times(load: Load) -> np.ndarray:
    """When the requests of an open loop are due, its warm-up included: seconds from the start; float64, `(n,)`."""
    if load.times_s:
        return np.array(load.times_s)
    assert load.rate is not None  # noqa: S101 - an open loop has one
    return schedule(load.arrivals, load.rate, load.warmup_s + load.seconds, load.seed)


def schedule(kind: str, rate: float, seconds: float, seed: int) -> np.ndarray:
    """The moments at which requests are due.

    Args:
        kind: `poisson`: the gaps are exponential, as of many clients that know nothing of each other (MLPerf
            Inference's Server scenario); `constant`: the gaps are equal.
        rate: requests per second.
        seconds: the length of the schedule.
        seed: of the random gaps.

    Returns:
        Seconds from the start, increasing, all below `seconds`; float64, shape `(n,)`.
    """
    if kind == "constant":
        return np.arange(0.0, seconds, 1.0 / rate)
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    last = 0.0
    while last < seconds:
        gaps = generator.exponential(1.0 / rate, size=max(16, int(1.1 * rate * (seconds - last)) + 1))
        times = last + np.cumsum(gaps)
        found.append(times)
        last = float(times[-1])
    times = np.concatenate(found)
    return times[times < seconds]
