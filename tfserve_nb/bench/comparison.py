"""Two subjects under the same load, in turns, so that changes on the machine affect both alike.

Thread: the caller's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .load.schedule import Load
from .result import BenchmarkResult
from .run import Subject, Watcher, run_load
from .statistics import CONFIDENCE

COMPARED = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Effect:
    """How a percentile of B relates to that of A over repeated pairs.

    Attributes:
        quantile: such as 0.99.
        ratio: the geometric mean of B / A.
        low: the lower end of its 95 % interval; NaN with a single pair.
        high: the upper end.
        num_pairs: pairs in which both show the percentile.
    """

    quantile: float
    ratio: float
    low: float
    high: float
    num_pairs: int

    @property
    def verdict(self) -> str:
        """In words."""
        if math.isnan(self.low):
            return "one pair has no interval: --repeats 5"
        if self.low > 1:
            return "B is slower"
        return "B is faster" if self.high < 1 else "no difference was shown"


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Pairs of runs.

    Attributes:
        labels: what A and B are, in words.
        pairs: A's and B's runs of each repeat.
        effects: of the percentiles that at least one pair shows.
        interrupted: whether it was ended early.
    """

    labels: tuple[str, str]
    pairs: tuple[tuple[BenchmarkResult, BenchmarkResult], ...]
    effects: tuple[Effect, ...]
    interrupted: bool = False

    @property
    def title(self) -> str:
        """One line."""
        num = len(self.pairs)
        return f"A: {self.labels[0]}; B: {self.labels[1]}; {num} pair{'s' if num != 1 else ''} of runs"


def compare(
    subjects: tuple[Subject, Subject],
    labels: tuple[str, str],
    load: Load,
    *,
    repeats: int,
    slo_ms: float | None = None,
    watcher: Watcher | None = None,
) -> ComparisonResult:
    """Run A and B in turns: A B, B A, A B, ...; both of a pair have the same arrivals.

    Args:
        subjects: A and B.
        labels: what they are.
        load: how requests come.
        repeats: pairs.
        slo_ms: the latency that responses should keep.
        watcher: follows the runs.
    """
    watching = watcher or Watcher()
    pairs: list[tuple[BenchmarkResult, BenchmarkResult]] = []
    for number in range(repeats):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        same = dataclasses.replace(load, seed=load.seed + number)
        results: dict[int, BenchmarkResult] = {}
        for place in order:
            watching.say(f"pair {number + 1} of {repeats}: {labels[place]}")
            results[place] = run_load(subjects[place], same, slo_ms=slo_ms, watcher=watching)
            if results[place].summary.interrupted:
                return ComparisonResult(labels, tuple(pairs), effects_of(pairs), interrupted=True)
        pairs.append((results[0], results[1]))
    return ComparisonResult(labels, tuple(pairs), effects_of(pairs))


def compare_stored(a: BenchmarkResult, b: BenchmarkResult) -> ComparisonResult:
    """Two runs that were made before, as one pair."""
    return ComparisonResult((a.title, b.title), ((a, b),), effects_of([(a, b)]))


def effects_of(pairs: list[tuple[BenchmarkResult, BenchmarkResult]]) -> tuple[Effect, ...]:
    """The ratio of each percentile: paired, on logarithms, with Student's t interval over the pairs.

    The pairs are the sample, not the requests: requests of one run share batches and the state of the machine, and
    are not independent.
    """
    found = []
    for quantile in COMPARED:
        values = [(a.summary.percentile(quantile), b.summary.percentile(quantile)) for a, b in pairs]
        logs = np.array([math.log(b.ms / a.ms) for a, b in values if a is not None and b is not None])
        if len(logs):
            mean, half = float(logs.mean()), _half_width(logs)
            found.append(Effect(quantile, math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs)))
    return tuple(found)


def _half_width(values: np.ndarray) -> float:
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
