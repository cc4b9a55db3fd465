"""TensorFlow Serving's gRPC services on Ray: which methods there are, and calls as Ray hands them over.

Ray's proxies import `add_services`. TensorFlow must not come with it: their health checks would fail meanwhile.

Thread: `add_services` on the thread that starts a gRPC server; everything else on the replica's loop.
"""

from __future__ import annotations

from typing import Any, NoReturn  # protobuf's and gRPC's objects

from ...protos.postponed import postpone
from ...server.budget import FREE_BYTES, ByteBudget
from ...server.calls import Calls
from ...server.grpc.calls import GrpcCalls
from ...server.grpc.entrance import TOKEN_NEEDED
from ...server.grpc.model_service import ModelService
from ...server.grpc.prediction_service import PredictionService
from ...server.security import is_token_right
from ...server.settings import GrpcSettings, ServerSettings


def add_services(servicer: Any, server: Any) -> None:
    """Register the methods of PredictionService and ModelService; Ray replaces what answers them.

    Args:
        servicer: anything that has all methods.
        server: Ray's gRPC server.
    """
    postpone()
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)


class GrpcDoor:
    """The way of gRPC calls into one replica.

    Args:
        calls: the way to the core.
        settings: token and limits.
        log: for failures that clients see only the number of.
    """

    def __init__(self, calls: Calls, settings: ServerSettings, log: Any) -> None:
        grpc_calls = GrpcCalls(calls, log)
        grpc_settings = settings.grpc or GrpcSettings()
        self._token = settings.token
        self._budget = ByteBudget(settings.max_bytes_in_flight)
        self._most = grpc_settings.max_message_bytes
        self._services = (
            PredictionService(grpc_calls, grpc_settings),
            ModelService(grpc_calls, None, lambda _: None),
        )

    async def answer(self, method: str, request: Any, ray_context: Any) -> Any:
        """The response's message; the status of a call that fails stands in its context.

        Args:
            method: such as `Predict`.
            request: its message.
            ray_context: Ray's `RayServegRPCContext`.
        """
        context = _Context(ray_context)
        num_bytes = request.ByteSize()
        counted = num_bytes if num_bytes > FREE_BYTES else 0
        try:
            self._let_in(context, num_bytes, counted)
        except _Aborted:
            return _NoMessage()
        try:
            service = next(one for one in self._services if hasattr(one, method))
            return await getattr(service, method)(request, context)
        except _Aborted:
            return _NoMessage()
        finally:
            self._budget.give_back(counted)

    def _let_in(self, context: _Context, num_bytes: int, counted: int) -> None:
        """Refuse a call without the token, one that is too large, and one too many.

        Raises:
            _Aborted: then.
        """
        import grpc

        if self._token is not None:
            given = dict(context.invocation_metadata()).get("authorization", "")
            if not is_token_right(str(given), self._token):
                context.fail(grpc.StatusCode.UNAUTHENTICATED, TOKEN_NEEDED)
        if num_bytes > self._most:
            context.fail(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({num_bytes} vs. {self._most})"
            )
        if self._budget.is_full or not self._budget.take(counted):
            context.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, self._budget.refusal)


class _Aborted(Exception):
    """The call has failed; its context says how."""


class _NoMessage:
    """The message of a call that failed: nobody reads it."""

    @staticmethod
    def SerializeToString() -> bytes:  # noqa: N802 - protobuf's name
        """Nothing."""
        return b""


class _Context:
    """What our services want of gRPC's context, on Ray's.

    Ray does not tell a call's deadline, and sends all metadata at the end.

    Args:
        ray_context: Ray's.
    """

    def __init__(self, ray_context: Any) -> None:
        self._ray_context = ray_context

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """What the client sent beside its message."""
        return list(self._ray_context.invocation_metadata() or ())

    @staticmethod
    def time_remaining() -> None:
        """Not known."""

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        """Send metadata with the response."""
        self._ray_context.set_trailing_metadata(list(metadata))

    async def abort(self, code: Any, details: str) -> NoReturn:
        """End the call with an error."""
        self.fail(code, details)

    def fail(self, code: Any, details: str) -> NoReturn:
        """The same, at once.

        Raises:
            _Aborted: always.
        """
        self._ray_context.set_code(code)
        self._ray_context.set_details(details)
        raise _Aborted
