"""The HTTP port of a server with workers: the counterpart of `HttpListener`.

Thread: made on any; all else on the server's loop.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

from tornado.httputil import HTTPServerConnectionDelegate

from ...serving.backend import InferenceBackend
from .. import tls
from ..http.listener import bind, hold
from ..http.server import FastPath, HttpServer
from ..http.tornado_sink import sinks_of
from ..settings import GrpcSettings, ServerSettings
from ..telemetry.request_log import RequestLog
from .hub import Hub
from .pool import Pool


class WorkerListener:
    """One port, shared by several processes.

    Args:
        settings: address, limits, and how many.
        backend: the core.
        request_log: gets answered requests, or None.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address or the certificate does not do.
    """

    def __init__(self, settings: ServerSettings, backend: InferenceBackend, request_log: RequestLog | None) -> None:
        if settings.tls is not None:
            tls.check(settings.tls)
        self._backend = backend
        self._request_log = request_log
        if settings.port:
            # Shared among our processes, not with another server that shares its port as well.
            bind(settings.host, settings.port).close()
        first = bind(settings.host, settings.port or 0, shares=True)
        self.port: int = first.getsockname()[1]
        self._sockets = [first]
        self._sockets += [bind(settings.host, self.port, shares=True) for _ in range(settings.workers - 1)]
        self._folder: str | None = None
        self._grpc_place: socket.socket | None = None
        grpc = settings.grpc
        if grpc is not None and grpc.port is not None:
            settings = replace(settings, grpc=self._share(grpc))
        self.settings = settings
        self._pool: Pool | None = None
        self._hub: Hub | None = None
        self._http: HttpServer | None = None

    @property
    def num_running(self) -> int:
        """Bundles on their way."""
        return 0 if self._hub is None else self._hub.num_running

    def _share(self, grpc: GrpcSettings) -> GrpcSettings:
        """Hold gRPC's port for the workers, and find a place for the core's socket."""
        if grpc.tls is not None:
            tls.check(grpc.tls)
        try:
            place = self._grpc_place = hold(grpc.host, grpc.port or 0)
        except BaseException:
            self.close_socket()
            raise
        self._folder = tempfile.mkdtemp(prefix="tfserve-nb-")
        return replace(grpc, port=place.getsockname()[1], core_path=str(Path(self._folder) / "core"))

    async def start(
        self, application: HTTPServerConnectionDelegate, log: logging.Logger, fast_path: FastPath | None = None
    ) -> None:
        """Answer requests from now on.

        Raises:
            ServerFailed: if a worker does not start.
        """
        http = self._http = HttpServer(sinks_of(application, log), self.settings, log, fast_path)
        http.start_clock()
        self._hub = Hub(self._backend, self.settings, http, log, self._request_log)
        self._pool = Pool(self._hub, self._sockets, log)
        await self._pool.start()

    def stop(self) -> None:
        """Take no new connections."""
        if self._pool is not None:
            self._pool.stop()

    async def drained(self) -> None:
        """Wait until all workers have ended."""
        if self._pool is not None:
            await self._pool.drained()

    async def close(self) -> None:
        """End what still runs."""
        if self._pool is not None:
            await self._pool.close()
        if self._http is not None:
            await self._http.close()
        self._give_back_grpc()

    def close_socket(self) -> None:
        """Give the ports back when the server never started."""
        for listener in self._sockets:
            listener.close()
        self._give_back_grpc()

    def _give_back_grpc(self) -> None:
        if self._grpc_place is not None:
            self._grpc_place.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
