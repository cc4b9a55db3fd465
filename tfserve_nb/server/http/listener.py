"""The HTTP port of a server: its socket, its certificate, its limits.

Thread: `bind` on any; all else on the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket

from tornado.httputil import HTTPServerConnectionDelegate

from ...errors import PortInUse, ServerFailed
from .. import tls
from ..settings import ServerSettings
from .server import BACKLOG, FastPath, HttpServer
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
        self._socket = bind(settings.host, settings.port or 0)
        self._server: HttpServer | None = None
        self.port: int = self._socket.getsockname()[1]

    @property
    def num_running(self) -> int:
        """Requests that the server's `Calls` does not count: none."""
        return 0

    async def start(
        self, application: HTTPServerConnectionDelegate, log: logging.Logger, fast_path: FastPath | None = None
    ) -> None:
        """Answer requests from now on."""
        self._server = HttpServer(sinks_of(application, log), self._settings, log, fast_path)
        await self._server.listen(self._socket, self._context)

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


def bind(host: str, port: int, *, shares: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: the address.
        port: 0 for a free one.
        shares: let other sockets of this user listen on the same port; the system spreads clients over them.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    takes_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=takes_both, reuse_port=shares
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is taken", hint="another --port, or none for a free one") from error
        raise ServerFailed(f"{host}:{port} cannot be bound: {error.strerror or error}", hint="--port 0") from error
    listener.setblocking(False)
    return listener


def hold(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for processes which share it, without listening itself.

    Args:
        host: the address.
        port: 0 for a free one.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address cannot be bound.
    """
    listener = bind(host, port)
    with listener:
        number = listener.getsockname()[1]
        family = listener.family
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    place.bind((host, number))
    return place
