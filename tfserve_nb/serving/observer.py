"""What the core tells to whoever exports metrics: finished requests, batches and warm-ups.

Thread: requests on the server's loop or the caller's thread, batches on the runners', warm-ups on the manager's. An
observer must be quick and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..types import SignatureSpec
from .batching import Batch
from .metrics import RequestRecord
from .version_source import VersionSource


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One run of a model.

    Attributes:
        model: the model's name.
        version: its version.
        signature: the signature's name.
        task_rows: rows of each request in it.
        num_inputs: input tensors of the signature.
        execution_rows: rows that the model got, padding included.
        waited_s: how long each request waited in the queue, in seconds.
        run_s: how long the run took, in seconds.
        reason: why the batch left: `full`, `timeout` or `free`.
        is_batched: whether requests may share runs here at all.
    """

    model: str
    version: int
    signature: str
    task_rows: tuple[int, ...]
    num_inputs: int
    execution_rows: int
    waited_s: tuple[float, ...]
    run_s: float
    reason: str
    is_batched: bool


@dataclass(frozen=True, slots=True)
class WarmupRecord:
    """One version whose warm-up file was run.

    Attributes:
        path: the version's folder.
        code: `OK`, or the code of what failed.
        num_records: requests that were read.
        took_s: in seconds.
    """

    path: str
    code: str
    num_records: int
    took_s: float


class Observer(Protocol):
    """Is told what happens."""

    def on_request(self, record: RequestRecord) -> None:
        """A request was answered or failed."""

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run."""

    def on_warmup(self, record: WarmupRecord) -> None:
        """A warm-up file was run."""


def batch_observer(
    observer: Observer | None, name: str, version: int, signature: SignatureSpec, source: VersionSource
) -> Callable[[Batch, float, float], None] | None:
    """What a runner tells about each batch of one signature, and when it started and was done; None for nobody."""
    if observer is None:
        return None
    num_inputs = len(signature.inputs)

    def observe(batch: Batch, started_s: float, done_s: float) -> None:
        observer.on_batch(
            BatchRecord(
                model=name,
                version=version,
                signature=signature.name,
                task_rows=tuple([part.stop - part.start for part in batch.parts]),
                num_inputs=num_inputs,
                execution_rows=source.options.padded_size(batch.num_rows) if batch.num_rows else 0,
                waited_s=tuple([started_s - part.task.enqueued_s for part in batch.parts]),
                run_s=done_s - started_s,
                reason=batch.reason,
                is_batched=source.options.is_enabled,
            )
        )

    return observe
