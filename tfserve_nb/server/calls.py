"""Submits decoded requests to the backend without blocking the event loop; REST and gRPC share it.

Thread: the server's loop.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import TypeAlias

from ..errors import DeadlineExceeded, InvalidRequest
from ..serving.backend import Answer, Assignment, Handle, InferenceBackend, ModelSpec, Outcome, Ticket
from ..serving.telemetry.records import RequestRecord, RequestTensors
from ..types import Tensors
from .event_loop import Completions
from .telemetry.request_log import RequestLog


class RequestContext:
    """One request's notes for its `RequestRecord`: the timestamps, and what is known of it.

    Args:
        received_s: `perf_counter` time of the request's head.

    Attributes:
        api: the call, such as `Predict` (gRPC) or `predict` (REST).
        entrypoint: `GRPC` or `REST`.
        assignment: how it came to its version, while traffic is split or compared.
        request_id: what client and server call it, while traffic is compared or observed; or "".
        limit_s: how long its client waits, in seconds, as far as it says so.
        wants_tensors: whether observers want to see what it carries.
        tensors: what it carries, while they do.
    """

    # Defaults of the class: setting them for each request would cost more than what most requests change.
    api = ""
    entrypoint = "REST"
    label = ""
    model = ""
    signature = ""
    code = "OK"
    num_rows = 0
    version: int | None = None
    started_s: float | None = None
    done_s: float | None = None
    wants_tensors = False
    tensors: RequestTensors | None = None
    assignment: Assignment | None = None
    request_id = ""
    limit_s = math.inf

    def __init__(self, received_s: float) -> None:
        self.received_s = received_s
        self.decoded_s = received_s

    @property
    def arm(self) -> str:
        """The version's name in the running comparison, or ""."""
        return "" if self.assignment is None else self.assignment.arm

    def record(self) -> RequestRecord:
        """The record; the response is written now."""
        key, _, is_assigned = self.assignment or _UNASSIGNED
        return RequestRecord(
            self.model,
            self.version,
            self.signature,
            self.code,
            self.num_rows,
            self.received_s,
            self.decoded_s,
            self.started_s,
            self.done_s,
            time.perf_counter(),
            self.api,
            self.entrypoint,
            self.label,
            key,
            self.request_id,
            is_assigned,
        )


_UNASSIGNED = Assignment()

Find: TypeAlias = Callable[[str], str | None]
"""The value of a header field by its name."""

TIMEOUT = "x-tfserve-timeout"
"""The header with the seconds that the client waits for its response."""

REQUEST_ID = "x-request-id"
"""The header with the client's name for its request."""

MAX_ID_CHARS = 128
"""Longer names of requests are ignored."""

MAX_DEFERRED = 8
"""Turns of the loop that submitted requests wait for others at most; each is as short as what came in with it."""


class PendingRequest:
    """One submitted request: the way from the runner's thread back to the loop, and the way to give up.

    Args:
        completions: brings the outcome to the loop.
        resolve: gets the outcome, on the loop, unless the request was cancelled.
        deadline_s: `perf_counter` time after which the response is not wanted any more.
    """

    __slots__ = ("_completions", "_resolve", "deadline_s", "is_over", "ticket")

    def __init__(self, completions: Completions, resolve: Callable[[Outcome], None], deadline_s: float) -> None:
        self._completions = completions
        self._resolve = resolve
        self.deadline_s = deadline_s
        self.ticket: Ticket | None = None
        self.is_over = False

    def on_done(self, outcome: Outcome) -> None:
        """The core has an outcome; any thread."""
        self._completions.put(self.finish, outcome)

    def finish(self, outcome: Outcome) -> None:
        """Pass the outcome on; does nothing once it is over."""
        if not self.is_over:
            self.is_over = True
            resolve, self._resolve, self.ticket = self._resolve, _ignore, None  # no cycle is left for the collector
            resolve(outcome)

    def cancel(self) -> None:
        """The client has left: take the request out of the queue. Does nothing once it is over."""
        if not self.is_over:
            self.is_over = True
            ticket, self.ticket, self._resolve = self.ticket, None, _ignore
            if ticket is not None:
                ticket.cancel()

    def expire(self) -> None:
        """The deadline has passed."""
        if not self.is_over:
            if self.ticket is not None:
                self.ticket.cancel()
            self.finish(DeadlineExceeded("Timed out waiting for notification"))


class Calls:
    """Runs requests on the core without blocking the loop.

    Args:
        backend: the core.
        loop: the server's.
        request_log: gets answered requests, or None.
    """

    def __init__(
        self, backend: InferenceBackend, loop: asyncio.AbstractEventLoop, request_log: RequestLog | None = None
    ) -> None:
        self.backend = backend
        self._request_log = request_log
        self._loop = loop
        self._completions = Completions(loop)
        self._running: set[PendingRequest] = set()
        self._is_waking = False
        self._num_submitted = self._num_seen = self._num_deferred = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf

    @property
    def num_running(self) -> int:
        """Requests on their way."""
        return len(self._running)

    def acquire(self, spec: ModelSpec, notes: RequestContext, find: Find) -> Handle:
        """Choose and pin the version that answers a request.

        Args:
            spec: what it names.
            notes: gets the version, and how it was chosen.
            find: the value of a header (gRPC: metadata) by its name; only called while it is needed.

        Raises:
            ServingError: if there is no such version.
        """
        handle = self.backend.acquire(spec, key=find)
        notes.version = handle.version
        if handle.wants_tensors or handle.assignment is not None:
            notes.wants_tensors = handle.wants_tensors
            notes.assignment = handle.assignment
            notes.request_id = _request_id(find) or (secrets.token_hex(8) if handle.wants_tensors else "")
        return handle

    def start(
        self,
        handle: Handle,
        signature: str,
        inputs: Tensors,
        deadline_s: float,
        notes: RequestContext,
        on_outcome: Callable[[Outcome], None],
    ) -> PendingRequest:
        """Submit a request.

        Args:
            handle: the pinned version.
            signature: a key of the handle's signatures.
            inputs: name -> array.
            deadline_s: `perf_counter` time after which the response is not wanted any more.
            notes: gets the number of rows and the timestamps.
            on_outcome: gets the response, or why there is none, on the loop; not called after `cancel`.

        Raises:
            ServingError: if the request is refused at once.
        """
        notes.num_rows = _num_rows(inputs)
        notes.decoded_s = time.perf_counter()
        if notes.wants_tensors:
            notes.tensors = RequestTensors(inputs)

        def resolve(outcome: Outcome) -> None:
            self._running.discard(running)
            # Only now: a worker learns from the core's response which version it was.
            notes.version, notes.assignment = handle.version, handle.assignment
            if isinstance(outcome, Answer):
                notes.started_s, notes.done_s = outcome.started_s, outcome.done_s
                if self._request_log is not None:
                    api = notes.api.lower()
                    self._request_log.offer(api, notes.model, handle.version, signature, inputs, outcome.outputs)
            if notes.wants_tensors:
                notes.tensors = _tensors(inputs, outcome)
            on_outcome(outcome)

        running = PendingRequest(self._completions, resolve, deadline_s)
        running.ticket = handle.submit(signature, inputs, deadline_s=deadline_s, on_done=running.on_done, wakes=False)
        self._running.add(running)
        self._num_submitted += 1
        if not self._is_waking:
            # Once for everything that this turn of the loop submits: more than one request may have come in.
            self._is_waking = True
            self._loop.call_soon(self._wake)
        if deadline_s < self._timer_s:
            self._set_timer(deadline_s)
        return running

    async def run(
        self, handle: Handle, signature: str, inputs: Tensors, deadline_s: float, notes: RequestContext
    ) -> Answer:
        """The same as a coroutine; cancelling it takes the request out of the queue.

        Raises:
            ServingError: why there is no response.
        """
        future: asyncio.Future[Outcome] = self._loop.create_future()
        running = self.start(handle, signature, inputs, deadline_s, notes, future.set_result)
        try:
            outcome = await future
        finally:
            running.cancel()
            self._running.discard(running)
        if isinstance(outcome, Answer):
            return outcome
        raise outcome

    def cancel(self, running: PendingRequest) -> None:
        """Give a request up."""
        self._running.discard(running)
        running.cancel()

    def record(self, notes: RequestContext) -> None:
        """Count a request whose answer was written."""
        self.backend.record(notes.record(), notes.tensors)

    def _wake(self) -> None:
        """Wake the runner once nothing more comes in: requests that arrive together shall run together."""
        if self._num_submitted != self._num_seen and self._num_deferred < MAX_DEFERRED:
            self._num_seen = self._num_submitted
            self._num_deferred += 1
            self._loop.call_soon(self._wake)
            return
        self._num_deferred = 0
        self._is_waking = False
        self.backend.wake()

    def _set_timer(self, at_s: float) -> None:
        """One timer for the earliest deadline: a timer for each request would cost more than most requests' share."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = self._loop.call_later(max(0.0, at_s - time.perf_counter()), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_s = None, math.inf
        now_s = time.perf_counter()
        for running in [request for request in self._running if request.deadline_s <= now_s]:
            self._running.discard(running)
            running.expire()
        if self._running:
            self._set_timer(min(running.deadline_s for running in self._running))


def note_timeout(notes: RequestContext, find: Find) -> None:
    """Note how long a REST client waits, if it says so in the header `TIMEOUT`.

    Raises:
        InvalidRequest: if that is no number above 0.
    """
    text = find(TIMEOUT)
    if text is None:
        return
    try:
        notes.limit_s = float(text)
    except ValueError:
        notes.limit_s = 0.0
    if not notes.limit_s > 0.0:
        raise InvalidRequest(f"X-TFServe-Timeout: {text[:40]!r} must be a number of seconds above 0, such as 2.5")


def _request_id(find: Find) -> str:
    """The client's name for its request, or "" when it gave none that may be repeated."""
    given = find(REQUEST_ID) or ""
    return given if given.isascii() and given.isprintable() and len(given) <= MAX_ID_CHARS else ""


def _tensors(inputs: Tensors, outcome: Outcome) -> RequestTensors:
    if isinstance(outcome, Answer):
        return RequestTensors(inputs, outcome.outputs)
    return RequestTensors(inputs, None, outcome.message)


def _ignore(_: Outcome) -> None:
    """In place of the callback of a request that is over."""


def _num_rows(inputs: Tensors) -> int:
    if len(inputs) == 1:
        (array,) = inputs.values()
        return len(array) if array.ndim else 1
    return max([len(array) for array in inputs.values() if array.ndim], default=1)
