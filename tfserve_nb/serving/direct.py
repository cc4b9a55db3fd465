"""Predict without a socket: the same routing, checks and batch queue as for HTTP, arrays in and arrays out.

Thread: any; the caller waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any  # what users pass to predict

import numpy as np

from ..errors import DeadlineExceeded, InvalidRequest, QueueFull, ServingError
from ..types import SignatureSpec, Tensors
from .backend import Answer, Assignment, Handle, InferenceBackend, ModelSpec, Outcome, Ticket
from .telemetry.records import RequestRecord, RequestTensors
from .versions.inputs import as_tensors, check_inputs

MAX_IN_FLIGHT = 4
"""Pieces of one large request that are queued at once; few, so that it does not push others out of the queue."""


class _Waiter:
    """One submitted piece and its outcome."""

    __slots__ = ("_done", "_outcome", "_ticket")

    def __init__(self, handle: Handle, signature: str, inputs: Tensors, deadline_s: float) -> None:
        self._done = threading.Event()
        self._outcome: Outcome | None = None
        self._ticket: Ticket = handle.submit(signature, inputs, deadline_s=deadline_s, on_done=self._finish)

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._done.set()

    def cancel(self) -> None:
        self._ticket.cancel()

    def result(self, deadline_s: float) -> Answer:
        if not self._done.wait(max(0.0, deadline_s - time.perf_counter()) + 1.0):
            self._ticket.cancel()
            raise DeadlineExceeded("Timed out waiting for notification", hint="a larger timeout_s, or a smaller batch")
        if isinstance(self._outcome, Answer):
            return self._outcome
        raise self._outcome or DeadlineExceeded("Timed out waiting for notification")


def predict(
    backend: InferenceBackend, spec: ModelSpec, signature_name: str, value: Any, *, rows: int, limit_s: float,
    key: str = "", request_id: str = "",
) -> Tensors:  # fmt: skip
    """Answer one request of this process.

    Args:
        backend: the core.
        spec: which model and version.
        signature_name: such as `serving_default`.
        value: array-like for one input, or a dict of name -> array-like; dimension 0 counts rows.
        rows: rows of one piece; larger requests are sent in pieces, all to the same version.
        limit_s: seconds that one piece may wait.
        key: keeps its client with one version while the traffic is split; "" for none.
        request_id: what the caller names the request, for feedback; "" for nothing.

    Returns:
        name -> array; row i answers input row i.

    Raises:
        ServingError: InvalidRequest, ModelNotFound, LabelNotFound, QueueFull, DeadlineExceeded or RunFailed.
    """
    notes = _Notes(time.perf_counter(), key, request_id)
    try:
        outputs = _joined(_answers(backend, spec, signature_name, value, rows, limit_s, notes))
        notes.outputs = outputs
        return outputs  # noqa: TRY300 - `finally` follows
    except ServingError as error:
        notes.code, notes.message = error.code, error.message
        raise
    except BaseException:
        notes.code = "CANCELLED"
        raise
    finally:
        tensors = None
        if notes.wants_tensors and notes.inputs is not None:
            tensors = RequestTensors(notes.inputs, notes.outputs, notes.message)
        backend.record(notes.record(spec.name, signature_name), tensors)


@dataclass(slots=True)
class _Notes:
    """What becomes the `RequestRecord`."""

    received_s: float
    key: str = ""
    request_id: str = ""
    decoded_s: float = 0.0
    started_s: float | None = None
    done_s: float | None = None
    version: int | None = None
    num_rows: int = 0
    code: str = "OK"
    message: str = ""
    inputs: Tensors | None = None
    outputs: Tensors | None = None
    assignment: Assignment | None = None
    wants_tensors: bool = False

    def record(self, model: str, signature: str) -> RequestRecord:
        return RequestRecord(
            model,
            self.version,
            signature,
            self.code,
            self.num_rows,
            self.received_s,
            self.decoded_s or self.received_s,
            self.started_s,
            self.done_s,
            time.perf_counter(),
            key="" if self.assignment is None else self.assignment.key,
            request_id=self.request_id,
            is_assigned=self.assignment is not None and self.assignment.is_assigned,
        )


def _answers(
    backend: InferenceBackend,
    spec: ModelSpec,
    signature_name: str,
    value: Any,
    rows: int,
    limit_s: float,
    notes: _Notes,
) -> list[Answer]:
    """Pin a version, make the value fit it, and run."""
    handle = backend.acquire(spec, key=notes.key)
    try:
        notes.version, notes.assignment = handle.version, handle.assignment
        notes.wants_tensors = handle.wants_tensors
        signature = handle.signatures.get(signature_name)
        if signature is None:
            raise InvalidRequest(
                f'Serving signature name: "{signature_name}" not found in signature def',
                hint=f"signatures: {', '.join(handle.signatures)}",
            )
        inputs = as_tensors(signature, value)
        notes.inputs = inputs
        notes.num_rows = check_inputs(signature, inputs)
        notes.decoded_s = time.perf_counter()
        answers = _run(handle, signature, inputs, notes.num_rows, rows, limit_s)
        notes.started_s, notes.done_s = answers[0].started_s, answers[-1].done_s
        return answers
    finally:
        handle.release()


def _run(
    handle: Handle, signature: SignatureSpec, inputs: Tensors, num_rows: int, rows: int, limit_s: float
) -> list[Answer]:
    """Submit in pieces of `rows` rows, a few at a time, and collect the answers in order."""
    can_cut = num_rows > rows and all(
        spec.is_batched for spec in (*signature.inputs.values(), *signature.outputs.values())
    )
    starts = range(0, num_rows, rows) if can_cut else (0,)
    in_flight: deque[_Waiter] = deque()
    answers: list[Answer] = []
    try:
        for start in starts:
            piece = {name: array[start : start + rows] for name, array in inputs.items()} if can_cut else inputs
            if len(in_flight) == MAX_IN_FLIGHT:
                answers.append(in_flight.popleft().result(time.perf_counter() + limit_s))
            while True:
                try:
                    in_flight.append(_Waiter(handle, signature.name, piece, time.perf_counter() + limit_s))
                    break
                except QueueFull:
                    if not in_flight:
                        raise
                    answers.append(in_flight.popleft().result(time.perf_counter() + limit_s))
        while in_flight:
            answers.append(in_flight.popleft().result(time.perf_counter() + limit_s))
    finally:
        for waiter in in_flight:
            waiter.cancel()
    return answers


def _joined(answers: list[Answer]) -> Tensors:
    if len(answers) == 1:
        return answers[0].outputs
    return {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in answers[0].outputs}
