"""A client's connection: requests and their responses, one after the other.

A request that arrives while an earlier one is answered waits, and nothing more is read meanwhile, so a client holds one
read's worth of memory at most beside the body in hand.

Thread: the server's loop.

Reference: RFC 9112, section 9.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from http import HTTPStatus
from typing import Protocol, cast

from ..budget import ByteBudget
from ..settings import ServerSettings
from .message import Message, Refused, Sink
from .reader import RequestReader

LINGER_S = 2.0
"""How long a refused client may go on sending before it is cut off; closing at once could destroy the response."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_FOREVER = float("inf")


def status_line(status: int, phrase: str | None = None) -> bytes:
    """`HTTP/1.1 STATUS PHRASE` with Python's phrase by default."""
    if phrase is None:
        return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


class Owner(Protocol):
    """What a connection belongs to: an `HttpServer`.

    Attributes:
        limits: what clients may take.
        budget: counts large bodies.
        loop: the server's.
        log: for refused requests and defects.
        date_line: the `Date` header of this second.
        is_draining: no request is taken after those that run.
    """

    limits: ServerSettings
    budget: ByteBudget
    loop: asyncio.AbstractEventLoop
    log: logging.Logger
    date_line: bytes
    is_draining: bool

    def opened(self, connection: Connection) -> bool:
        """Remember a connection; False when there are too many."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""

    def sink_for(self, connection: Connection, message: Message) -> Sink:
        """Choose what takes the body of a request and answers it.

        Raises:
            Refused: if the request gets an error instead.
        """


class Connection(asyncio.Protocol):
    """One client.

    Args:
        server: the server that accepted it.

    Attributes:
        deadline_s: `perf_counter` when the server cuts the connection off.
    """

    __slots__ = (
        "_current",
        "_is_closing",
        "_is_reading_paused",
        "_is_write_paused",
        "_limits",
        "_reader",
        "_refusal",
        "_server",
        "_transport",
        "_waiting",
        "_write_waiters",
        "deadline_s",
    )

    def __init__(self, server: Owner) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._current: Message | None = None
        self._waiting: deque[Message] = deque()
        self._refusal: Refused | None = None
        self._is_closing = False
        self._is_reading_paused = False
        self._is_write_paused = False
        self._write_waiters: list[asyncio.Future[None]] = []
        self._reader = RequestReader(self._limits, server.budget, self._take)
        self._set_deadline()

    def _set_deadline(self) -> None:
        """Decide how long the client may take for what it does now."""
        limits, current = self._limits, self._current
        if self._is_write_paused:
            self.deadline_s = time.perf_counter() + limits.write_timeout_s
        elif current is None:
            self.deadline_s = time.perf_counter() + limits.idle_timeout_s
        elif not current.is_complete:
            self.deadline_s = time.perf_counter() + limits.body_timeout_s
        else:
            self.deadline_s = _FOREVER

    # --- the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop; a client too many is cut off."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.opened(self):
            self._is_closing = True
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the client is gone."""
        del exc
        self._is_closing = True
        self._server.closed(self)
        current, self._current = self._current, None
        self._drop_waiting()
        if current is not None:
            current.abandon()
        self._wake_writers(ConnectionResetError("the client left"))

    def pause_writing(self) -> None:
        """Called by the loop when the client reads more slowly than we write."""
        self._is_write_paused = True
        self._set_deadline()

    def resume_writing(self) -> None:
        """Called by the loop when the client has caught up."""
        self._is_write_paused = False
        self._wake_writers(None)
        if not self._is_closing:
            self._set_deadline()
            self._start_waiting()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._is_closing or self._refusal is not None:
            return
        try:
            self._reader.feed(data)
        except Refused as refused:
            self._stop_reading(refused)
            return
        except Exception as error:  # noqa: BLE001 - one request must not end the loop
            self._broke(error)
            return
        current = self._current
        if current is not None and current.is_complete and not self._is_write_paused:
            self.deadline_s = _FOREVER

    def _take(self, message: Message) -> None:
        """The head of a request is complete."""
        if self._is_closing:
            return
        if self._current is None and not self._waiting and not self._is_write_paused:
            self._start(message)
        else:
            self._waiting.append(message)
            self.pause_reading()

    # --- answers ------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self._current is not None or bool(self._waiting)

    @property
    def may_be_cut(self) -> bool:
        """Whether a client that others may make room for has not sent all of its request yet."""
        current = self._current
        return current is not None and not current.keeps_place and not current.is_complete

    @property
    def has_unsent(self) -> bool:
        """Whether a part of a response waits for the client to read."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() > 0

    @property
    def transport(self) -> asyncio.Transport | None:
        """The loop's transport."""
        return self._transport

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._is_closing or self._transport is None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def wait_written(self) -> asyncio.Future[None]:
        """A future that is done when the client has caught up."""
        future: asyncio.Future[None] = self._server.loop.create_future()
        if self.is_closing:
            future.set_exception(ConnectionResetError("the client left"))
            future.exception()
        elif self._is_write_paused:
            self._write_waiters.append(future)
        else:
            future.set_result(None)
        return future

    def respond(self, message: Message, first_line: bytes, fields: bytes, body: bytes) -> None:
        """Send a whole response and go on to the next request.

        Args:
            message: the request.
            first_line: see `status_line`.
            fields: header lines, each with its line end; Date, Content-Length and Connection are added.
            body: not sent for HEAD.
        """
        if message is not self._current or self._transport is None:
            return
        head = message.head
        connection = b""
        if not self.stays_open_after(message):
            connection = b"Connection: close\r\n"
        elif not head.is_http11:
            connection = b"Connection: Keep-Alive\r\n"
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        sent = b"" if head.method == "HEAD" else body
        self._transport.write(b"".join((first_line, fields, self._server.date_line, connection, length, sent)))
        self.done(message)

    def stays_open_after(self, message: Message) -> bool:
        """Whether there can be another request after this one, which its response announces."""
        if not message.is_complete or self._server.is_draining:
            message.keeps_alive = False
        return message.keeps_alive

    def done(self, message: Message) -> None:
        """The response to `message` is written: go on, or close."""
        if message is not self._current:
            return
        self._current = None
        message.answered()
        if self._is_closing:
            return
        if not self.stays_open_after(message):
            self.close_kindly()
            return
        self._set_deadline()
        if self._waiting or self._refusal is not None:
            # Not from here: thousands of pipelined requests that are answered at once would nest as deeply.
            self._server.loop.call_soon(self._start_waiting)
        else:
            self.resume_reading()

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        if not self._is_reading_paused and not self.is_closing and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless a request waits for its turn."""
        if not self._is_reading_paused or self._waiting or self._refusal is not None or self.is_closing:
            return
        if self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _start_waiting(self) -> None:
        if self._current is not None or self._is_write_paused or self._is_closing:
            return
        if self._waiting:
            try:
                self._start(self._waiting.popleft())
            except Refused as refused:
                self.refuse(refused)
            except Exception as error:  # noqa: BLE001 - one request must not end the loop
                self._broke(error)
            self.resume_reading()
        elif self._refusal is not None:
            self.refuse(self._refusal)

    def _start(self, message: Message) -> None:
        self._current = message
        self._set_deadline()
        message.start(self._server.sink_for(self, message))

    def _drop_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().abandon()

    def _broke(self, error: Exception) -> None:
        """The code that should answer the request in hand has a defect."""
        self._server.log.error("uncaught error", exc_info=error)
        if self._current is None:
            self.close_kindly()  # it has been answered
        else:
            self.refuse(Refused(500, type(error).__name__))

    def _stop_reading(self, refused: Refused) -> None:
        """What came is broken; the good requests before it get their responses first."""
        incoming, current = self._reader.incoming, self._current
        if incoming is not None and self._waiting and self._waiting[-1] is incoming:
            self._waiting.pop().abandon()
        has_turn = not self._waiting and not self._is_write_paused if current is None else not current.is_complete
        if has_turn:
            self.refuse(refused)
        else:
            self._refusal = refused
            self.pause_reading()

    def refuse(self, refused: Refused) -> None:
        """Answer the request in hand with an error and close; a response that has begun is cut off."""
        if self._is_closing:
            return
        self._server.log.info("refused a request: %d, %s", refused.status, refused)
        current, self._current = self._current, None
        self._drop_waiting()
        if current is not None:
            current.abandon()
            if current.is_answered:
                self.abort()
                return
        body = json.dumps({"error": str(refused)}).encode() if refused.is_explained else b""
        kind = b"application/json" if body else b"text/html"
        again = b"Retry-After: 1\r\n" if refused.status == 503 else b""
        fields = b"Content-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (kind, len(body))
        self.write(status_line(refused.status) + self._server.date_line + again + fields + body)
        self.close_kindly()

    def close_kindly(self) -> None:
        """Close once everything is sent; what the client still sends is read and dropped for a while."""
        transport = self._transport
        if self._is_closing or transport is None or transport.is_closing():
            return
        self._is_closing = True
        self._drop_waiting()
        is_reading = not transport.get_write_buffer_size()
        self.deadline_s = time.perf_counter() + (LINGER_S if is_reading else self._limits.write_timeout_s)
        if self._reader.num_unfinished or self._is_reading_paused:
            # Something unread may be left, and closing now would make the kernel destroy the response.
            if self._is_reading_paused:
                self._is_reading_paused = False
                transport.resume_reading()
            if transport.can_write_eof():
                transport.write_eof()
            # TLS cannot be closed by half: its client goes by the response's length, or waits for the deadline.
            return
        transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def _wake_writers(self, error: Exception | None) -> None:
        waiters, self._write_waiters = self._write_waiters, []
        for future in waiters:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()
