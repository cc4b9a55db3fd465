"""The batches of a version, as people and dashboards see them.

Thread: any; immutable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

REASONS = ("full", "free", "timeout", "deadline")


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The batches of one version since it was loaded.

    Attributes:
        num_batches: runs of the model.
        num_rows: rows that they had, without padding.
        num_padded: rows that were added to reach an allowed batch size.
        reasons: why they left: `full`, `free` (the runner was), `timeout` or `deadline` -> how many.
        sizes: rows of a run, padding included -> how many.
        queue_ms: mean wait of a request in the queue, in milliseconds.
        run_ms: rows of a run -> the milliseconds that it takes, as learned.
    """

    num_batches: int = 0
    num_rows: int = 0
    num_padded: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[int, int] = field(default_factory=dict)
    queue_ms: float = 0.0
    run_ms: Mapping[int, float] = field(default_factory=dict)

    @property
    def mean_rows(self) -> float:
        """Rows of a batch, on average."""
        return self.num_rows / self.num_batches if self.num_batches else 0.0


def combined(summaries: Iterable[BatchSummary]) -> BatchSummary:
    """The batches of several queues; run times are those of the queue with the most batches."""
    known = sorted(summaries, key=lambda summary: summary.num_batches)
    if not known:
        return BatchSummary()
    num_batches = sum([summary.num_batches for summary in known])
    return BatchSummary(
        num_batches=num_batches,
        num_rows=sum([summary.num_rows for summary in known]),
        num_padded=sum([summary.num_padded for summary in known]),
        reasons={reason: sum([summary.reasons.get(reason, 0) for summary in known]) for reason in REASONS},
        sizes=_added([summary.sizes for summary in known]),
        queue_ms=sum([summary.queue_ms * summary.num_batches for summary in known]) / max(1, num_batches),
        run_ms=known[-1].run_ms,
    )


def _added(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The sum of several counts."""
    total: Counter[int] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
