"""The lanes of one version: one for each signature's requests, and another for its shadow copies, when there are any.

Thread: any; one lock for lanes that are made later.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from ...types import SignatureSpec, Tensors
from ..batching.queue import Batch, BatchQueue, Task
from ..batching.runner import Lane, Observe, RunFunction, Runner
from ..telemetry.observer import Observers
from ..telemetry.records import BatchRecord
from .inputs import has_one_shape
from .servable import Servable
from .source import VersionSource


class Lanes:
    """The queues of one version, attached to its device's runner while the version is loaded.

    Args:
        runner: of the version's device.
        servable: runs.
        source: with its limits.
        batchable: signature -> whether rows of several requests may share a run.
        observers: told of each batch.
        model: the model's name.
        version: the version's number.

    Attributes:
        live: signature -> where requests wait.
    """

    def __init__(
        self,
        runner: Runner,
        servable: Servable,
        source: VersionSource,
        batchable: Mapping[str, bool],
        *,
        observers: Observers,
        model: str,
        version: int,
    ) -> None:
        self._runner = runner
        self._servable = servable
        self._source = source
        self._batchable = batchable
        self._observers = observers
        self._who = (model, version)
        self._lock = threading.Lock()
        self._background: dict[str, Lane] = {}
        self.live = {name: self._attached(name, is_background=False) for name in batchable}

    def background(self, signature: str) -> Lane:
        """Where copies for a signature wait; they run when nothing else wants the device."""
        lane = self._background.get(signature)
        if lane is None:
            with self._lock:
                lane = self._background.get(signature)
                if lane is None:
                    lane = self._background[signature] = self._attached(signature, is_background=True)
        return lane

    def detach(self) -> None:
        """Close all of them; waiting requests get `NotAvailable`."""
        with self._lock:
            lanes = [*self.live.values(), *self._background.values()]
        for lane in lanes:
            self._runner.detach(lane)

    def _attached(self, name: str, *, is_background: bool) -> Lane:
        signature, source = self._servable.signatures[name], self._source
        queue = _queue(signature, source, is_batchable=self._batchable[name], is_background=is_background)
        observe = batch_observer(self._observers, *self._who, signature, source, is_background=is_background)
        return self._runner.attach(queue, _bind(self._servable, name), observe, is_background=is_background)


class CopyQueue(BatchQueue):
    """A queue of shadow copies: each is a batch of its own, so that none fails because of another.

    A live batch that fails is run again request by request at once; for copies that would keep live requests waiting.
    """

    def _may_join(self, task: Task, first: Task) -> bool:
        """Never."""
        del task, first
        return False


def _queue(signature: SignatureSpec, source: VersionSource, *, is_batchable: bool, is_background: bool) -> BatchQueue:
    """The queue of one signature of a version."""
    one_shape = source.options.checks_shapes and has_one_shape(signature)
    if is_background:
        options = replace(source.options, batch_timeout_micros=0)
        return CopyQueue(options, is_batchable=is_batchable, has_one_shape=one_shape)
    return BatchQueue(source.options, is_batchable=is_batchable, has_one_shape=one_shape)


def _bind(servable: Servable, signature: str) -> RunFunction:
    def run(inputs: Tensors) -> Tensors:
        return servable.run(signature, inputs)

    return run


def batch_observer(
    observers: Observers,
    name: str,
    version: int,
    signature: SignatureSpec,
    source: VersionSource,
    *,
    is_background: bool = False,
) -> Observe:
    """What a runner calls after each batch of one signature, with when it started and was done."""
    num_inputs = len(signature.inputs)

    def observe(batch: Batch, started_s: float, done_s: float) -> None:
        if not observers.hears_batches:
            return
        observers.on_batch(
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
                done_s=done_s,
                is_background=is_background,
            )
        )

    return observe
