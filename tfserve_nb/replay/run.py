"""Sends captured requests at their times, to one version or to two in turns.

A round is about half a second of the schedule: all of it goes to the one version, and once everything is answered, the
same goes to the other. So the two never share the server, neither waits for what the other left in a queue, and what
else goes on on the machine meets both. Which one begins changes from round to round. A short schedule is repeated until
there are rounds enough to tell a difference from chance.
The ratios of their latencies come with a bootstrap over rounds.

Thread: the caller's, which stays busy until the end; `Watcher` is called on it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ..bench.comparison import COMPARED, Effect
from ..bench.load.process import generate
from ..bench.load.samples import OK, Samples, joined
from ..bench.load.schedule import Load, Target, replay_load
from ..bench.run import Watcher
from ..bench.statistics import CONFIDENCE, FEWEST, Summary, summarise

MAX_GAP_S = 1.0
"""Longer gaps are shortened to this, in seconds as they were recorded: an idle server has nothing to measure."""

SMALLEST_GAP_S = 1e-6
ROUND_S = 0.5
FEWEST_ROUNDS = 12
NUM_DRAWS = 1000
MAX_NUMBERS = 8_000_000
"""Numbers that are drawn at most, to stay below a second."""


class Schedule(NamedTuple):
    """When captured requests are due.

    Attributes:
        times_s: seconds from the start, increasing from 0; float64 `(n,)`.
        num_shortened: gaps that were longer than `MAX_GAP_S`.
    """

    times_s: np.ndarray
    num_shortened: int


class Replayed(NamedTuple):
    """The outcome of the requests with one version.

    Attributes:
        summary: the numbers.
        rounds: latencies of the answered requests of each round, from the moments at which they were due; seconds.
        latency_s: of each request in the order of the schedule, the median when it was sent more than once; NaN for one
            that was not answered; float64 `(n,)`.
        status: as `Samples.status`, the last that was not OK; int16 `(n,)`.
    """

    summary: Summary
    rounds: tuple[np.ndarray, ...]
    latency_s: np.ndarray
    status: np.ndarray


class Turn(NamedTuple):
    """A part of the schedule that goes to one version.

    Attributes:
        version: which.
        first: the first request.
        stop: the one behind the last.
    """

    version: int
    first: int
    stop: int


def schedule_of(arrived_s: Sequence[float], speed: float) -> Schedule:
    """The recorded gaps, divided by the speed.

    Args:
        arrived_s: when the requests arrived, in seconds, increasing; at least one.
        speed: how much faster than they came.
    """
    gaps = np.diff(np.asarray(arrived_s, dtype=np.float64))
    # No two at the same moment: results are identified by when they were due.
    times_s = np.cumsum([0.0, *np.maximum(np.minimum(gaps, MAX_GAP_S) / speed, SMALLEST_GAP_S)])
    return Schedule(times_s, int((gaps > MAX_GAP_S).sum()))


def turns_of(times_s: np.ndarray, versions: Sequence[int]) -> list[Turn]:
    """The schedule in turns: A B, B A, A B, ...; for one version one after the other, and nothing twice.

    Args:
        times_s: when requests are due; float64 `(n,)`.
        versions: A and B, or one.
    """
    number = (times_s // ROUND_S).astype(np.int64)
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(times_s)]
    rounds = list(itertools.pairwise(edges))
    repeats = math.ceil(FEWEST_ROUNDS / len(rounds)) if len(versions) > 1 else 1
    return [
        Turn(version, first, stop)
        for place, (first, stop) in enumerate(rounds * repeats)
        for version in (versions if place % 2 == 0 else tuple(reversed(versions)))
    ]


def replay_in_turns(
    targets: Mapping[int, Target], times_s: np.ndarray, timeout_s: float, watcher: Watcher
) -> tuple[dict[int, Replayed], bool]:
    """Replay onto each version.

    Args:
        targets: A's and B's requests in the order of the schedule, or those of one version.
        times_s: when requests are due; float64 `(n,)`.
        timeout_s: how long a request may take.
        watcher: follows it.

    Returns:
        Version -> the outcome of the requests; and whether it was interrupted (`KeyboardInterrupt`): complete
        rounds count then.

    Raises:
        ServerFailed: if the generator cannot run.
    """
    turns = turns_of(times_s, tuple(targets))
    load = _load(turns, times_s, timeout_s)
    seen: list[Samples] = []
    interrupted = False

    def on_samples(new: Samples) -> bool:
        seen.append(new)
        watcher.follow(load, joined(seen))
        return True

    words = " and ".join(f"version {version}" for version in targets)
    watcher.say(f"replaying {len(times_s)} requests onto {words}, {load.times_s[-1]:.0f} s")
    try:
        generate(_one_target(targets, turns), load, on_samples)
    except KeyboardInterrupt:
        interrupted = True
    return _by_version(joined(seen), turns, times_s, timeout_s), interrupted


def _load(turns: Sequence[Turn], times_s: np.ndarray, timeout_s: float) -> Load:
    """The turns one after the other, each from when everything before it is answered."""
    due_s: list[float] = []
    pauses: list[int] = []
    start_s = 0.0
    for turn in turns:
        pauses.append(len(due_s))
        offsets = times_s[turn.first : turn.stop] - times_s[turn.first]
        due_s += (start_s + offsets).tolist()
        # As far from the next turn's first request as it was, so that requests come as densely as they came.
        after = times_s[turn.stop] if turn.stop < len(times_s) else times_s[-1]
        start_s += max(SMALLEST_GAP_S, float(after - times_s[turn.first]), due_s[-1] - start_s + SMALLEST_GAP_S)
    return replay_load(due_s, timeout_s, tuple(pauses[1:]))


def _one_target(targets: Mapping[int, Target], turns: Sequence[Turn]) -> Target:
    bodies: list[bytes] = []
    paths: list[str] = []
    for turn in turns:
        target = targets[turn.version]
        bodies += target.bodies[turn.first : turn.stop]
        paths += [urlsplit(target.url).path] * (turn.stop - turn.first)
    first = next(iter(targets.values()))
    return dataclasses.replace(first, bodies=tuple(bodies), paths=() if first.protocol == "grpc" else tuple(paths))


def _by_version(samples: Samples, turns: Sequence[Turn], times_s: np.ndarray, timeout_s: float) -> dict[int, Replayed]:
    """Put what came back to where it belongs: a turn begins after the last one ended, so their order is the order."""
    order = samples.among(np.argsort(samples.due_s, kind="stable"))
    found: dict[int, list[tuple[Turn, Samples]]] = {turn.version: [] for turn in turns}
    done = 0
    for number in range(0, len(turns), len(found)):
        round_ = turns[number : number + len(found)]
        if done + sum(turn.stop - turn.first for turn in round_) > len(order):
            break  # it was interrupted here
        for turn in round_:
            places = np.arange(done, done + turn.stop - turn.first)
            found[turn.version].append((turn, order.among(places)))
            done += len(places)
    return {version: _summed_up(parts, times_s, timeout_s) for version, parts in found.items()}


def _summed_up(parts: Sequence[tuple[Turn, Samples]], times_s: np.ndarray, timeout_s: float) -> Replayed:
    """One version's turns."""
    taken: list[list[float]] = [[] for _ in times_s]
    status = np.zeros(len(times_s), dtype=np.int16)
    rounds = []
    for turn, samples in parts:
        is_ok = samples.status == OK
        rounds.append(samples.latency_s[is_ok])
        for place, latency_s, code in zip(
            range(turn.first, turn.stop), samples.latency_s.tolist(), samples.status.tolist(), strict=True
        ):
            if code == OK:
                taken[place].append(latency_s)
            if code != OK or not status[place]:
                status[place] = code
    return Replayed(
        summarise(joined([samples for _, samples in parts]), replay_load(times_s.tolist(), timeout_s)),
        tuple(rounds),
        np.array([statistics.median(values) if values else math.nan for values in taken]),
        status,
    )


def paired_effects(a_s: Sequence[np.ndarray], b_s: Sequence[np.ndarray], seed: int = 0) -> tuple[Effect, ...]:
    """The ratio of each percentile that there are requests enough for, with a bootstrap over the rounds.

    Requests of one round share batches and what the machine was doing: not they are independent evidence, but rounds.
    So rounds are drawn with replacement, both versions' halves of them together, and the 95 % interval lies between the
    2.5th and the 97.5th percentile of the ratios (the cluster bootstrap: Davison & Hinkley 1997, Bootstrap Methods and
    Their Application, section 3.8). It assumes that rounds are independent, and is too narrow with
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
            `(draws,)`; a draw of rounds without any response gives the largest.
        """
        cumulated = np.cumsum(counts[:, self._rounds], axis=1)
        wanted = np.ceil(quantile * cumulated[:, -1:] - 1e-9)
        place = np.argmax(cumulated >= np.maximum(wanted, 1), axis=1)
        found: np.ndarray = self.values[place]
        return found
