"""Runs that take long: what each thread runs now, until when anyone waits for it, and what to do once nobody does.

A run that takes longer than `PATIENCE_S` no longer holds up other queues: another thread takes its place. A run that
goes on after its time is overdue; then its own queue goes on too, until `MAX_OVERDUE` runs of it are.

Thread: none of its own; guarded by the lock of the `Runner`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import NotAvailable
from .lane import Lane
from .queue import Batch, Part

PATIENCE_S = 1.0
"""How long a run may keep a thread from other queues, in seconds."""

GRACE_S = 0.25
"""How long after its time a run that can be stopped may take to end."""

USUAL_FACTOR = 2.0
"""While a run takes no longer than this many times the usual, it goes on although some of its requests have expired."""

MAX_OVERDUE = 3
"""Runs of one queue that may be overdue; then its requests are refused until one of them ends."""

LOOK_S = 0.25
"""How often running batches are looked at, in seconds."""

RETRY_S = 10.0


@dataclass(eq=False, slots=True)
class RunningBatch:
    """What one thread of a runner runs now.

    Attributes:
        lane: where the batch came from; None while the thread runs nothing.
        batch: the requests.
        started_s: when it started.
        is_replaced: whether another thread works in place of this one, which ends after its run.
        share: how many of the runner's threads the run counts for, while it counts; see `turns`.
        is_overdue: whether the run went on after its time; then it does not count as one of its lane's runs.
    """

    lane: Lane | None = None
    batch: Batch | None = None
    started_s: float = 0.0
    is_replaced: bool = False
    share: int = 0
    is_overdue: bool = False

    def begin(self, lane: Lane, batch: Batch, now_s: float) -> None:
        """A run starts."""
        self.lane, self.batch, self.started_s = lane, batch, now_s

    def is_long(self, now_s: float) -> bool:
        """Whether it has kept its thread for long."""
        return self.lane is not None and now_s - self.started_s > PATIENCE_S

    def is_late(self, now_s: float) -> bool:
        """Whether it went on after its time."""
        if self.lane is None or self.batch is None:
            return False
        return now_s > stop_s(self.lane, self.batch, self.started_s) + GRACE_S

    def in_words(self, now_s: float) -> str:
        """How long it has been running, for a person."""
        took = f"a run has been going on for {now_s - self.started_s:.0f} s"
        return f"{took}, after the deadline of its requests" if self.is_overdue else took


def stop_s(lane: Lane, batch: Batch, started_s: float) -> float:
    """When a run is to be given up, on the runner's clock.

    At the first deadline of its requests, so that those with time left can run without the one that may be at fault;
    later if runs of this size usually take that long; never after the last deadline.
    """
    deadlines = [part.task.deadline_s for part in batch.parts]
    usual_s = USUAL_FACTOR * lane.queue.pace.usual_s(size_of(lane, batch))
    return min(max(min(deadlines), started_s + usual_s), max(deadlines))


def limit_s(lane: Lane, batch: Batch, started_s: float) -> float | None:
    """How long a run may take, in seconds; at least a millisecond. None where it cannot be stopped anyway."""
    if lane.run_within is None:
        return None
    left_s = stop_s(lane, batch, started_s) - started_s
    return max(1e-3, left_s) if math.isfinite(left_s) else left_s


def size_of(lane: Lane, batch: Batch) -> int:
    """Rows of a run, padding included."""
    if not lane.queue.is_batchable or batch.parts[0].task.is_alone:
        return batch.num_rows
    return lane.queue.options.padded_size(batch.num_rows)


def with_time_left(batch: Batch, now_s: float) -> tuple[list[Part], list[Part]]:
    """The requests of a run that was given up: those that still have time, and those that have expired."""
    waiting = [part for part in batch.parts if not part.task.is_finished]
    return (
        [part for part in waiting if part.task.deadline_s > now_s],
        [part for part in waiting if part.task.deadline_s <= now_s],
    )


def too_many_overdue() -> NotAvailable:
    """What requests get while `MAX_OVERDUE` runs of their queue hang."""
    return NotAvailable(
        f"{MAX_OVERDUE} runs of this version have not ended at their deadline and still go on",
        hint="roll back or undeploy it; it answers again once one of them ends",
        retry_after_s=RETRY_S,
    )
