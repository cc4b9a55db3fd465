"""One version: its state, what it holds while it is loaded, and the handle that pins it for a request.

Thread: a `VersionRecord` is guarded by its manager's lock; a `LoadedVersion` may be used from any thread; a
`VersionHandle` belongs to one request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from ...errors import InvalidRequest, NotAvailable, ServingError
from ...export.provenance.variant import read_variant
from ...export.signatures import main_signature
from ...types import PLAIN, EngineMeasurement, SignatureDefs, SignatureSpec, Tensors, VersionState, VersionStatus
from ..backend import Assignment, Outcome, Ticket, VersionView
from ..batching.lane import Lane, Observe, RunFunction, RunWithin
from ..batching.queue import Batch, BatchQueue, Task
from ..batching.runner import Runner
from ..engines.accelerated import EngineServable
from ..engines.engine import TENSORFLOW
from ..engines.saved_model.devices import is_processor
from ..engines.servable import Servable, SingleFileServable, StoppableServable
from ..telemetry.observer import Observers
from ..telemetry.records import BatchRecord
from .in_use import FolderInUse
from .inputs import check_of, has_one_shape
from .live_check import LiveCheck
from .sharing import RowSharing, sharing_notes
from .source import VersionSource
from .trial import NOTHING_FOUND, Findings

CLOSE_S = 1.0
"""How long unloading waits for runs that are on their way, in seconds."""

OnDone: TypeAlias = Callable[[Outcome], None]
"""Gets the outcome of a request, once."""

RequestCopier: TypeAlias = Callable[[str, Tensors, OnDone], OnDone]
"""Copies a submitted request for another version: gets its signature, inputs and `on_done`, and returns the function to
call with the outcome instead of `on_done`."""


PATIENCE_S = 30.0
"""How long a run waits for an earlier one that changes the version."""


class CopyQueue(BatchQueue):
    """A queue of shadow copies: each is a batch of its own, so that none fails because of another.

    A live batch that fails is run again request by request at once; for copies that would keep live requests waiting.
    """

    def _may_join(self, task: Task, first: Task) -> bool:
        """Never."""
        del task, first
        return False


class LoadedVersion:
    """A servable with its batch queues, which are attached to its device's runner.

    Each signature has a lane for requests, and a background lane for shadow copies once there are any.

    Args:
        runner: of the version's device.
        servable: runs.
        source: with its limits.
        sharing: signature -> whether its rows may run together.
        observers: get each batch.
        model: the model's name.
        version: the version's number.
        findings: what the rows of warm-up showed.

    Attributes:
        runner: the same.
        servable: the same.
        problem: why it cannot answer, as far as rows were tried; "" when it can.
        given: rows of the user that its engines are compared on; may be empty.
        view: what servers in other processes have to know of the version.
        checks: signature -> the check for each request.
        lanes: signature -> where requests wait.
    """

    def __init__(
        self,
        runner: Runner,
        servable: Servable,
        source: VersionSource,
        sharing: Mapping[str, RowSharing],
        *,
        observers: Observers,
        model: str,
        version: int,
        findings: Findings = NOTHING_FOUND,
    ) -> None:
        self.runner = runner
        self.servable = servable
        self.problem = findings.problem
        self.given: Tensors = {}
        self._findings = findings
        self._options = options = source.options
        self._device = source.device
        self._variant = read_variant(source.path)
        self._observers = observers
        self._model = model
        self._version = version
        self.view = VersionView(
            dict(servable.signatures),
            {name: known.is_allowed for name, known in sharing.items()},
            options.max_batch_size,
            options.max_enqueued_rows,
            options.checks_shapes,
        )
        self.checks = {
            name: check_of(signature, checks_shapes=options.checks_shapes)
            for name, signature in self.view.signatures.items()
        }
        self._lock = threading.Lock()
        self._sharing = dict(sharing)
        self._changing = threading.Lock()
        self._is_closed = False
        self._background: dict[str, Lane] = {}
        self._live = LiveCheck(servable, runner) if isinstance(servable, EngineServable) else None
        self.lanes = {name: self._attach(name, is_background=False) for name in sharing}

    @property
    def alone(self) -> dict[str, str]:
        """Signature -> why its requests run alone; "" where that is said elsewhere, or is as it was asked for."""
        return {name: known.reason for name, known in dict(self._sharing).items() if not known.is_allowed}

    def separate(self, signature: str, reason: str) -> None:
        """From now on no rows of a signature run together: a run has shown that they may not."""
        with self._lock:
            if not self._sharing[signature].is_allowed:
                return
            self._sharing[signature] = RowSharing(is_allowed=False, reason=reason)
            self.view = replace(self.view, batchable={**self.view.batchable, signature: False})
            lanes = [lanes[signature] for lanes in (self.lanes, self._background) if signature in lanes]
        for lane in lanes:
            lane.queue.is_batchable = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What users have to know, one line each."""
        effects, variant = self.servable.effects, self._variant
        of_variant = (f"{variant.name}: {variant.found}",) if variant.found else ()
        return (*effects.notes, *of_variant, *sharing_notes(self.alone), *self.engine_notes, *self._findings.notes)

    @property
    def variant(self) -> str:
        """What it is stored as; see `export.variants`."""
        return self._variant.name

    @property
    def engine(self) -> str:
        """What runs requests that name no signature."""
        servable = self.servable
        if isinstance(servable, SingleFileServable):
            return servable.engine
        if not isinstance(servable, EngineServable) or not servable.signatures:
            return TENSORFLOW
        return servable.engine_of(main_signature(servable.signatures).name)

    @property
    def engine_notes(self) -> tuple[str, ...]:
        """What runs it and why, one line each; nothing while TensorFlow does, and no engine was asked for."""
        return self.servable.notes if isinstance(self.servable, EngineServable | SingleFileServable) else ()

    @property
    def engines(self) -> tuple[EngineMeasurement, ...]:
        """What was measured of its engines."""
        return self.servable.measurements if isinstance(self.servable, EngineServable) else ()

    def background(self, signature: str) -> Lane:
        """Where copies for a signature wait; they run when nothing else wants the device.

        Raises:
            NotAvailable: if the version was unloaded.
        """
        with self._lock:
            if self._is_closed:
                raise NotAvailable(f"version {self._version} was unloaded")
            lane = self._background.get(signature)
            if lane is None:
                lane = self._background[signature] = self._attach(signature, is_background=True)
        return lane

    def close(self) -> None:
        """Close all lanes (requests that wait in them get `NotAvailable`) and the servable. Bounded.

        TensorFlow may wait until a run has ended; while one hangs, that is left to a thread of its own.
        """
        with self._lock:
            self._is_closed = True
            lanes = [*self.lanes.values(), *self._background.values(), *(self._live.lanes if self._live else ())]
        for lane in lanes:
            self.runner.detach(lane)
        if not any(lane.num_running or lane.num_overdue for lane in lanes):
            self.servable.close()
            return
        closing = threading.Thread(target=self.servable.close, name="tfserve-unload", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def long_run(self) -> str:
        """The longest run that is on its way, in words, if it has taken long; else ""."""
        return self.runner.long_run([*self.lanes.values(), *self._background.values()])

    def _attach(self, name: str, *, is_background: bool) -> Lane:
        signature, options = self.view.signatures[name], self._options
        is_batchable, one_shape = self.view.batchable[name], options.checks_shapes and has_one_shape(signature)
        if not self._sharing[name].pads_lengths:
            options = replace(options, pad_variable_length_inputs=False)
        if is_background:
            options = replace(options, batch_timeout_micros=0)
        kind = CopyQueue if is_background else BatchQueue
        queue = kind(options, is_batchable=is_batchable, has_one_shape=one_shape)
        run: Callable[..., Tensors] = partial(self.servable.run, name)
        servable = self.servable
        run_within: RunWithin | None = None
        if isinstance(servable, StoppableServable) and servable.is_stoppable:
            run_within = partial(servable.run_within, name)
        if self._live is not None and not is_background:
            run = self._live.watched(name, run)
            run_within = None if run_within is None else self._live.watched(name, run_within)
        if name in self.servable.effects.states:
            run = partial(self._run_alone, run)
            run_within = None if run_within is None else partial(self._run_alone, run_within)
        observe = self._observer(signature, is_background=is_background)
        return self.runner.attach(
            queue,
            run,
            observe,
            is_background=is_background,
            run_within=run_within,
            separate=partial(self.separate, name),
            run_here=self._run_here(name) if one_shape and run_within is None else None,
            takes_one_core=partial(servable.takes_one_core, name) if isinstance(servable, EngineServable) else None,
        )

    def _run_here(self, name: str) -> RunFunction | None:
        """Runs a signature on a thread that must not wait, if a run is nothing but computing, on the processor."""
        servable = self.servable
        if not servable.effects.is_pure(name) or not is_processor(self._device):
            return None
        if not isinstance(servable, EngineServable):
            return partial(servable.run, name)
        run = partial(servable.run_at_once, name)
        return run if self._live is None else self._live.watched(name, run)

    def _run_alone(self, run: Callable[..., Tensors], *arguments: Any) -> Tensors:
        """Runs that change the version come one after the other, also where a device has several threads."""
        if not self._changing.acquire(timeout=PATIENCE_S):
            raise NotAvailable(f"an earlier run of version {self._version}, which changes its state, does not end")
        try:
            return run(*arguments)
        finally:
            self._changing.release()

    def _observer(self, signature: SignatureSpec, *, is_background: bool) -> Observe:
        """The function that a runner calls after each batch of one signature."""
        observers, options = self._observers, self._options

        def observe(batch: Batch, started_s: float, done_s: float) -> None:
            if not observers.hears_batches:
                return
            observers.on_batch(
                BatchRecord(
                    model=self._model,
                    version=self._version,
                    signature=signature.name,
                    task_rows=tuple([part.stop - part.start for part in batch.parts]),
                    num_inputs=len(signature.inputs),
                    execution_rows=options.padded_size(batch.num_rows) if batch.num_rows else 0,
                    waited_s=tuple([started_s - part.task.enqueued_s for part in batch.parts]),
                    run_s=done_s - started_s,
                    reason=batch.reason,
                    is_batched=options.is_enabled,
                    done_s=done_s,
                    is_background=is_background,
                )
            )

        return observe


@dataclass(eq=False, repr=False, slots=True)
class VersionRecord:
    """What the manager knows of one version. Guarded by the manager's lock.

    Attributes:
        source: where it comes from.
        state: its state.
        loaded: what it holds; None unless it is loaded.
        num_handles: requests that hold it.
        error: why it could not be loaded, or None.
        detail: what is being done while it is loaded, in words.
        done: steps of that.
        total: steps of that in all.
        unload_by_s: when it is unloaded although requests hold it, on the manager's clock.
        busy_until_s: the latest deadline of those requests.
        weights_bytes: what its folder takes on disk.
        num_tries: loads that failed.
        retry_at_s: when the next load is tried; None without one.
        in_use: tells others that its folder is in use; None unless it is loaded.
        ended_at_s: when it ended, on the manager's clock.
    """

    source: VersionSource
    state: VersionState = VersionState.START
    loaded: LoadedVersion | None = None
    num_handles: int = 0
    error: ServingError | None = None
    detail: str = "loading"
    done: int = 0
    total: int = 1
    unload_by_s: float = 0.0
    busy_until_s: float = 0.0
    weights_bytes: int = 0
    num_tries: int = 0
    retry_at_s: float | None = None
    in_use: FolderInUse | None = None
    ended_at_s: float = 0.0

    def close(self) -> None:
        """Free what it holds; without the manager's lock, which requests need meanwhile."""
        for held in (self.loaded, self.in_use):
            if held is not None:
                held.close()

    def status(self, version: int) -> VersionStatus:
        """The snapshot for others."""
        ended_by = self.error if self.state is VersionState.END else None
        is_coming = self.state in (VersionState.START, VersionState.LOADING)
        return VersionStatus(
            version=version,
            state=self.state,
            error_code="OK" if ended_by is None else ended_by.code,
            error_message="" if ended_by is None else ended_by.message,
            detail=self.detail if is_coming else "" if self.loaded is None else self.loaded.long_run(),
            deployed_at=self.source.deployed_at,
            weights_bytes=0 if self.loaded is None else self.weights_bytes,
            done=self.done,
            total=self.total,
            alone={} if self.loaded is None else self.loaded.alone,
            changes="" if self.loaded is None else self.loaded.servable.effects.lasting,
            draws={} if self.loaded is None else self.loaded.servable.effects.draws,
            problem="" if self.loaded is None else self.loaded.problem,
            notes=() if self.loaded is None else self.loaded.notes,
            variant=PLAIN if self.loaded is None else self.loaded.variant,
            engine=TENSORFLOW if self.loaded is None else self.loaded.engine,
            engines=() if self.loaded is None else self.loaded.engines,
            batching={} if self.loaded is None else self.source.options.to_json(),
        )


class VersionHandle:
    """A `Handle`: one pinned version.

    Args:
        version: its number.
        record: counts its handles.
        loaded: queues its requests.
        release: called once, when the handle is released.

    Attributes:
        assignment: how the request came here, while traffic is split or compared.
        copier: copies what is submitted for another version, or None.
        wants_tensors: whether an observer wants the request's tensors.
    """

    __slots__ = (
        "_loaded",
        "_record",
        "_release",
        "assignment",
        "copier",
        "signature_defs",
        "signatures",
        "version",
        "wants_tensors",
    )

    def __init__(
        self, version: int, record: VersionRecord, loaded: LoadedVersion, release: Callable[[VersionRecord], None]
    ) -> None:
        self.version = version
        self.assignment: Assignment | None = None
        self.copier: RequestCopier | None = None
        self.wants_tensors = False
        self.signatures: Mapping[str, SignatureSpec] = loaded.servable.signatures
        self.signature_defs: SignatureDefs = loaded.servable.signature_defs
        self._record = record
        self._loaded = loaded
        self._release: Callable[[VersionRecord], None] | None = release

    @property
    def servable(self) -> Servable:
        """What it pins."""
        return self._loaded.servable

    def shares_runs(self, signature: str) -> bool:
        """Whether rows of a signature may run together; see `Handle.shares_runs`."""
        return self._loaded.view.batchable[signature]

    def submit(
        self, signature: str, inputs: Tensors, *, deadline_s: float, on_done: OnDone, wakes: bool = True
    ) -> Ticket:
        """Check the inputs and queue them; see `Handle.submit`."""
        record, loaded = self._record, self._loaded
        # An unload waits for the latest deadline of those who hold the version; only a later one matters.
        if deadline_s > record.busy_until_s:  # noqa: PLR1730 - a call of max costs three times as much
            record.busy_until_s = deadline_s
        num_rows = loaded.checks[signature](inputs)
        if self.copier is not None:
            on_done = self.copier(signature, inputs, on_done)
        return loaded.runner.submit(
            loaded.lanes[signature],
            inputs,
            1 if num_rows is None else num_rows,
            deadline_s=deadline_s,
            on_done=on_done,
            is_alone=num_rows is None,
            wakes=wakes,
        )

    def submit_copy(self, signature: str, inputs: Tensors, *, deadline_s: float, on_done: OnDone) -> Task:
        """Queue a shadow copy, to be run when no request wants the device; as `submit`."""
        loaded = self._loaded
        if signature not in self.signatures:
            raise InvalidRequest(f'Serving signature name: "{signature}" not found in signature def')
        num_rows = loaded.checks[signature](inputs)
        return loaded.runner.submit(
            loaded.background(signature),
            inputs,
            1 if num_rows is None else num_rows,
            deadline_s=deadline_s,
            on_done=on_done,
            is_alone=num_rows is None,
        )

    def release(self) -> None:
        """Unpin the version; further calls do nothing."""
        release, self._release = self._release, None
        if release is not None:
            release(self._record)
