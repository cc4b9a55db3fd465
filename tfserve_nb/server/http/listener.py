"""The HTTP port of a server: its socket, its certificate, its limits.

Thread: made on any; all else on the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from tornado.httputil import HTTPServerConnectionDelegate

from .. import tls
from ..budget import ByteBudget
from ..config_files import TlsFiles
from ..settings import ServerSettings
from ..sockets import bind, inherited
from .server import FastPath, HttpServer
from .tornado_sink import sinks_of

CLOSE_S = 0.3


class HttpListener:
    """One HTTP server on one port.

    Args:
        settings: address and limits; `settings.port` is a number.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address or the certificate does not do.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._context = None
        if settings.tls is not None:
            tls.check(settings.tls)
            self._context = tls.http_context(settings.tls)
        # Bound once and handed over, so that no other process can take the port in between.
        given = inherited(settings.listen_fds)
        self._socket = given[0] if given else bind(settings.host, settings.port or 0)
        self._server: HttpServer | None = None
        self.port: int = self._socket.getsockname()[1]

    @property
    def num_running(self) -> int:
        """Requests that the server's `Calls` does not count: none."""
        return 0

    async def start(
        self, application: HTTPServerConnectionDelegate, log: logging.Logger, fast_path: FastPath, budget: ByteBudget
    ) -> None:
        """Answer requests from now on."""
        self._server = HttpServer(sinks_of(application, log), self._settings, log, fast_path, budget)
        await self._server.listen(self._socket, self._context)

    async def renew(self, files: TlsFiles | None, _grpc: TlsFiles | None) -> None:
        """Use other certificates for new connections.

        Raises:
            ServerFailed: if they do not do; the old ones stay in use.
        """
        if files is not None and self._context is not None and self._server is not None:
            self._context = tls.http_context(files)
            await self._server.renew(self._context)

    def stop(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.stop()

    async def drained(self) -> None:
        """Wait until no request runs any more."""
        if self._server is not None:
            await self._server.drained()

    async def close(self) -> None:
        """Close all connections; bounded."""
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.close(), CLOSE_S)

    def close_socket(self) -> None:
        """Give the port back when the server never started."""
        self._socket.close()
