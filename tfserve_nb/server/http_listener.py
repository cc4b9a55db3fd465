"""HTTP on the server's own loop: the socket, and Tornado's server with limits.

Thread: `bind` on any; all else on the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any  # Tornado's connection context

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from ..errors import PortInUse, ServerFailed
from . import tls
from .settings import ServerSettings

BACKLOG = 1024
CLOSE_S = 0.3


class LimitedHTTPServer(HTTPServer):
    """An HTTP server with a limit of connections.

    Tornado makes it without `__init__` arguments of our own: see `initialize`.
    """

    def initialize(self, *args: Any, max_connections: int, **kwargs: Any) -> None:  # type: ignore[override]
        """Called by Tornado's configurable constructor."""
        super().initialize(*args, **kwargs)
        self._max_connections = max_connections

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it when there are too many."""
        if len(self._connections) >= self._max_connections:
            stream.close()
            return
        super().handle_stream(stream, address)


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
        # Bound once and handed over, so that nobody can take the port in between.
        self._socket = bind(settings.host, settings.port or 0)
        self._server: LimitedHTTPServer | None = None
        self.port: int = self._socket.getsockname()[1]

    def start(self, application: Application) -> None:
        """Answer requests from now on."""
        settings = self._settings
        self._server = LimitedHTTPServer(
            application,
            ssl_options=self._context,
            max_header_size=settings.max_header_bytes,
            max_body_size=settings.max_body_bytes,
            max_buffer_size=settings.max_body_bytes + settings.max_header_bytes,
            idle_connection_timeout=settings.idle_timeout_s,
            body_timeout=settings.body_timeout_s,
            max_connections=settings.max_connections,
        )
        self._server.add_sockets([self._socket])

    def stop(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.stop()

    async def close(self) -> None:
        """Close all connections; bounded."""
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.close_all_connections(), CLOSE_S)

    def close_socket(self) -> None:
        """Give the port back when the server never started."""
        self._socket.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    takes_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=takes_both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is taken", hint="another --port, or none for a free one") from error
        raise ServerFailed(f"{host}:{port} cannot be bound: {error.strerror or error}", hint="--port 0") from error
    listener.setblocking(False)
    return listener
