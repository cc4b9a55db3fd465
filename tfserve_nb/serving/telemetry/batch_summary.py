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
    known = sorted(summaries, key=lambda one: one.num_batches)
    if not known:
        return BatchSummary()
    num_batches = sum([one.num_batches for one in known])
    return BatchSummary(
        num_batches=num_batches,
        num_rows=sum([one.num_rows for one in known]),
        num_padded=sum([one.num_padded for one in known]),
        reasons={reason: sum([one.reasons.get(reason, 0) for one in known]) for reason in REASONS},
        sizes=_added([one.sizes for one in known]),
        queue_ms=sum([one.queue_ms * one.num_batches for one in known]) / max(1, num_batches),
        run_ms=known[-1].run_ms,
    )


def _added(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The sum of several counts."""
    total: Counter[int] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))
