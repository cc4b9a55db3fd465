"""The core as a worker sees it: an `InferenceBackend` over a link.

Requests for the same signature wait here until the core has finished enough of what it was given, and leave in bundles.
So batches form on this side, and the core's process does something once for a bundle and not for each request.

Thread: the worker's loop.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from ...errors import Cancelled, DeadlineExceeded, ModelNotFound, NotAvailable, QueueFull
from ...serving.backend import Answer, Assignment, Key, ModelSpec, ModelView, Outcome, VersionView, assignment_of
from ...serving.telemetry.records import RequestRecord, RequestTensors
from ...serving.versions.inputs import Check, check_of, has_one_shape
from ...types import SignatureDefs, SignatureSpec, Tensors, VersionStatus
from .link import Link
from .messages import Bundle, BundleAnswer, GiveUpBundle, ObservedRequest, Piece, Records

ROWS_AHEAD = 2
"""Batches' worth of rows that the core is given before it has answered: one to run, one to take next."""

LEAST_AHEAD = 32
"""Requests that the core is given in any case, when rows cannot share a run."""

RECORDS_EACH_S = 0.1

DEADLINES_WITHIN_S = 1.0
"""How far apart the deadlines in a bundle may be: the core gives up a bundle as a whole."""


class LinkTask:
    """A submitted request, and its `Ticket`."""

    __slots__ = ("bundle", "deadline_s", "handle", "inputs", "is_alone", "is_over", "lane", "num_rows", "on_done")

    def __init__(
        self, lane: Lane, handle: LinkHandle, inputs: Tensors, num_rows: int | None, deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> None:  # fmt: skip
        self.lane = lane
        self.handle = handle
        self.inputs = inputs
        self.is_alone = num_rows is None  # its inputs have no common dimension 0
        self.num_rows = 1 if num_rows is None else num_rows
        self.deadline_s = deadline_s
        self.on_done = on_done
        self.bundle = 0
        self.is_over = False

    def finish(self, outcome: Outcome) -> None:
        """Pass the outcome on, once."""
        if not self.is_over:
            self.is_over = True
            self.on_done(outcome)

    def cancel(self) -> None:
        """Give up; a bundle whose clients have all left is taken back from the core."""
        if not self.is_over:
            self.finish(Cancelled("the caller went away"))
            if self.bundle:
                self.lane.backend.request_given_up(self.bundle)


class Lane:
    """The requests for one signature of one version, named by requests in one way.

    Args:
        backend: whose lane it is.
        spec: what these requests name.
        version: the version they are decoded by.
        view: what is known of it.
        signature: the signature.

    Attributes:
        backend: whose lane it is.
        view: what is known of the version.
    """

    def __init__(self, backend: LinkBackend, spec: ModelSpec, version: int, view: VersionView, signature: str) -> None:
        self.backend = backend
        self._spec = spec
        self._version = version
        self.view = view
        self._signature = signature
        self._shares_runs = view.batchable[signature]
        self._has_one_shape = view.checks_shapes and has_one_shape(view.signatures[signature])
        self._waiting: deque[LinkTask] = deque()
        self._num_waiting = 0
        self._ahead = 0
        self._most_ahead = ROWS_AHEAD * view.max_batch_size if self._shares_runs else LEAST_AHEAD
        self.check: Check = check_of(view.signatures[signature], checks_shapes=view.checks_shapes)

    def add(self, task: LinkTask) -> None:
        """Let a request wait for its bundle.

        Raises:
            QueueFull: if too many rows wait.
        """
        if self._num_waiting and self._num_waiting + task.num_rows > self.view.max_enqueued_rows:
            raise QueueFull(
                "The batch scheduling queue to which this task was submitted is full; "
                f"{self._num_waiting} rows wait in this worker, at most {self.view.max_enqueued_rows} may",
                hint="send less at once, or deploy with a larger --max-enqueued-batches",
            )
        self._num_waiting += task.num_rows
        self._waiting.append(task)

    def flush(self) -> None:
        """Send bundles as long as the core has room for them."""
        while self._waiting and self._ahead < self._most_ahead and not self.backend.is_congested:
            tasks = self._next_tasks()
            if tasks:
                self._ahead += sum([task.num_rows for task in tasks]) if self._shares_runs else len(tasks)
                self.backend.send_bundle(self, tasks, self._bundle(tasks))

    def done(self, tasks: list[LinkTask]) -> None:
        """The core has answered a bundle: there is room for more."""
        self._ahead -= sum([task.num_rows for task in tasks]) if self._shares_runs else len(tasks)
        self.flush()

    def fail(self, error: NotAvailable) -> None:
        """Fail the requests that wait: the core is gone."""
        while self._waiting:
            self._waiting.popleft().finish(error)
        self._num_waiting = 0

    def _next_tasks(self) -> list[LinkTask]:
        """The requests of the next bundle; those that are over or too late are left behind."""
        now_s = time.perf_counter()
        tasks: list[LinkTask] = []
        num_rows = 0
        while self._waiting:
            task = self._waiting[0]
            if tasks and (not self._shares_runs or not self._fits(task, tasks[0], num_rows)):
                break
            self._waiting.popleft()
            self._num_waiting -= task.num_rows
            if task.deadline_s <= now_s:
                task.finish(DeadlineExceeded("Run() timeout exceeded while waiting in batching queue"))
            if not task.is_over:
                tasks.append(task)
                num_rows += task.num_rows
        return tasks

    def _fits(self, task: LinkTask, first: LinkTask, num_rows: int) -> bool:
        if task.is_alone or first.is_alone or num_rows + task.num_rows > self.view.max_batch_size:
            return False
        if abs(task.deadline_s - first.deadline_s) > DEADLINES_WITHIN_S:
            return False
        return self._has_one_shape or all(
            array.shape[1:] == first.inputs[name].shape[1:] for name, array in task.inputs.items()
        )

    def _bundle(self, tasks: list[LinkTask]) -> Bundle:
        first = tasks[0].inputs
        inputs = first
        if len(tasks) > 1:
            inputs = {name: np.concatenate([task.inputs[name] for task in tasks]) for name in first}
        counts = tuple([task.num_rows for task in tasks])
        deadline_s = max([task.deadline_s for task in tasks])
        number = self.backend.next_number()
        return Bundle(number, self._spec, self._version, self._signature, counts, deadline_s, inputs)


class LinkHandle:
    """A version that a request was decoded by. Nothing is pinned here: the core pins what it runs.

    Attributes:
        version: its number; the version that answered, once there is a response.
        assignment: how the request came to it, while traffic is split or compared.
        wants_tensors: whether an observer of the core wants the request's tensors.
    """

    __slots__ = ("_backend", "_spec", "_view", "assignment", "signature_defs", "signatures", "version", "wants_tensors")

    def __init__(self, backend: LinkBackend, spec: ModelSpec, version: int, view: VersionView) -> None:
        self._backend = backend
        self._spec = spec
        self._view = view
        self.version = version
        self.assignment: Assignment | None = None
        self.wants_tensors = False
        self.signatures: Mapping[str, SignatureSpec] = view.signatures
        self.signature_defs = SignatureDefs(b"", {})

    def shares_runs(self, signature: str) -> bool:
        """Whether rows of a signature may run together, as of the core's last message."""
        return self._view.batchable[signature]

    def submit(
        self,
        signature: str,
        inputs: Tensors,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
        wakes: bool = True,
    ) -> LinkTask:
        """Check the inputs and let them wait for a bundle; see `Handle.submit`."""
        lane = self._backend.lane(self._spec, self.version, self._view, signature)
        num_rows = lane.check(inputs)
        task = LinkTask(lane, self, inputs, num_rows, deadline_s, on_done)
        lane.add(task)
        if wakes:
            lane.flush()
        return task

    def answered_by(self, version: int) -> None:
        """Note the version that answered: the core decides."""
        if version != self.version and self.assignment is not None:
            model = self._backend.catalog().get(self._spec.name)  # it may be gone by now
            arm = "" if model is None else model.arms.get(version, "")
            self.assignment = self.assignment._replace(arm=arm)
        self.version = version

    def release(self) -> None:
        """Nothing is held."""


class LinkBackend:
    """An `InferenceBackend` whose core is at the other end of a link.

    Args:
        link: the way there.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._models: Mapping[str, ModelView] = {}
        self._lanes: dict[tuple[ModelSpec, int, str], Lane] = {}
        self._bundles: dict[int, tuple[Lane, list[LinkTask]]] = {}
        self._number = 0
        self._records: list[RequestRecord] = []

    # --- InferenceBackend ----------------------------------------------------------------------------------------

    def knows(self, spec: ModelSpec) -> bool:
        """Whether requests of this kind can be decoded here; the core answers all others itself."""
        model = self._models.get(spec.name)
        return model is not None and model.version_for(spec, random.random) is not None

    def acquire(self, spec: ModelSpec, preferred: int | None = None, key: Key | None = None) -> LinkHandle:
        """Choose the version that a request is decoded by; the core takes the same one if it can."""
        del preferred
        model = self._models.get(spec.name)
        key_value = "" if model is None else model.key_of(key)
        version = None if model is None else model.version_for(spec, random.random, key_value)
        if model is None or version is None:
            raise ModelNotFound(f"Servable not found for request: {spec.name}")
        handle = LinkHandle(self, spec, version, model.versions[version])
        handle.assignment = assignment_of(spec, version, key_value, model.traffic, model.arms)
        handle.wants_tensors = model.wants_tensors
        return handle

    @property
    def coming(self) -> frozenset[str]:
        """The core answers for models that are not served yet."""
        return frozenset()

    def wake(self) -> None:
        """Send what waits."""
        for lane in self._lanes.values():
            lane.flush()

    def status(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        """The core serves status requests itself."""
        raise NotAvailable(f"the status of {spec.name} is not known in a worker")

    def record(self, record: RequestRecord, tensors: RequestTensors | None = None) -> None:
        """Pass a finished request on: with its tensors at once, without them together with others.

        A core that does not keep up gets no tensors.
        """
        if tensors is not None and not self._link.is_congested:
            self._link.send(ObservedRequest(record, tensors))
        else:
            self._records.append(record)

    def catalog(self) -> Mapping[str, ModelView]:
        """What the core serves, as of its last message."""
        return self._models

    # --- lanes --------------------------------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether the core does not even read."""
        return self._link.is_congested

    def lane(self, spec: ModelSpec, version: int, view: VersionView, signature: str) -> Lane:
        """Where a request waits."""
        key = (spec, version, signature)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self, spec, version, view, signature)
        return lane

    def next_number(self) -> int:
        """A number for a bundle."""
        self._number += 1
        return self._number

    def send_bundle(self, lane: Lane, tasks: list[LinkTask], bundle: Bundle) -> None:
        """Give the core some requests."""
        self._bundles[bundle.number] = lane, tasks
        for task in tasks:
            task.bundle = bundle.number
        self._link.send(bundle)

    def request_given_up(self, number: int) -> None:
        """One of a bundle's requests is over before its time."""
        bundle = self._bundles.get(number)
        if bundle is not None and all(task.is_over for task in bundle[1]):
            lane, tasks = self._bundles.pop(number)
            self._link.send(GiveUpBundle(number))
            lane.done(tasks)

    def send_records(self) -> None:
        """Pass finished requests on; called now and then."""
        records, self._records = self._records, []
        if records:
            self._link.send(Records(tuple(records)))

    # --- from the core ------------------------------------------------------------------------------------------

    def set_models(self, models: Mapping[str, ModelView]) -> None:
        """The core serves something else now; it fails the requests for versions that are gone."""
        self._models = models
        for key, lane in list(self._lanes.items()):
            spec, version, _ = key
            model = models.get(spec.name)
            if model is None or model.versions.get(version) != lane.view:
                lane.flush()  # what the core has no room for now follows its responses
                del self._lanes[key]

    def answered(self, answer: BundleAnswer) -> None:
        """The core has answered a bundle."""
        bundle = self._bundles.pop(answer.number, None)
        if bundle is None:
            return
        lane, tasks = bundle
        first = 0
        for piece in answer.pieces:
            last = first + piece.num_requests
            _deliver(tasks[first:last], piece, answer.version)
            first = last
        lane.done(tasks)


def _deliver(tasks: list[LinkTask], piece: Piece, version: int) -> None:
    if piece.outputs is None:
        for task in tasks:
            task.handle.answered_by(version)
            task.finish(piece.error or NotAvailable("the core gave no reason"))
        return
    if len(tasks) == 1:
        tasks[0].handle.answered_by(version)
        tasks[0].finish(Answer(piece.outputs, piece.started_s, piece.done_s))
        return
    first = 0
    for task in tasks:
        last = first + task.num_rows
        task.handle.answered_by(version)
        outputs = {name: array[first:last] for name, array in piece.outputs.items()}
        task.finish(Answer(outputs, piece.started_s, piece.done_s))
        first = last
