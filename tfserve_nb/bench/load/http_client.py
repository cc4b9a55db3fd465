"""Requests over HTTP/1.1 with as little Python for each as possible: one parser and one write a request.

Thread: the generator's loop.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httptools

from .client_log import Log
from .samples import OK, TIMED_OUT, UNREACHABLE
from .schedule import Load

CONNECT_S = 5.0


class HttpClient:
    """A pool of connections to one server.

    Args:
        url: with path.
        bodies: of the requests, in turn.
        headers: names and values.
        load: how many connections, how long to wait.
        log: receives every request.
        paths: of the requests, in turn as the bodies; none for that of the URL.
    """

    def __init__(
        self, url: str, bodies: list[bytes], headers: list[list[str]], load: Load, log: Log, paths: Sequence[str] = ()
    ) -> None:
        self.log = log
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": "tfserve-nb-bench", **dict(headers)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._requests = itertools.cycle(
            [
                f"POST {to} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
                for to, body in zip(paths or [path] * len(bodies), bodies, strict=True)
            ]
        )
        self._most = load.concurrency or load.connections
        self._free: list[Connection] = []
        self._busy: set[Connection] = set()
        self._waiting: collections.deque[tuple[bytes, float, float]] = collections.deque()
        self._num_connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, num: int) -> None:
        """Connect; what cannot be connected shows with the requests."""
        self._num_connecting += num
        await asyncio.gather(*(self._connect() for _ in range(num)))

    @property
    def num_open(self) -> int:
        """Requests without a response."""
        return len(self._busy) + len(self._waiting)

    def send(self, due_s: float, taken_s: float) -> None:
        """Over a free connection, or over the next that becomes free."""
        request = next(self._requests)
        if self._free:
            self._send(self._free.pop(), request, due_s, taken_s)
            return
        self._waiting.append((request, due_s, taken_s))
        if len(self._busy) + self._num_connecting < self._most and self._num_connecting < len(self._waiting):
            self._num_connecting += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def expire(self, before_s: float) -> None:
        """Give up what was due before a moment."""
        while self._waiting and self._waiting[0][1] < before_s:
            _, due_s, taken_s = self._waiting.popleft()
            self.log.done(due_s, taken_s, time.perf_counter(), TIMED_OUT)
        for connection in [connection for connection in self._busy if connection.due_s < before_s]:
            connection.finish(TIMED_OUT, keeps=False)

    def close(self) -> None:
        """Drop all connections."""
        for connection in (*self._free, *self._busy):
            connection.drop()

    def ready(self, connection: Connection) -> None:
        """A connection is free."""
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, connection: Connection, *, keeps: bool) -> None:
        """A request is over; its connection goes on, or is closed."""
        self._busy.discard(connection)
        if keeps:
            self.ready(connection)
        else:
            connection.drop()

    def lost(self, connection: Connection) -> None:
        """A free connection was closed by the server."""
        if connection in self._free:
            self._free.remove(connection)

    def _send(self, connection: Connection, request: bytes, due_s: float, taken_s: float) -> None:
        self._busy.add(connection)
        connection.send(request, due_s, taken_s)

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            made = loop.create_connection(lambda: Connection(self), self._host, self._port, ssl=self._tls)
            await asyncio.wait_for(made, CONNECT_S)
        except (OSError, ssl.SSLError) as error:  # TimeoutError is an OSError
            self.log.explain(UNREACHABLE, str(error) or type(error).__name__)
            if self._waiting:
                _, due_s, taken_s = self._waiting.popleft()
                self.log.done(due_s, taken_s, time.perf_counter(), UNREACHABLE)
        finally:
            self._num_connecting -= 1


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = ("_body", "_client", "_is_busy", "_parser", "_transport", "due_s", "sent_s", "taken_s")

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._is_busy = False
        self.due_s = self.taken_s = self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Free to send."""
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.ready(self)

    def send(self, request: bytes, due_s: float, taken_s: float) -> None:
        """Send a request that was due then."""
        self.due_s, self.taken_s = due_s, taken_s
        self._is_busy = True
        self.sent_s = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A piece of a response."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._client.log.explain(UNREACHABLE, f"the response is no HTTP/1.1: {error}")
            self.finish(UNREACHABLE, keeps=False)

    def on_body(self, body: bytes) -> None:
        """Kept for errors: the last piece is enough."""
        self._body = body

    def on_message_complete(self) -> None:
        """The response is complete."""
        parser = self._parser
        status, keeps = parser.get_status_code(), parser.should_keep_alive()
        if not 200 <= status < 300:
            self._client.log.explain(status, self._body.decode("utf-8", "replace"))
        self.finish(OK if 200 <= status < 300 else status, keeps=keeps)

    def finish(self, status: int, *, keeps: bool) -> None:
        """Note what became of the request."""
        if self._is_busy:
            self._is_busy = False
            times = self.due_s, self.taken_s, self.sent_s
            # First free, then noted: what is noted may send the next request at once. A request that waits for a
            # connection is sent over this one right away, and brings its own times.
            self._client.answered(self, keeps=keeps)
            self._client.log.done(*times, status)

    def connection_lost(self, error: Exception | None) -> None:
        """The server closed it, or we did."""
        if self._is_busy:
            self._client.log.explain(UNREACHABLE, str(error or "the server closed the connection"))
            self.finish(UNREACHABLE, keeps=False)
        self._client.lost(self)

    def drop(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.abort()
