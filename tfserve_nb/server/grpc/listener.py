"""gRPC on the server's own loop: ports, credentials, services.

Thread: the server's loop.

Reference: tensorflow_serving/model_servers/server.cc.
"""

from __future__ import annotations

import logging
import os
from typing import Any  # gRPC's objects

from ...errors import PortInUse
from ...serving.backend import InferenceBackend
from .. import open_files
from ..budget import ByteBudget
from ..calls import Calls
from ..config_files import TlsFiles
from ..settings import GrpcSettings
from .calls import GrpcCalls
from .certificates import Certificates
from .entrance import HealthCheck, handlers_of, new_entrance
from .model_service import CounterValue, ModelService, Reload
from .prediction_service import PredictionService

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
"""For the way between processes of ours."""
IDLE_MS = 60_000
"""A connection without a call is closed after this time, so that those that never make one do not keep others out.

Clients open another one by themselves.
"""
HANDSHAKE_MS = 10_000
MAX_STREAMS = 1024
"""Calls at a time on one connection; clients queue what is above it."""
SERVICE_NAMES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class GrpcListener:
    """A gRPC server on the running loop.

    Args:
        calls: the way to the core.
        settings: addresses and limits.
        token: what calls must carry as `authorization: Bearer TOKEN`, or None.
        budget: counts messages.
        log: the server's.
        reload: follows a new configuration, or None.
        counter_value: for reloads that ask how much a metric grew.
    """

    def __init__(
        self,
        calls: Calls,
        settings: GrpcSettings,
        *,
        token: str | None,
        budget: ByteBudget,
        log: logging.Logger,
        reload: Reload | None = None,
        counter_value: CounterValue = lambda _: None,
    ) -> None:
        self._calls = calls
        self._settings = settings
        self._token = token
        self._budget = budget
        self._log = log
        self._reload = reload
        self._counter_value = counter_value
        self._server: Any = None
        self._certificates: Certificates | None = None
        self.port = 0

    async def start(self) -> None:
        """Bind and answer.

        Raises:
            PortInUse: if the port is taken.
            ServerFailed: if the address or the certificate does not do.
        """
        settings = self._settings
        if settings.tls is not None:
            self._certificates = Certificates(settings.tls)
        server = self._server = new_server(
            settings, self._token, self._budget, self._check, shares_port=settings.is_port_held
        )
        await self._add_services(server)
        try:
            if settings.core_path:
                server.add_insecure_port(f"unix:{settings.core_path}")
                self.port = settings.port or 0
            elif settings.port is not None:
                self.port = bind_port(server, settings, self._certificates)
            if settings.socket_path:
                _bind(server, f"unix:{settings.socket_path}", self._certificates)
        except RuntimeError as error:
            where = f"{settings.host}:{settings.port}" if settings.port is not None else settings.socket_path
            raise PortInUse(f"gRPC cannot listen on {where}: {_reason(error)}", hint="another --port") from error
        await server.start()

    def renew(self, files: TlsFiles) -> None:
        """Use other certificates for new connections."""
        if self._certificates is not None:
            self._certificates.renew(files)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones finish for a while, close. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        await server.stop(grace_s)
        path = self._settings.socket_path
        if path and os.path.exists(path):  # noqa: ASYNC240, PTH110 - one call to the file system, at the end
            os.unlink(path)  # noqa: PTH108

    async def _check(self) -> bytes:
        """Whether the server is ready, for clients without the token."""
        from grpc_health.v1.health_pb2 import HealthCheckResponse

        status = "NOT_SERVING" if self._calls.backend.coming else "SERVING"
        answer: bytes = HealthCheckResponse(status=status).SerializeToString()
        return answer

    async def _add_services(self, server: Any) -> None:
        from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

        settings = self._settings
        grpc_calls = GrpcCalls(self._calls, self._log)
        services = (
            (prediction_service_pb2, PredictionService(grpc_calls, settings)),
            (model_service_pb2, ModelService(grpc_calls, self._reload, self._counter_value)),
        )
        for module, servicer in services:
            service = module.DESCRIPTOR.services_by_name[type(servicer).__name__]
            server.add_generic_rpc_handlers((handlers_of(service, servicer, self._budget),))
        names = list(SERVICE_NAMES)
        if settings.has_health:
            names.append(await _add_health(server, grpc_calls.calls.backend))
        from grpc_reflection.v1alpha import reflection

        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)


def import_stubs() -> None:
    """Import what gRPC needs now, and not on the server's loop: the messages import TensorFlow."""
    import grpc.aio
    from grpc_reflection.v1alpha import reflection
    from tensorflow_serving.apis import (
        model_service_pb2,
        model_service_pb2_grpc,
        prediction_service_pb2,
        prediction_service_pb2_grpc,
    )

    # The first and third hold the services' descriptions, which reflection needs.
    del grpc, reflection, model_service_pb2, model_service_pb2_grpc, prediction_service_pb2, prediction_service_pb2_grpc


def new_server(
    settings: GrpcSettings,
    token: str | None,
    budget: ByteBudget,
    check: HealthCheck,
    *,
    shares_port: bool = False,
) -> Any:
    """A server without ports and services.

    Args:
        settings: limits.
        token: what calls must carry, or None.
        budget: counts messages.
        check: answers health checks that carry no token.
        shares_port: whether others may listen on the same port; else a second server must fail, not share the requests.
    """
    import grpc.aio

    options = [
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_allowed_incoming_connections", open_files.share(settings.max_connections, open_files.GRPC_SHARE)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        *settings.channel_arguments,
    ]
    entrance = new_entrance(token, budget, check if settings.has_health else None)
    return grpc.aio.server(interceptors=[entrance], options=options)


def bind_port(server: Any, settings: GrpcSettings, certificates: Certificates | None) -> int:
    """Let a server listen on the TCP port; its number.

    Raises:
        RuntimeError: if it cannot.
    """
    return _bind(server, f"{_bracketed(settings.host)}:{settings.port}", certificates)


def _bind(server: Any, address: str, certificates: Certificates | None) -> int:
    if certificates is None:
        port: int = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, certificates.credentials())
    return port


async def _add_health(server: Any, backend: InferenceBackend) -> str:
    """Answer SERVING for the server and for both services, as TensorFlow Serving; not while models are resumed."""
    from grpc_health.v1 import health, health_pb2
    from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

    class Health(health.aio.HealthServicer):  # type: ignore[misc]  # untyped
        async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            found = await super().Check(request, context)
            return health_pb2.HealthCheckResponse(status="NOT_SERVING") if backend.coming else found

    servicer = Health()
    for service in ("", "ModelService", "PredictionService"):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    add_HealthServicer_to_server(servicer, server)
    name: str = health.SERVICE_NAME
    return name


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: RuntimeError) -> str:
    text = str(error)
    return "the address is in use" if "in use" in text or "Failed to bind" in text else text
