"""gRPC in a worker: `Predict` is decoded here, and the core answers everything else over a Unix socket.

All workers listen on the same TCP port. What is not decoded here passes through as bytes, whatever its service:
streams carry unary calls too, so one way does for all of them.

Thread: the worker's loop.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any  # gRPC's objects

from ...errors import ServingError
from ...protos.postponed import postpone
from ..budget import FREE_BYTES, ByteBudget
from ..calls import Calls
from ..config_files import TlsFiles
from ..grpc.calls import GrpcCalls, spec_of
from ..grpc.certificates import Certificates
from ..grpc.entrance import HEALTH
from ..grpc.listener import UNLIMITED, bind_port, new_server
from ..grpc.prediction_service import PredictionService
from ..settings import GrpcSettings
from .link_backend import LinkBackend

PREDICT = "/tensorflow.serving.PredictionService/Predict"
OWN_METADATA = ("grpc-", "user-agent", ":")
"""Metadata that gRPC itself sends on each connection."""


class GrpcProxy:
    """A worker's gRPC server.

    Args:
        backend: the core, for calls that are decoded here.
        calls: the way there.
        settings: the port, which others share, and the core's socket.
        token: what calls must carry, or None.
        budget: counts messages.
        log: for failures that clients see only the number of.
    """

    def __init__(
        self,
        backend: LinkBackend,
        calls: Calls,
        settings: GrpcSettings,
        token: str | None,
        budget: ByteBudget,
        log: logging.Logger,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._token = token
        self._budget = budget
        self._service = PredictionService(GrpcCalls(calls, log), settings)
        self._server: Any = None
        self._certificates: Certificates | None = None
        self._core: Any = None

    async def start(self) -> None:
        """Listen.

        Raises:
            RuntimeError: if the port cannot be bound.
        """
        postpone()  # workers never need more of TensorFlow than its messages
        import grpc.aio

        self._core = grpc.aio.insecure_channel(f"unix:{self._settings.core_path}", options=UNLIMITED)
        server = self._server = new_server(self._settings, self._token, self._budget, self._check, shares_port=True)
        server.add_generic_rpc_handlers((self._handlers(),))
        if self._settings.tls is not None:
            self._certificates = Certificates(self._settings.tls)
        bind_port(server, self._settings, self._certificates)
        await server.start()

    def renew(self, files: TlsFiles) -> None:
        """Use other certificates for new connections."""
        if self._certificates is not None:
            self._certificates.renew(files)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones finish for a while, close."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)
            await self._core.close()

    async def _check(self) -> bytes:
        """The core's answer to a health check."""
        answer: bytes = await self._core.unary_unary(HEALTH + "Check")(b"")
        return answer

    def _handlers(self) -> Any:
        """A handler for whatever method a client names."""
        import grpc

        predict = grpc.unary_unary_rpc_method_handler(self._predict_or_pass())

        class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(_, details: Any) -> Any:  # noqa: N805 - `self` is the worker
                if details.method == PREDICT:
                    return predict
                return grpc.stream_stream_rpc_method_handler(self._pass_through(details.method))

        return Handlers()

    def _predict_or_pass(self) -> Callable[[bytes, Any], Awaitable[bytes]]:
        import grpc
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        call = self._core.unary_unary(PREDICT)

        def decoded(body: bytes) -> Any:
            """The request, unless the core has to refuse it."""
            try:
                request = PredictRequest.FromString(body)
                return request if self._backend.knows(spec_of(request)) else None
            except (DecodeError, ServingError):
                return None

        async def answer(body: bytes, context: Any) -> bytes:
            num_bytes = len(body) if len(body) > FREE_BYTES else 0
            if num_bytes and not self._budget.take(num_bytes):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._budget.refusal)
            try:
                return await predict_or_pass(body, context)
            finally:
                self._budget.give_back(num_bytes)

        async def predict_or_pass(body: bytes, context: Any) -> bytes:
            request = decoded(body)
            if request is not None:
                response: bytes = (await self._service.Predict(request, context)).SerializeToString()
                return response
            upstream = call(body, **_passed_on(context))
            try:
                await _pass_metadata(upstream, context)
                passed: bytes = await upstream
            except grpc_error() as error:
                await _fail_as(context, error)
                raise
            finally:
                upstream.cancel()
            return passed

        return answer

    def _pass_through(self, method: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        call = self._core.stream_stream(method)

        async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            upstream = call(requests, **_passed_on(context))
            try:
                await _pass_metadata(upstream, context)
                async for response in upstream:
                    yield response
            except grpc_error() as error:
                await _fail_as(context, error)
            finally:
                upstream.cancel()

        return answer


def grpc_error() -> type[Exception]:
    """What a call to the core fails with."""
    from grpc.aio import AioRpcError

    error: type[Exception] = AioRpcError
    return error


async def _pass_metadata(upstream: Any, context: Any) -> None:
    """Send the client the core's metadata."""
    metadata = [(key, value) for key, value in await upstream.initial_metadata() or () if key.startswith("x-")]
    if metadata:
        await context.send_initial_metadata(tuple(metadata))


async def _fail_as(context: Any, error: Any) -> None:
    """Fail a call as the core has failed it."""
    trailing = error.trailing_metadata()
    await context.abort(error.code(), error.details() or "", tuple(trailing or ()))


def _passed_on(context: Any) -> dict[str, Any]:
    """The client's deadline and metadata; the core checks the token once more."""
    metadata = [(key, value) for key, value in context.invocation_metadata() or () if not key.startswith(OWN_METADATA)]
    return {"timeout": context.time_remaining(), "metadata": metadata}
