"""Tornado's delegates over our connection: an `Application` and its handlers run unchanged.

Thread: the server's loop.

Reference: tornado.httputil's `HTTPConnection` and `HTTPMessageDelegate`, and what `HTTP1Connection` makes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tornado.concurrent import Future
from tornado.httputil import HTTPConnection as TornadoConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from .connection import Connection
from .message import Message, Refused
from .server import SinkFor

MAX_BUFFERED_BYTES = 64 * 1024
"""Of a body, while the handler is busy with what it has."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINE_END = re.compile(r"[\r\n]")
_DIGITS = re.compile(r"[0-9]+")


def sinks_of(application: HTTPServerConnectionDelegate, log: logging.Logger) -> SinkFor:
    """Sinks that give requests to the handlers of a Tornado application.

    Args:
        application: makes delegates, such as a Tornado `Application`.
        log: for handlers that raise.
    """
    return lambda connection, message: DelegateSink(connection, message, application, log)


@dataclass(frozen=True, slots=True)
class Peer:
    """What Tornado wants to know of the client: its `connection.context`."""

    remote_ip: str
    protocol: str

    @classmethod
    def of(cls, connection: Connection) -> Peer:
        """The client of a connection."""
        transport = connection.transport
        if transport is None:
            return cls("0.0.0.0", "http")  # noqa: S104 - Tornado's word for unknown
        name = transport.get_extra_info("peername")
        is_tls = transport.get_extra_info("ssl_object") is not None
        return cls(name[0] if isinstance(name, tuple) else "0.0.0.0", "https" if is_tls else "http")  # noqa: S104


class RequestConnection(TornadoConnection):
    """What a handler writes its response to.

    Args:
        connection: the client's.
        message: the request.
        on_finish: called when the response is complete.
    """

    def __init__(self, connection: Connection, message: Message, on_finish: Callable[[], object]) -> None:
        self.context = Peer.of(connection)
        self._on_finish = on_finish
        self._connection = connection
        self._message = message
        self._close_callback: Callable[[], object] | None = None
        self._is_chunking = False
        self._left: int | None = None
        self.is_finished = False

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` if the client leaves."""
        self._close_callback = callback

    def set_max_body_size(self, max_body_size: int) -> None:
        """Change the limit for this request's body."""
        self._message.max_bytes = max_body_size

    def closed(self) -> bool:
        """Whether the client has left."""
        return self._connection.is_closing

    def leave(self) -> None:
        """The client left."""
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            callback()

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> Future[None]:
        """Write the head of the response, and a first part of its body."""
        if not isinstance(start_line, ResponseStartLine):
            raise TypeError("a server writes responses")
        code = start_line.code
        if code >= 200:
            self._frame(code, headers)
        lines = [f"HTTP/1.1 {code} {start_line.reason}", *(f"{name}: {value}" for name, value in headers.get_all())]
        for line in lines:
            if _LINE_END.search(line):
                raise ValueError(f"Illegal characters (CR or LF) in header: {line!r}")
        self._message.is_answered = code >= 200
        text = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return self._write(text + self._framed(chunk or b""))

    def _frame(self, code: int, headers: HTTPHeaders) -> None:
        """Decide where the response's body ends, and whether the connection goes on after it."""
        message, head = self._message, self._message.head
        if headers.get("Connection", "").lower() == "close":
            message.keeps_alive = False
        if head.method == "HEAD" or code in (204, 304):
            self._left = 0
        elif "Content-Length" in headers:
            if not _DIGITS.fullmatch(headers["Content-Length"]):
                raise ValueError(f"Content-Length: {headers['Content-Length']!r}")
            self._left = int(headers["Content-Length"])
        elif head.is_http11:
            self._is_chunking = True
            headers["Transfer-Encoding"] = "chunked"
        else:
            message.keeps_alive = False  # the end of the connection is the end of the body
        stays_open = self._connection.stays_open_after(message)
        if head.is_http11 and not stays_open:
            headers["Connection"] = "close"
        elif not head.is_http11 and stays_open:
            headers["Connection"] = "Keep-Alive"

    def write(self, chunk: bytes) -> Future[None]:
        """Write a part of the body."""
        return self._write(self._framed(chunk))

    def finish(self) -> None:
        """The response is complete."""
        if self._left and not self.closed():
            self._connection.abort()
            raise HTTPOutputError(f"Tried to write {self._left} bytes less than Content-Length")
        if self._is_chunking and not self.closed():
            self._connection.write(b"0\r\n\r\n")
        self.is_finished = True
        self._close_callback = None
        self._connection.done(self._message)
        self._on_finish()

    def _framed(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._connection.abort()
                raise HTTPOutputError("Tried to write more data than Content-Length")
        if self._is_chunking and chunk:
            return b"%x\r\n%s\r\n" % (len(chunk), chunk)
        return chunk

    def _write(self, data: bytes) -> Future[None]:
        future: Future[None] = asyncio.get_running_loop().create_future()
        if self.closed():
            future.set_exception(StreamClosedError())
            future.exception()
            return future
        self._connection.write(data)
        written = self._connection.wait_written()

        def copy(done: asyncio.Future[None]) -> None:
            if future.done():
                return
            if done.exception() is None:
                future.set_result(None)
            else:
                future.set_exception(StreamClosedError())
                future.exception()

        written.add_done_callback(copy)
        return future


class DelegateSink:
    """Drives one of Tornado's delegates.

    Args:
        connection: the client's.
        message: the request.
        application: makes the delegate.
        log: for delegates that raise.
    """

    def __init__(
        self, connection: Connection, message: Message, application: HTTPServerConnectionDelegate, log: logging.Logger
    ) -> None:
        self._connection = connection
        self._message = message
        self._application = application
        self._log = log
        self._chunks: deque[bytes] = deque()
        self._num_buffered = 0
        self._is_ended = False
        self._changed = asyncio.Event()
        self._delegate: HTTPMessageDelegate | None = None
        self._request = RequestConnection(connection, message, self._changed.set)
        self._task = asyncio.get_running_loop().create_task(self._drive())

    def receive(self, chunk: bytes) -> None:
        """A part of the body came."""
        self._chunks.append(chunk)
        self._num_buffered += len(chunk)
        if self._num_buffered > MAX_BUFFERED_BYTES:
            self._connection.pause_reading()
        self._changed.set()

    def end(self) -> None:
        """The body is complete."""
        self._is_ended = True
        self._changed.set()

    def abandon(self) -> None:
        """The client left: notify the delegate while it reads, and afterwards the handler."""
        if self._task.done():
            self._request.leave()
            return
        self._task.cancel()
        self._notify_delegate()

    def _notify_delegate(self) -> None:
        """The delegate gets nothing more."""
        if self._delegate is not None:
            with contextlib.suppress(Exception):
                self._delegate.on_connection_close()

    async def _drive(self) -> None:
        try:
            await self._deliver()
        except HTTPInputError as error:
            self._refuse(Refused(400, str(error)))
        except Refused as refused:
            self._refuse(refused)
        except Exception:  # noqa: BLE001 - a handler's defect ends its connection, not the server
            self._log.exception("Uncaught exception in %s %s", self._message.head.method, self._message.head.target)
            if not self._request.is_finished:
                self._connection.abort()

    def _refuse(self, refused: Refused) -> None:
        if not self._request.is_finished:
            self._connection.refuse(refused)

    async def _deliver(self) -> None:
        head = self._message.head
        start_line, headers = head.for_tornado()
        delegate = self._delegate = self._application.start_request(self._connection, self._request)
        waits = delegate.headers_received(start_line, headers)
        if waits is not None:
            await waits
        if not self._request.is_finished:
            self._message.check_size()
            if head.expects_continue and not self._message.is_answered:
                self._connection.write(CONTINUE)
        while not self._request.is_finished:
            if self._chunks:
                chunk = self._chunks.popleft()
                self._num_buffered -= len(chunk)
                waits = delegate.data_received(chunk)
                if waits is not None:
                    await waits
            elif self._is_ended:
                delegate.finish()
                return
            else:
                self._connection.resume_reading()
                self._changed.clear()
                await self._changed.wait()
        self._notify_delegate()  # it answered before it had everything
