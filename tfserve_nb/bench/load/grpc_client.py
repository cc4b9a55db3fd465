"""Predict over gRPC; messages are encoded before, and responses are not decoded.

Thread: the generator's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from .client_log import Log
from .samples import GRPC, OK, TIMED_OUT
from .schedule import Load

METHOD = "/tensorflow.serving.PredictionService/Predict"


class GrpcClient:
    """Calls over one channel.

    Args:
        address: `HOST:PORT`.
        bodies: serialized `PredictRequest`s, in turn.
        headers: metadata.
        load: how long to wait.
        log: receives every call.
    """

    def __init__(self, address: str, bodies: list[bytes], headers: list[list[str]], load: Load, log: Log) -> None:
        self._address = address
        self._bodies = itertools.cycle(bodies)
        self._metadata = tuple((name.lower(), value) for name, value in headers)
        self._timeout_s = load.timeout_s
        self._log = log
        self._calls: dict[asyncio.Task[None], float] = {}
        self._channel: Any = None
        self._predict: Any = None

    async def open(self, num: int) -> None:
        """Connect; one channel carries all calls."""
        del num
        import grpc.aio

        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self._address, options=options)
        self._predict = self._channel.unary_unary(METHOD)

    @property
    def num_open(self) -> int:
        """Calls without a response."""
        return len(self._calls)

    def send(self, due_s: float, taken_s: float) -> None:
        """Call now."""
        task = asyncio.get_running_loop().create_task(self._call(next(self._bodies), due_s, taken_s))
        self._calls[task] = due_s
        task.add_done_callback(self._calls.pop)

    def expire(self, before_s: float) -> None:
        """Give up what was due before a moment."""
        for task, due_s in list(self._calls.items()):
            if due_s < before_s:
                task.cancel()

    def close(self) -> None:
        """The process ends anyway."""

    async def _call(self, body: bytes, due_s: float, taken_s: float) -> None:
        import grpc

        sent_s = time.perf_counter()
        status = OK
        try:
            await self._predict(body, metadata=self._metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            number = int(error.code().value[0])
            status = TIMED_OUT if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else GRPC + number
            self._log.explain(status, error.details() or "")
        except asyncio.CancelledError:
            status = TIMED_OUT
        self._log.done(due_s, taken_s, sent_s, status)
