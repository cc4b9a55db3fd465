"""From tensors on: the part of a request's life that REST and gRPC share.

Thread: the server's loop.
"""

from __future__ import annotations

import asyncio
import functools
import time

from ..errors import DeadlineExceeded
from ..serving.metrics import RequestRecord
from ..serving.port import Answer, Handle, Outcome, ServingPort, Ticket
from ..types import Tensors
from .completions import Completions
from .request_log import RequestLog


class Exchange:
    """One request's notes for its `RequestRecord`: the timestamps, and what was found out about it.

    Args:
        received_s: `perf_counter` time of the request's head.
        api: the call, such as `Predict` (gRPC) or `predict` (REST).
        entrypoint: `GRPC` or `REST`.
    """

    __slots__ = (
        "api",
        "code",
        "decoded_s",
        "done_s",
        "entrypoint",
        "label",
        "model",
        "num_rows",
        "received_s",
        "signature",
        "started_s",
        "version",
    )

    def __init__(self, received_s: float, *, api: str = "", entrypoint: str = "REST") -> None:
        self.api = api
        self.entrypoint = entrypoint
        self.label = ""
        self.received_s = received_s
        self.decoded_s = received_s
        self.started_s: float | None = None
        self.done_s: float | None = None
        self.model = ""
        self.version: int | None = None
        self.signature = ""
        self.code = "OK"
        self.num_rows = 0

    def record(self) -> RequestRecord:
        """The record; the answer is written now."""
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
        )


class Calls:
    """Runs requests on the core and waits for them without blocking the loop.

    Args:
        port: the core.
        loop: the server's.
        request_log: gets answered requests, or None.
    """

    def __init__(
        self, port: ServingPort, loop: asyncio.AbstractEventLoop, request_log: RequestLog | None = None
    ) -> None:
        self.port = port
        self._request_log = request_log
        self._loop = loop
        self._completions = Completions(loop)

    async def run(
        self, handle: Handle, signature: str, inputs: Tensors, deadline_s: float, exchange: Exchange
    ) -> Answer:
        """Submit and wait; whoever is cancelled while waiting takes the request out of the queue.

        Args:
            handle: the pinned version.
            signature: a key of the handle's signatures.
            inputs: name -> array.
            deadline_s: `perf_counter` time after which nobody waits any more.
            exchange: gets the number of rows and the timestamps.

        Raises:
            ServingError: why there is no answer.
        """
        exchange.num_rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        exchange.decoded_s = time.perf_counter()
        future: asyncio.Future[Outcome] = self._loop.create_future()
        ticket: Ticket = handle.submit(
            signature, inputs, deadline_s=deadline_s, on_done=functools.partial(self._completions.put, future)
        )
        timer = self._loop.call_later(max(0.0, deadline_s - time.perf_counter()), _expire, future)
        try:
            outcome = await future
        finally:
            timer.cancel()
            # Does nothing when the request was answered.
            ticket.cancel()
        if isinstance(outcome, Answer):
            exchange.started_s, exchange.done_s = outcome.started_s, outcome.done_s
            if self._request_log is not None:
                api = exchange.api.lower()
                self._request_log.offer(api, exchange.model, handle.version, signature, inputs, outcome.outputs)
            return outcome
        raise outcome

    def record(self, exchange: Exchange) -> None:
        """Count a request whose answer was written."""
        self.port.record(exchange.record())


def _expire(future: asyncio.Future[Outcome]) -> None:
    if not future.done():
        future.set_result(DeadlineExceeded("Timed out waiting for notification"))
