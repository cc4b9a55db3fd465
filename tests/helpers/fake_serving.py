"""A `InferenceBackend` without TensorFlow: model `double` in versions 1 and 2, answers on a thread of its own.

Version 2 gets all requests that name none, unless a test sets `traffic` and `arms`. Version v answers `2 x + v`. `x` is
float32 `(rows, 2)`; `text` echoes strings; `pair` has two inputs and two outputs.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from tfserve_nb.errors import (
    Cancelled,
    InvalidRequest,
    LabelNotFound,
    ModelNotFound,
    RunRejected,
    ServingError,
    VersionNotFound,
)
from tfserve_nb.serving.backend import (
    Answer,
    Assignment,
    Key,
    ModelSpec,
    ModelView,
    Outcome,
    VersionView,
    assignment_of,
    found_key,
)
from tfserve_nb.serving.telemetry.observer import Observers
from tfserve_nb.serving.telemetry.records import RequestRecord, RequestTensors
from tfserve_nb.serving.traffic import choose, choose_by_key
from tfserve_nb.serving.versions.inputs import check_inputs
from tfserve_nb.types import SignatureDefs, SignatureSpec, Tensors, TensorSpec, VersionState, VersionStatus

BAD = -1000.0
F32 = TensorSpec("x", "float32", (None, 2), "serving_default_x:0")
SIGNATURES = {
    "serving_default": SignatureSpec(
        "serving_default", {"x": F32}, {"y": TensorSpec("y", "float32", (None, 2), "StatefulPartitionedCall:0")}
    ),
    "text": SignatureSpec(
        "text",
        {"s": TensorSpec("s", "string", (None,))},
        {"s_bytes": TensorSpec("s_bytes", "string", (None,)), "t": TensorSpec("t", "string", (None,))},
    ),
    "pair": SignatureSpec(
        "pair",
        {"a": TensorSpec("a", "int32", (None,)), "b": TensorSpec("b", "float32", (None, 2))},
        {"sum": TensorSpec("sum", "float32", (None,)), "product": TensorSpec("product", "float32", (None, 2))},
    ),
}

SIGNATURE_DEFS = SignatureDefs(
    b"",
    {
        "signature_def": {
            "serving_default": {
                "inputs": {
                    "x": {
                        "dtype": "DT_FLOAT",
                        "tensor_shape": {
                            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
                            "unknown_rank": False,
                        },
                        "name": "serving_default_x:0",
                    }
                }
            }
        }
    },
)


class FakeTicket:
    """Remembers that it was cancelled."""

    def __init__(self, on_done: Callable[[Outcome], None]) -> None:
        self.on_done = on_done
        self.lock = threading.Lock()
        self.is_finished = False
        self.was_cancelled = threading.Event()

    def finish(self, outcome: Outcome) -> None:
        with self.lock:
            if self.is_finished:
                return
            self.is_finished = True
        self.on_done(outcome)

    def cancel(self) -> None:
        if not self.is_finished:
            self.was_cancelled.set()
            self.finish(Cancelled("gone"))


class FakeHandle:
    """One pinned version."""

    def __init__(self, serving: FakeServing, version: int) -> None:
        self.version = version
        self.signatures: Mapping[str, SignatureSpec] = SIGNATURES
        self.signature_defs = SIGNATURE_DEFS
        self.assignment: Assignment | None = None
        self.wants_tensors = False
        self._serving = serving
        serving.num_held += 1

    def shares_runs(self, signature: str) -> bool:
        return signature in self.signatures

    def submit(
        self,
        signature: str,
        inputs: Tensors,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
        wakes: bool = True,
    ) -> FakeTicket:
        assert deadline_s > time.perf_counter()
        check_inputs(self.signatures[signature], inputs)
        if self._serving.refusal is not None:
            raise self._serving.refusal
        ticket = FakeTicket(on_done)
        self._serving.tickets.append(ticket)
        self._serving.asleep.put((ticket, self.version, signature, inputs))
        if wakes:
            self._serving.wake()
        return ticket

    def release(self) -> None:
        self._serving.num_held -= 1


class FakeServing:
    """An `InferenceBackend`; close it after use."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[tuple[FakeTicket, int, str, Tensors] | None] = queue.SimpleQueue()
        self.asleep: queue.SimpleQueue[tuple[FakeTicket, int, str, Tensors]] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.tickets: list[FakeTicket] = []
        self.records: list[RequestRecord] = []
        self.recorded = threading.Condition()
        self.observers = Observers()
        self.traffic: dict[int, float] = {2: 100.0}
        self.arms: dict[int, str] = {}
        self.insists_on: int | None = None
        self.num_held = 0
        self.breaks = False
        self.refusal: ServingError | None = None
        self._thread = threading.Thread(target=self._run, name="fake-runner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.gate.set()
        self.work.put(None)
        self._thread.join(5)

    @property
    def coming(self) -> frozenset[str]:
        return frozenset()

    def catalog(self) -> dict[str, ModelView]:
        view = VersionView(SIGNATURES, dict.fromkeys(SIGNATURES, True), 64, 6400, checks_shapes=True)
        versions, is_wanted = {1: view, 2: view}, self.observers.wants_tensors("double")
        model = ModelView(self.traffic, {"stable": 1}, versions, "salt", arms=self.arms, wants_tensors=is_wanted)
        return {"double": model}

    def acquire(self, spec: ModelSpec, preferred: int | None = None, key: Key | None = None) -> FakeHandle:
        if self.breaks:
            raise ZeroDivisionError("secret detail")
        if spec.name != "double":
            raise ModelNotFound(f"Servable not found for request: Latest({spec.name})")
        if spec.label not in (None, "stable"):
            raise LabelNotFound(f"Unrecognized servable version label: {spec.label}")
        who = found_key(key, "x-tfserve-key") if len(self.traffic) > 1 or self.arms else ""
        chosen = choose_by_key(self.traffic, "salt", who) if who else choose(self.traffic, random.random())  # noqa: S311
        version = (
            self.insists_on or spec.version or (1 if spec.label else preferred if preferred in self.traffic else chosen)
        )
        if version > 2:
            raise ModelNotFound(f"Servable not found for request: Specific({spec.name}, {version})")
        handle = FakeHandle(self, version)
        handle.wants_tensors = self.observers.wants_tensors("double")
        handle.assignment = assignment_of(spec, version, who, self.traffic, self.arms)
        return handle

    def wake(self) -> None:
        while not self.asleep.empty():
            self.work.put(self.asleep.get())

    def status(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        if spec.name != "double":
            raise ModelNotFound(f"Could not find any versions of model {spec.name}")
        versions = tuple(VersionStatus(number, VersionState.AVAILABLE) for number in (2, 1))
        if spec.version is None:
            return versions
        found = tuple(status for status in versions if status.version == spec.version)
        if not found:
            raise VersionNotFound(f"Could not find version {spec.version} of model double")
        return found

    def record(self, record: RequestRecord, tensors: RequestTensors | None = None) -> None:
        self.observers.on_request(record, tensors)
        with self.recorded:
            self.records.append(record)
            self.recorded.notify_all()

    def wait_for_records(self, number: int) -> list[RequestRecord]:
        """The records, once there are so many."""
        with self.recorded:
            assert self.recorded.wait_for(lambda: len(self.records) >= number, 5)
            return list(self.records)

    def _run(self) -> None:
        while (item := self.work.get()) is not None:
            ticket, version, signature, inputs = item
            self.gate.wait(10)
            started_s = time.perf_counter()
            try:
                outputs = self._outputs(version, signature, inputs)
                ticket.finish(Answer(outputs, started_s, time.perf_counter()))
            except InvalidRequest as error:
                ticket.finish(error)
            except RunRejected as error:
                ticket.finish(error)

    @staticmethod
    def _outputs(version: int, signature: str, inputs: Tensors) -> dict[str, np.ndarray]:
        if signature == "text":
            return {"s_bytes": inputs["s"], "t": inputs["s"]}
        if signature == "pair":
            return {"sum": inputs["a"] + inputs["b"].sum(axis=1), "product": inputs["a"][:, None] * inputs["b"]}
        if (inputs["x"] == BAD).any():
            raise RunRejected("bad value")
        return {"y": inputs["x"] * np.float32(2) + np.float32(version)}
