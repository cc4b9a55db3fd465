"""A look at a newly chosen engine at work: TensorFlow runs some of the first batches that it answered too.

They wait in a background lane, so that they run only when nothing else wants the device. Where an answer differs,
TensorFlow runs the signature from then on.

Thread: the runner's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ...errors import ExportFailed, RunRejected, ServingError
from ...export.check import compare_outputs
from ...types import Tensors
from ..backend import Outcome
from ..batching.lane import Lane
from ..batching.options import BatchingOptions
from ..batching.queue import BatchQueue
from ..batching.runner import Runner
from ..engines.accelerated import RUNS_TO_CHECK, EngineServable
from ..engines.engine import Engine

FIRST = 8
"""Batches that are looked at in any case."""

EVERY = 100
"""Of the following ones, one in so many."""

WAIT_S = 60.0
"""How long a copy may wait for an idle moment before it is dropped."""

_ONE = BatchingOptions(max_batch_size=1, max_enqueued_batches=2, is_enabled=False)


class LiveCheck:
    """Watches the runs of one version.

    Args:
        servable: the version.
        runner: of its device.
    """

    def __init__(self, servable: EngineServable, runner: Runner) -> None:
        self._servable = servable
        self._runner = runner
        self._lanes: dict[str, Lane] = {}

    @property
    def lanes(self) -> list[Lane]:
        """Where copies wait."""
        return list(self._lanes.values())

    def watched(self, signature: str, run: Callable[..., Tensors]) -> Callable[..., Tensors]:
        """The same run, with or without a limit, some of whose answers are compared later."""
        servable = self._servable
        if signature not in self._lanes:
            self._lanes[signature] = self._runner.attach(
                BatchQueue(_ONE, is_batchable=False),
                lambda inputs: servable.session().run(signature, inputs),
                is_background=True,
            )

        def run_and_look(inputs: Tensors, *limit_s: float) -> Tensors:
            engine = servable.answering(signature)
            outputs = run(inputs, *limit_s)
            if engine is not None and servable.runs_to_check:
                self._count(signature, engine, inputs, outputs)
            return outputs

        return run_and_look

    def _count(self, signature: str, engine: Engine, inputs: Tensors, outputs: Tensors) -> None:
        left = self._servable.runs_to_check
        if left > RUNS_TO_CHECK - FIRST or left % EVERY == 0:
            self._look(signature, engine, inputs, outputs)
        self._servable.checked()

    def _look(self, signature: str, engine: Engine, inputs: Tensors, outputs: Tensors) -> None:
        compare: Callable[[Outcome], None] = partial(self._compare, signature, engine, outputs)
        try:
            self._runner.submit(
                self._lanes[signature], inputs, 1,
                deadline_s=time.perf_counter() + WAIT_S, on_done=compare, is_alone=True, wakes=False,
            )  # fmt: skip
        except ServingError:
            return  # others wait already, or the version is being unloaded

    def _compare(self, signature: str, engine: Engine, outputs: Tensors, outcome: Outcome) -> None:
        if isinstance(outcome, RunRejected):
            reason = f"it answers what TensorFlow refuses: {outcome.message}"
        elif isinstance(outcome, ServingError):
            return  # it was not run, or TensorFlow failed
        else:
            try:
                compare_outputs(outcome.outputs, outputs, sides=("TensorFlow", engine.name))
            except ExportFailed as error:
                reason = error.message
            else:
                return
        self._servable.fall_back(signature, engine, reason, is_wrong=True)
