"""An HTTP/1.1 server: listening sockets, connections, and the clock that cuts slow clients off.

Thread: all on the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate

from .. import open_files
from ..budget import ByteBudget
from ..settings import ServerSettings
from ..sockets import backlog
from .connection import Connection
from .message import Message, Sink

TICK_S = 1.0
HANDSHAKE_S = 10.0
LOOK_S = 0.01

SinkFor = Callable[[Connection, Message], Sink]
"""Chooses what takes the body of a request and answers it; raises `Refused` for a request that gets an error."""

FastPath = Callable[[Connection, Message], Sink | None]
"""The same for requests that it knows; None for all others."""


class HttpServer:
    """Accepts clients and hands each request to a sink.

    Args:
        sink_for: chooses the sink of a request, see `tornado_sink.sinks_of`.
        limits: what clients may take.
        log: for refused requests and defects.
        fast_path: called first for each request.
        budget: counts large bodies; one of its own by default.

    Attributes:
        limits: what clients may take.
        budget: counts large bodies.
        date_line: the `Date` header of this second.
        is_draining: no request is taken after those that run.
    """

    def __init__(
        self,
        sink_for: SinkFor,
        limits: ServerSettings,
        log: logging.Logger,
        fast_path: FastPath | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        self.limits = limits
        self.log = log
        self.budget = budget or ByteBudget(limits.max_bytes_in_flight)
        self.loop = asyncio.get_running_loop()
        self.date_line = b""
        self.is_draining = False
        self._sink_for = sink_for
        self._fast_path = fast_path
        self._connections: set[Connection] = set()
        self._max_connections = open_files.share(limits.max_connections, open_files.HTTP_SHARE)
        self._listeners: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        shortest_s = min(limits.idle_timeout_s, limits.body_timeout_s, limits.write_timeout_s)
        self._tick_s = min(TICK_S, shortest_s / 4)
        self._timer: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Answer what comes in on a bound socket, which belongs to this server from now on."""
        handshake_s = None if context is None else HANDSHAKE_S
        server = await self.loop.create_server(
            lambda: Connection(self), sock=listener, backlog=backlog(), ssl=context, ssl_handshake_timeout=handshake_s
        )
        self._listeners.append(server)
        self._sockets.append(listener)
        self.start_clock()

    async def renew(self, context: ssl.SSLContext) -> None:
        """Use other certificates for new connections; those that are open stay."""
        olds, self._listeners = self._listeners, []
        sockets, self._sockets = self._sockets, []
        for listener in sockets:
            # The same queue of clients: none of them is lost between the old and the new server.
            await self.listen(listener.dup(), context)
        for old in olds:
            old.close()

    def start_clock(self) -> None:
        """Keep the date, and cut off slow clients, from now on."""
        if self._timer is None:
            self._tick()

    def stop(self) -> None:
        """Take no new connections; idle ones are closed, the others after their response."""
        self.is_draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            if not connection.is_busy:
                connection.close_kindly()

    async def drained(self) -> None:
        """Wait until no request is received or answered any more, and clients have their responses."""
        while any(client.is_busy or client.has_unsent for client in self._connections):  # noqa: ASYNC110 - at the very end only
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Cut all clients off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:  # noqa: ASYNC110 - their `connection_lost` comes with the next turns of the loop
            await asyncio.sleep(0)

    # --- for connections ----------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """Remember a connection; another one makes room for it, and False means that none can."""
        if self.is_draining or not self._make_room():
            return False
        self._connections.add(connection)
        return True

    def _make_room(self) -> bool:
        if len(self._connections) < self._max_connections:
            return True
        # Requests that never end would keep others out, if clients that nobody knows could hold their places with them.
        idle = [client for client in self._connections if not client.is_busy]
        found = idle or [client for client in self._connections if client.may_be_cut]
        if not found:
            return False
        oldest = min(found, key=lambda client: client.deadline_s)
        oldest.abort()
        self._connections.discard(oldest)  # its `connection_lost` comes later
        return True

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def sink_for(self, connection: Connection, message: Message) -> Sink:
        """Choose what takes the body of a request and answers it."""
        sink = None if self._fast_path is None else self._fast_path(connection, message)
        return self._sink_for(connection, message) if sink is None else sink

    def _tick(self) -> None:
        """Cut off slow clients. One timer for all: a timer for each request would cost more than the request."""
        self._timer = self.loop.call_later(self._tick_s, self._tick)
        self.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        now_s = time.perf_counter()
        for connection in [client for client in self._connections if client.deadline_s < now_s]:
            connection.abort()
