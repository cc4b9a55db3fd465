"""Counts of the batches that a queue has sent.

Thread: written by the runner's thread and read by any; a snapshot may be one batch behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..telemetry.batch_summary import REASONS, BatchSummary
from .queue import Batch


class BatchStats:
    """Counts the batches of one queue."""

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
