"""Whose turn it is: the lane that runs next on a device, and how many runs share its cores.

Each lane is charged for the time that its batches take, and the lane that had least goes first; one that was idle
starts level with the others and has no credit. So a large model does not crowd out a small one.

The cores are shared by one rule: a run takes its share of the threads, or one of them if its engine has one thread and
it takes long enough to be worth waking another. The lane whose turn it is waits until there is room for its run, and
the others wait with it: one that uses all cores would never find them all free.

Background lanes get what time is left over: they run only while nothing waits in any other lane, and one of several
threads is always left to the others.

Thread: none of its own; guarded by the lock of the `Runner`.

Reference: start-time fair queueing (Goyal, Vin, Cheng, 1996).
"""

from __future__ import annotations

import contextlib
import math

from .lane import Lane
from .long_runs import RunningBatch
from .queue import LEAST_SHARED_S


class Turns:
    """The lanes of one device.

    Args:
        num_threads: batches that may run at the same time, whatever runs them.
        num_cores: batches that may run at the same time when each of them takes one core.

    Attributes:
        num_threads: the larger of the two.
        num_free: how many of them no run counts for; below zero while runs are tried again without waiting for room.
        lanes: those for requests.
        background: those for copies.
    """

    def __init__(self, num_threads: int, num_cores: int) -> None:
        self.num_threads = self.num_free = max(num_threads, num_cores)
        self.lanes: list[Lane] = []
        self.background: list[Lane] = []
        self._usual_share = self.num_threads // num_threads
        self._virtual_s = 0.0

    def add(self, lane: Lane) -> None:
        """A lane takes part."""
        lane.share = self._share(lane)
        (self.background if lane.is_background else self.lanes).append(lane)

    def remove(self, lane: Lane) -> None:
        """A lane takes part no longer; nothing happens if it did not."""
        with contextlib.suppress(ValueError):
            (self.background if lane.is_background else self.lanes).remove(lane)

    def next(self, now_s: float) -> tuple[Lane | None, float | None]:
        """The lane whose turn it is, or else when one will have a batch; None while that depends on others."""
        lane, ready_s = self.choose(now_s)
        if lane is not None:
            self.begin(lane)
        elif ready_s is None:
            lane = self._next_background(now_s)
        return lane, None if ready_s == math.inf else ready_s

    def choose(self, now_s: float) -> tuple[Lane | None, float | None]:
        """The same among lanes for requests: infinity while the run whose turn it is has no room."""
        return self._choose(now_s, self.lanes)

    def begin(self, lane: Lane) -> None:
        """A lane that was idle starts level with the others."""
        lane.finish_s = self._virtual_s = max(self._virtual_s, lane.finish_s)

    def num_takers(self, lane: Lane, num_idle: int) -> int:
        """How many threads could run a batch of a lane now, the one that asks and some of the idle ones."""
        return min(1 + num_idle, self.num_free // lane.share)

    def occupy(self, running: RunningBatch, lane: Lane) -> None:
        """A run counts for its share."""
        running.share = lane.share
        self.num_free -= running.share

    def give_back(self, running: RunningBatch) -> None:
        """A run no longer counts as one that takes cores."""
        self.num_free += running.share
        running.share = 0

    def took(self, lane: Lane, size: int, took_s: float) -> None:
        """Charge a lane for the device's time, and learn from it."""
        lane.finish_s += took_s * lane.share / self.num_threads
        lane.queue.ran(size, took_s)
        if took_s >= LEAST_SHARED_S or lane.share < self._usual_share:  # else nothing can have changed
            lane.share = self._share(lane)

    def is_anything_waiting(self) -> bool:
        """Whether a batch could run if there was a thread for it."""
        return any(lane.queue.num_rows > 0 and self._may_have_another(lane) for lane in self.lanes + self.background)

    def is_held_up(self, now_s: float) -> bool:
        """Whether a batch waits for room that other runs take."""
        return any(self._choose(now_s, lanes)[1] == math.inf for lanes in (self.lanes, self.background))

    def _next_background(self, now_s: float) -> Lane | None:
        """The background lane whose turn it is, if a thread may run one."""
        num_running = sum([lane.num_running for lane in self.background])
        is_allowed = num_running < max(1, self.num_threads - 1)
        return self._choose(now_s, self.background if is_allowed else [])[0]

    def _choose(self, now_s: float, lanes: list[Lane]) -> tuple[Lane | None, float | None]:
        chosen: Lane | None = None
        earliest: float | None = None
        for lane in lanes:
            ready_s = lane.queue.ready_at()
            if ready_s is None or not self._may_have_another(lane):
                continue
            if ready_s > now_s:
                earliest = ready_s if earliest is None else min(earliest, ready_s)
            elif chosen is None or lane.finish_s < chosen.finish_s:
                chosen = lane
        if chosen is not None and chosen.share > self.num_free:
            return None, math.inf
        return chosen, earliest

    def _share(self, lane: Lane) -> int:
        """How many of the threads a run of a lane counts for, as far as is known now."""
        takes_one = lane.takes_one_core
        if self._usual_share == 1 or takes_one is None or not takes_one():
            return self._usual_share
        queue = lane.queue
        return 1 if queue.pace.usual_s(queue.options.max_batch_size) >= LEAST_SHARED_S else self._usual_share

    def _may_have_another(self, lane: Lane) -> bool:
        """Whether the runs of a lane that are on their way, long ones too, leave it another."""
        return lane.num_running * lane.share < self.num_threads
