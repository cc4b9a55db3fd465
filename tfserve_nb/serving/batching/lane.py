"""A queue together with what runs its batches, and the counts of them.

Thread: none of its own; guarded by the lock of the `Runner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...types import Tensors
from ..telemetry.model_metrics import REASONS, BatchSummary
from .queue import Batch, BatchQueue

RunFunction = Callable[[Tensors], Tensors]
"""Inputs -> outputs of one run: name -> array `(b, ...)` in, name -> array `(b, ...)` out."""

RunWithin = Callable[[Tensors, float], Tensors]
"""The same, but stopped when it takes longer than so many seconds; `DeadlineExceeded` then."""

Observe = Callable[[Batch, float, float], None]
"""Gets a batch that was run, and when it started and was done; on the runner's thread."""


class BatchStats:
    """Counts the batches of one queue. The runner's thread writes; a reader may be one batch behind."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._num_padded = 0
        self._num_requests = 0
        self._queue_s = 0.0
        self._sizes: dict[int, int] = {}
        self._reasons = dict.fromkeys(REASONS, 0)

    def add(self, batch: Batch, size: int, started_s: float) -> None:
        """A batch was run as `size` rows."""
        self._num_rows += batch.num_rows
        self._num_padded += max(0, size - batch.num_rows)
        self._num_requests += len(batch.parts)
        self._queue_s += sum([started_s - part.task.enqueued_s for part in batch.parts])
        self._sizes[size] = self._sizes.get(size, 0) + 1
        self._reasons[batch.reason] += 1

    def summary(self, run_s: Mapping[int, float]) -> BatchSummary:
        """The counts now, with what was learned of the runs."""
        return BatchSummary(
            num_batches=sum(self._reasons.values()),
            num_rows=self._num_rows,
            num_padded=self._num_padded,
            reasons=dict(self._reasons),
            sizes=dict(self._sizes),
            queue_ms=1e3 * self._queue_s / max(1, self._num_requests),
            run_ms={size: 1e3 * seconds for size, seconds in run_s.items()},
        )


@dataclass(eq=False, slots=True)
class Lane:
    """A queue together with the function that runs its batches and the one that observes them.

    Attributes:
        queue: the queue.
        run: runs a batch.
        observe: called after each batch, or None.
        stats: counts its batches.
        is_background: whether it only runs while no other lane has requests.
        run_within: runs a batch for a limited time; None when a run cannot be stopped.
        separate: called with the reason when a run shows that rows may not run together, or None.
        run_here: runs a batch on a thread that must not wait, or raises for one that `run` is to run; None where runs
            of one size may take different times. See `short_runs`.
        takes_one_core: whether a run leaves other cores to other runs; None for one that may use all. It may change.
        share: how many of the runner's threads a run counts for; see `turns`.
        is_slow_until_s: until when none of its runs is carried out on the thread that submits; see `short_runs`.
        finish_s: the device's virtual time at which this lane's last batch is done; see `turns`.
        num_running: runs on their way that are not overdue.
        num_overdue: those that are.
    """

    queue: BatchQueue
    run: RunFunction
    observe: Observe | None = None
    stats: BatchStats = field(default_factory=BatchStats)
    is_background: bool = False
    run_within: RunWithin | None = None
    separate: Callable[[str], None] | None = None
    run_here: RunFunction | None = None
    takes_one_core: Callable[[], bool] | None = None
    share: int = 1
    is_slow_until_s: float = 0.0
    finish_s: float = 0.0
    num_running: int = 0
    num_overdue: int = 0

    def summary(self) -> BatchSummary:
        """The batches so far."""
        return self.stats.summary(self.queue.pace.run_s)
