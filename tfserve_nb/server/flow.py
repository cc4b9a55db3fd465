"""The life of a request from its body to its answer, without a transport.

Thread: the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidRequest, ServingError
from ..serving.port import ModelSpec
from .calls import Calls, Exchange
from .example_json import classify_body, parse_examples, regress_body
from .examples import classify, regress
from .json_text import error_body
from .metadata_json import metadata_body, status_body
from .predict_json import parse_predict, to_body, to_tensors
from .routes import VersionOverflow, find_route

MAX_INFLATED_BYTES = 100 * 1024 * 1024
"""TensorFlow Serving's limit for what gzip may hold."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer for any transport.

    Attributes:
        status: HTTP status.
        body: JSON text, may be empty.
        headers: beside Content-Type.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Flow:
    """Answers the REST calls of one server.

    Args:
        calls: the way to the core.
        request_timeout_s: how long a request may wait and run.
        max_inflated_bytes: limit for inflated bodies.
        log: for failures that clients see only the number of.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        request_timeout_s: float,
        max_inflated_bytes: int,
        log: logging.Logger,
    ) -> None:
        self._calls = calls
        self._port = calls.port
        self._request_timeout_s = request_timeout_s
        self._max_inflated_bytes = max_inflated_bytes
        self._log = log
        self._running: set[asyncio.Task[object]] = set()

    @property
    def running(self) -> frozenset[asyncio.Task[object]]:
        """The tasks that answer a request now."""
        return frozenset(self._running)

    async def answer(self, method: str, uri: str, headers: Mapping[str, str], body: bytes, exchange: Exchange) -> Reply:
        """Answer any request below `/v1/`; never raises but for cancellation."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("answer() runs in a task")
        self._running.add(task)
        try:
            return await self._answer(method, uri, headers, body, exchange)
        finally:
            self._running.discard(task)

    async def _answer(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes, exchange: Exchange
    ) -> Reply:
        try:
            route = find_route(method, uri)
            exchange.model, exchange.label = route.spec.name, route.spec.label or ""
            if method == "POST":
                exchange.api = route.call
                call = self._predict if route.call == "predict" else self._examples
                return await call(route.spec, self._inflated(headers, body), exchange)
            if route.call == "status":
                return Reply(200, status_body(self._port.status(route.spec)))
            return self._metadata(route.spec)
        except VersionOverflow as error:
            exchange.code = error.code
            return Reply(error.http_status, b"")
        except ServingError as error:
            return self.failed(error, exchange)
        except Exception:  # noqa: BLE001 - a defect of ours: the client gets a number, the log the trace
            number = secrets.token_hex(4)
            exchange.code = "INTERNAL"
            self._log.exception("error %s in %s %s", number, method, uri)
            return Reply(500, error_body(f"Internal error {number}; the server's log has the details"))

    def failed(self, error: ServingError, exchange: Exchange) -> Reply:
        """The reply for an error with a public text."""
        exchange.code = error.code
        headers = (("Retry-After", "1"),) if error.http_status == 503 else ()
        return Reply(error.http_status, error_body(error.message), headers)

    def record(self, exchange: Exchange) -> None:
        """Count a request whose answer was written."""
        self._port.record(exchange.record())

    def _metadata(self, spec: ModelSpec) -> Reply:
        handle = self._port.acquire(spec)
        try:
            return Reply(200, metadata_body(spec.name, handle.version, handle.signature_defs))
        finally:
            handle.release()

    async def _predict(self, spec: ModelSpec, body: bytes, exchange: Exchange) -> Reply:
        request = parse_predict(body)
        handle = self._port.acquire(spec)
        try:
            exchange.version, exchange.signature = handle.version, request.signature
            signature = handle.signatures.get(request.signature)
            if signature is None:
                raise InvalidRequest(f'Serving signature name: "{request.signature}" not found in signature def')
            inputs = to_tensors(request, signature)
            deadline_s = time.perf_counter() + self._request_timeout_s
            answer = await self._calls.run(handle, request.signature, inputs, deadline_s, exchange)
            text = to_body(answer.outputs, is_row_format=request.is_row_format)
            return Reply(200, text, (("X-TFServe-Version", str(handle.version)),))
        finally:
            handle.release()

    async def _examples(self, spec: ModelSpec, body: bytes, exchange: Exchange) -> Reply:
        """Classify or regress."""
        request = parse_examples(body)
        handle = self._port.acquire(spec)
        try:
            exchange.version, exchange.signature = handle.version, request.signature
            signature = handle.signatures.get(request.signature)
            if signature is None:
                raise InvalidRequest(f"No signature was found with the name: {request.signature}")
            deadline_s = time.perf_counter() + self._request_timeout_s
            run = (self._calls, handle, signature, request.examples, deadline_s, exchange)
            text = (
                classify_body(await classify(*run)) if exchange.api == "classify" else regress_body(await regress(*run))
            )
            return Reply(200, text, (("X-TFServe-Version", str(handle.version)),))
        finally:
            handle.release()

    def _inflated(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """The body without gzip; what cannot be inflated counts as empty, as in TensorFlow Serving."""
        if "gzip" not in headers.get("Content-Encoding", ""):
            return body
        inflater = zlib.decompressobj(wbits=31)
        try:
            text = inflater.decompress(body, self._max_inflated_bytes)
        except zlib.error:
            return b""
        if inflater.unconsumed_tail:
            raise InvalidRequest(f"The inflated body is larger than {self._max_inflated_bytes} bytes")
        return text if inflater.eof else b""
