"""Sends captured requests at their times, to one version or to two in turns.

Thread: the caller's, which stays busy until the end; `Watcher` is called on it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import NotAvailable
from .plan import Load, Target, replay_load
from .process import generate
from .run import Watcher
from .samples import OK, Samples, joined
from .statistics import Summary, summarise

MAX_GAP_S = 1.0
"""Longer gaps are shortened to this, in seconds as they were recorded: an idle server has nothing to measure."""

SMALLEST_GAP_S = 1e-6

MakeTarget = Callable[[int, slice], Target]
"""The requests of a part of the schedule for a version."""


class Schedule(NamedTuple):
    """When captured requests are due.

    Attributes:
        times_s: seconds from the start, increasing from 0; float64 `(n,)`.
        num_shortened: gaps that were longer than `MAX_GAP_S`.
    """

    times_s: np.ndarray
    num_shortened: int


class Replayed(NamedTuple):
    """What became of the requests with one version.

    Attributes:
        summary: the numbers.
        latency_s: of each request in the order of the schedule, from the moment at which it was due; NaN for one that
            failed or was not sent; float64 `(n,)`.
        status: as `Samples.status`; 0 for one that was not sent; int16 `(n,)`.
    """

    summary: Summary
    latency_s: np.ndarray
    status: np.ndarray


def schedule_of(arrived_s: Sequence[float], speed: float) -> Schedule:
    """The recorded gaps, divided by the speed.

    Args:
        arrived_s: when the requests arrived, in seconds, increasing; at least one.
        speed: how much faster than they came.
    """
    gaps = np.diff(np.asarray(arrived_s, dtype=np.float64))
    # No two at the same moment: results are told apart by when they were due.
    times_s = np.cumsum([0.0, *np.maximum(np.minimum(gaps, MAX_GAP_S) / speed, SMALLEST_GAP_S)])
    return Schedule(times_s, int((gaps > MAX_GAP_S).sum()))


def replay_in_turns(
    make: MakeTarget, versions: Sequence[int], times_s: np.ndarray, timeout_s: float, watcher: Watcher
) -> tuple[dict[int, Replayed], bool]:
    """Replay onto each version.

    The schedule is cut into halves, and the second half is sent in the opposite order (A B B A), so that what changes
    on the machine meanwhile meets both versions.

    Args:
        make: the requests.
        versions: A and B, or one.
        times_s: when requests are due; float64 `(n,)`.
        timeout_s: how long a request may take.
        watcher: follows it.

    Returns:
        Version -> what became of the requests; and whether it was interrupted (`KeyboardInterrupt`).

    Raises:
        ServerFailed: if the generator cannot run.
        NotAvailable: if it was interrupted before there was anything.
    """
    parts: dict[int, list[tuple[slice, Samples]]] = {version: [] for version in versions}
    interrupted = False
    try:
        for number, part in enumerate(_halves(len(times_s))):
            found = {}
            for version in versions if number % 2 == 0 else reversed(versions):
                watcher.say(f"replaying onto version {version}, requests {part.start + 1} to {part.stop}")
                times = times_s[part] - times_s[part.start]
                found[version] = _send(make(version, part), replay_load(times.tolist(), timeout_s), watcher)
            for version, samples in found.items():
                parts[version].append((part, samples))
    except KeyboardInterrupt:
        interrupted = True
        if not any(parts.values()):
            raise
    return {version: _put_together(some, times_s, timeout_s) for version, some in parts.items()}, interrupted


def _halves(num: int) -> list[slice]:
    edges = sorted({0, num // 2, num})
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _send(target: Target, load: Load, watcher: Watcher) -> Samples:
    seen: list[Samples] = []

    def on_samples(new: Samples) -> bool:
        seen.append(new)
        watcher.follow(load, joined(seen))
        return True

    return generate(target, load, on_samples)


def _put_together(parts: list[tuple[slice, Samples]], times_s: np.ndarray, timeout_s: float) -> Replayed:
    latency_s = np.full(len(times_s), np.nan)
    status = np.zeros(len(times_s), dtype=np.int16)
    moved = []
    for part, samples in parts:
        if len(samples) != part.stop - part.start:
            raise NotAvailable(f"{len(samples)} of {part.stop - part.start} requests came to an end")
        order = np.argsort(samples.due_s, kind="stable")
        is_ok = samples.status[order] == OK
        latency_s[part] = np.where(is_ok, samples.latency_s[order], np.nan)
        status[part] = samples.status[order]
        start_s = float(times_s[part.start])
        moved.append(
            dataclasses.replace(
                samples,
                due_s=samples.due_s + start_s,
                taken_s=samples.taken_s + start_s,
                sent_s=samples.sent_s + start_s,
                done_s=samples.done_s + start_s,
            )
        )
    num_sent = parts[-1][0].stop
    load = replay_load(times_s[:num_sent].tolist(), timeout_s)
    return Replayed(summarise(joined(moved), load), latency_s, status)
