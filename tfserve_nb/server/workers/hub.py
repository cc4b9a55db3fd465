"""The core's side of the workers: bundles in, their outcomes out.

Thread: the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any  # messages by their type

from ...errors import QueueFull, RunFailed, RunRejected, ServingError
from ...serving.backend import Answer, Handle, InferenceBackend, ModelSpec, ModelView, Outcome, Ticket
from ...types import Tensors
from ..config_files import TlsFiles
from ..event_loop import Completions
from ..http.server import HttpServer
from ..settings import ServerSettings
from ..telemetry.log import public_error
from ..telemetry.request_log import RequestLog
from .forwarding import ForwardedConnection
from .link import Link
from .messages import (
    Bundle,
    BundleAnswer,
    Catalog,
    Drain,
    Forward,
    GiveUp,
    GiveUpBundle,
    Hello,
    LogLine,
    Message,
    ObservedRequest,
    Piece,
    Ready,
    Records,
    Renew,
)

_SPLITS = (QueueFull, RunFailed, RunRejected)
"""Errors that one request may cause and another may not: its bundle is tried again request by request."""


WATCH_S = 0.05
"""How often workers get what is served, when that changed."""


class BundleRun:
    """A bundle in the core: run whole, and request by request when that fails.

    Args:
        end: the worker that waits.
        bundle: the requests.
        handle: the pinned version.
    """

    def __init__(self, end: Worker, bundle: Bundle, handle: Handle) -> None:
        self._end = end
        self._bundle = bundle
        self._handle = handle
        self._tickets: list[Ticket] = []
        self._pieces: dict[int, Piece] = {}
        self._is_over = False

    def start(self) -> None:
        """Submit the bundle as one, unless the version that answers may not run rows together."""
        num_requests = len(self._bundle.row_counts)
        if num_requests > 1 and not self._may_share:
            self._split()
        else:
            self._submit(-1, self._bundle.inputs, num_requests)

    def cancel(self) -> None:
        """The clients have left."""
        self._is_over = True
        for ticket in self._tickets:
            ticket.cancel()
        self._handle.release()

    def _submit(self, position: int, inputs: Tensors, num_requests: int) -> None:
        """Submit the request at a position, or all of them at -1."""
        try:
            ticket = self._handle.submit(
                self._bundle.signature,
                inputs,
                deadline_s=self._bundle.deadline_s,
                on_done=partial(self._end.completions.put, partial(self.done, position, num_requests)),
                wakes=False,
            )
        except Exception as error:  # noqa: BLE001 - see `public_error`
            self.done(position, num_requests, self._end.public(error))
            return
        self._tickets.append(ticket)

    def done(self, position: int, num_requests: int, outcome: Outcome) -> None:
        """A part has an outcome."""
        if self._is_over:
            return
        if num_requests > 1 and (
            isinstance(outcome, _SPLITS) or not self._may_share or not self._has_all_rows(outcome)
        ):
            self._split()
            return
        if isinstance(outcome, Answer):
            self._end.log_request(self._bundle, self._handle.version, outcome)
            piece = Piece(num_requests, outcome.outputs, outcome.started_s, outcome.done_s, None)
        else:
            piece = Piece(num_requests, None, 0.0, 0.0, outcome)
        self._pieces[position] = piece
        if position < 0 or len(self._pieces) == len(self._bundle.row_counts):
            self._is_over = True
            self._handle.release()
            pieces = tuple([self._pieces[key] for key in sorted(self._pieces)])
            self._end.finished(self._bundle, BundleAnswer(self._bundle.number, self._handle.version, pieces))

    @property
    def _may_share(self) -> bool:
        """Whether the version that answers may run rows together; the worker knew another version, or knew less."""
        signature = self._bundle.signature
        return signature not in self._handle.signatures or self._handle.shares_runs(signature)

    def _has_all_rows(self, outcome: Outcome) -> bool:
        """Whether outputs can be handed out row by row: the core answered what it took for a single request."""
        num_rows = sum(self._bundle.row_counts)
        return not isinstance(outcome, Answer) or all(
            array.ndim and len(array) == num_rows for array in outcome.outputs.values()
        )

    def _split(self) -> None:
        first = 0
        for position, num_rows in enumerate(self._bundle.row_counts):
            last = first + num_rows
            self._submit(position, {name: array[first:last] for name, array in self._bundle.inputs.items()}, 1)
            first = last
        self._end.wake()


class Worker:
    """A worker as the core sees it.

    Args:
        hub: what all workers share.
        on_lost: called when its process is gone.
    """

    def __init__(self, hub: Hub, on_lost: Callable[[], None]) -> None:
        self._hub = hub
        self._on_lost = on_lost
        self._runs: dict[int, BundleRun] = {}
        self._forwarded: dict[int, ForwardedConnection] = {}
        self._link = Link(self._take, self._lost)
        self.completions = hub.completions
        self.ready = asyncio.Event()
        self.settled = asyncio.Event()
        """Set when it answers or is gone, whichever is first."""
        self.num_heard = 0
        """Frames that came from it."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            Bundle: self._run,
            Forward: self._forward,
            GiveUp: self._give_up,
            GiveUpBundle: self._give_up_bundle,
            LogLine: self._log,
            Ready: self._is_ready,
            Records: self._record,
            ObservedRequest: self._observed,
        }

    @property
    def num_running(self) -> int:
        """Bundles on their way."""
        return len(self._runs)

    async def open(self, one_end: socket.socket) -> None:
        """Talk over a socket from now on."""
        await self._link.open(one_end)
        self._link.send(Hello(self._hub.settings))
        self.send_models(self._hub.models)

    def send_models(self, models: Mapping[str, ModelView]) -> None:
        """Send what is served."""
        self._link.send(Catalog(models))

    def renew(self, rest: TlsFiles | None, grpc: TlsFiles | None) -> None:
        """Let it use other certificates."""
        self._link.send(Renew(rest, grpc))

    def drain(self) -> None:
        """Let it finish and end."""
        self._link.send(Drain())

    def wake(self) -> None:
        """Start what was submitted."""
        self._hub.backend.wake()

    def finished(self, bundle: Bundle, answer: BundleAnswer) -> None:
        """A bundle has its response."""
        if self._runs.pop(bundle.number, None) is not None:
            self._link.send(answer)

    def log_request(self, bundle: Bundle, version: int, answer: Answer) -> None:
        """Offer a run to the request log."""
        log = self._hub.request_log
        if log is not None:
            log.offer("predict", bundle.spec.name, version, bundle.signature, bundle.inputs, answer.outputs)

    def public(self, error: Exception) -> ServingError:
        """The error that clients may see."""
        return public_error(error, self._hub.log, "a bundle of requests")

    def _take(self, messages: list[Message]) -> None:
        self.num_heard += 1
        for message in messages:
            self._handlers[type(message)](message)
        self.wake()

    def _record(self, message: Records) -> None:
        for record in message.records:
            self._hub.backend.record(record)

    def _observed(self, message: ObservedRequest) -> None:
        self._hub.backend.record(message.record, message.tensors)

    def _give_up(self, message: GiveUp) -> None:
        connection = self._forwarded.pop(message.number, None)
        if connection is not None:
            connection.give_up()

    def _give_up_bundle(self, message: GiveUpBundle) -> None:
        run = self._runs.pop(message.number, None)
        if run is not None:
            run.cancel()

    def _log(self, message: LogLine) -> None:
        self._hub.log.log(message.level, "%s", message.text)

    def _is_ready(self, _: Ready) -> None:
        self.ready.set()
        self.settled.set()

    def _run(self, bundle: Bundle) -> None:
        try:
            handle, bundle = self._acquire(bundle)
        except Exception as error:  # noqa: BLE001 - see `public_error`
            public = public_error(error, self._hub.log, f"predict of {bundle.spec.name}")
            piece = Piece(len(bundle.row_counts), None, 0.0, 0.0, public)
            self._link.send(BundleAnswer(bundle.number, bundle.version, (piece,)))
            return
        run = self._runs[bundle.number] = BundleRun(self, bundle, handle)
        run.start()

    def _acquire(self, bundle: Bundle) -> tuple[Handle, Bundle]:
        """Pin the version that answers a bundle.

        The worker may have decoded it just before a switch to a version whose inputs have other names or dtypes. Then
        the version that it was decoded by answers, as in one process, where decoding pins a version. If that one is
        gone by now, a sole input goes by the name that it has there.
        """
        handle = self._hub.backend.acquire(bundle.spec, bundle.version)
        signature = handle.signatures.get(bundle.signature)
        takes = {} if signature is None else {name: spec.numpy_dtype for name, spec in signature.inputs.items()}
        if handle.version == bundle.version or takes == {name: array.dtype for name, array in bundle.inputs.items()}:
            return handle, bundle
        try:
            decoded_by = self._hub.backend.acquire(ModelSpec(bundle.spec.name, bundle.version))
        except ServingError:
            if len(takes) == len(bundle.inputs) == 1:
                bundle = bundle._replace(inputs=dict(zip(takes, bundle.inputs.values(), strict=True)))
            return handle, bundle
        handle.release()
        return decoded_by, bundle

    def _forward(self, message: Forward) -> None:
        self._forwarded = {
            number: connection for number, connection in self._forwarded.items() if not connection.is_closing
        }
        connection = self._forwarded[message.number] = ForwardedConnection(self._hub.http, self._link, message)
        connection.answer(message)

    def _lost(self) -> None:
        self.settled.set()
        runs, self._runs = list(self._runs.values()), {}
        for run in runs:
            run.cancel()
        for connection in self._forwarded.values():
            connection.give_up()
        self._forwarded = {}
        self._on_lost()


class Hub:
    """What all workers share.

    Args:
        backend: the core.
        settings: what they serve with.
        http: answers forwarded requests.
        log: the server's.
        request_log: gets answered requests, or None.
    """

    def __init__(
        self,
        backend: InferenceBackend,
        settings: ServerSettings,
        http: HttpServer,
        log: logging.Logger,
        request_log: RequestLog | None,
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.http = http
        self.log = log
        self.request_log = request_log
        self.completions = Completions(asyncio.get_running_loop())
        self.models: Mapping[str, ModelView] = backend.catalog()
        self.ends: list[Worker] = []

    @property
    def num_running(self) -> int:
        """Bundles on their way."""
        return sum([end.num_running for end in self.ends])

    async def watch_models(self) -> None:
        """Send all workers what is served, whenever that changed; runs until it is cancelled."""
        while True:
            try:
                models = self.backend.catalog()
                if models != self.models:
                    self.models = models
                    for end in self.ends:
                        end.send_models(models)
            except Exception:
                self.log.exception("the workers could not be sent what is served")
            await asyncio.sleep(WATCH_S)
