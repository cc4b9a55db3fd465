"""Predict without a socket: the same routing, checks and batch queue as for HTTP, arrays in and arrays out.

Thread: any; the caller waits.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from typing import Any  # what users pass to predict

import numpy as np

from ..errors import DeadlineExceeded, QueueFull, ServingError
from ..export.arrays import read_rows
from ..types import SignatureSpec, Tensors
from .backend import Answer, Assignment, Handle, InferenceBackend, ModelSpec, Outcome, Ticket
from .telemetry.records import RequestRecord, RequestTensors
from .versions.inputs import check_inputs, signature_named

MAX_IN_FLIGHT = 4
"""Pieces of one large request that are queued at once; few, so that it does not push others out of the queue."""


def predict(
    backend: InferenceBackend, spec: ModelSpec, signature_name: str, value: Any, *, rows: int, limit_s: float,
    key: str = "", request_id: str = "",
) -> Tensors:  # fmt: skip
    """Run one request of this process.

    Args:
        backend: the core.
        spec: which model and version.
        signature_name: such as `serving_default`.
        value: rows, as `read_rows` takes them.
        rows: rows of one piece; larger requests are sent in pieces, all to the same version, if their rows may be cut.
        limit_s: seconds that one piece may wait.
        key: keeps its client with one version while the traffic is split; "" for none.
        request_id: the caller's id of the request, for feedback; "" for none.

    Returns:
        name -> array; row i answers input row i.

    Raises:
        ServingError: InvalidRequest, ModelNotFound, LabelNotFound, QueueFull, DeadlineExceeded or RunFailed.
    """
    received_s = time.perf_counter()
    record = RequestRecord(
        spec.name, None, signature_name, "OK", 0, received_s, received_s, None, None, received_s, request_id=request_id
    )
    handle: Handle | None = None
    inputs: Tensors | None = None
    outputs: Tensors | None = None
    message = ""
    try:
        handle = backend.acquire(spec, key=key)
        assignment = handle.assignment or Assignment()
        record = record._replace(version=handle.version, key=assignment.key, is_assigned=assignment.is_assigned)
        signature = signature_named(handle.signatures, signature_name)
        inputs = read_rows(signature, value)
        record = record._replace(num_rows=check_inputs(signature, inputs), decoded_s=time.perf_counter())
        answers = _run(handle, signature, inputs, record.num_rows, rows, limit_s)
        record = record._replace(started_s=answers[0].started_s, done_s=answers[-1].done_s)
        outputs = _joined(answers)
        return outputs  # noqa: TRY300 - `finally` follows
    except ServingError as error:
        record, message = record._replace(code=error.code), error.message
        raise
    except BaseException:
        record = record._replace(code="CANCELLED")
        raise
    finally:
        tensors = None
        if handle is not None:
            handle.release()
            if handle.wants_tensors and inputs is not None:
                tensors = RequestTensors(inputs, outputs, message)
        backend.record(record._replace(written_s=time.perf_counter()), tensors)


def _run(
    handle: Handle, signature: SignatureSpec, inputs: Tensors, num_rows: int, rows: int, limit_s: float
) -> list[Answer]:
    """Submit in pieces of `rows` rows, a few at a time, and collect the outputs in order."""
    can_cut = num_rows > rows and handle.shares_runs(signature.name)
    starts = range(0, num_rows, rows) if can_cut else (0,)
    in_flight: deque[tuple[Ticket, Future[Outcome]]] = deque()
    answers: list[Answer] = []

    def submit(piece: Tensors) -> None:
        done: Future[Outcome] = Future()
        deadline_s = time.perf_counter() + limit_s
        in_flight.append((handle.submit(signature.name, piece, deadline_s=deadline_s, on_done=done.set_result), done))

    def wait_for_oldest() -> None:
        answers.append(_result(in_flight[0][1], limit_s))
        in_flight.popleft()

    try:
        for start in starts:
            piece = {name: array[start : start + rows] for name, array in inputs.items()} if can_cut else inputs
            if len(in_flight) == MAX_IN_FLIGHT:
                wait_for_oldest()
            while True:
                try:
                    submit(piece)
                    break
                except QueueFull:
                    if not in_flight:
                        raise
                    wait_for_oldest()
        while in_flight:
            wait_for_oldest()
    finally:
        for ticket, _ in in_flight:
            ticket.cancel()
    return answers


def _result(done: Future[Outcome], limit_s: float) -> Answer:
    """Wait for the outcome of one piece, for a second longer than it may take."""
    try:
        outcome = done.result(limit_s + 1.0)
    except TimeoutError:
        raise DeadlineExceeded(
            "Timed out waiting for notification", hint="a larger timeout_s, or a smaller batch"
        ) from None
    if isinstance(outcome, ServingError):
        raise outcome
    return outcome


def _joined(answers: list[Answer]) -> Tensors:
    if len(answers) == 1:
        return answers[0].outputs
    return {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in answers[0].outputs}
