"""Whole requests that a worker leaves to the core: status, metadata, metrics, the admin API, and all that is rare.

Thread: the loop of each side.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any  # what a transport knows of its peer

from ..http.connection import Connection
from ..http.message import Message, Refused
from ..http.server import HttpServer
from ..http.tornado_sink import CONTINUE, Peer
from .link import Link
from .messages import Forward, Forwarded, GiveUp


class Forwarder:
    """The worker's side: requests that wait for the core's responses.

    Args:
        link: the way to the core.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sinks: dict[int, ForwardSink] = {}
        self._number = 0

    def sink(self, connection: Connection, message: Message) -> ForwardSink:
        """Take a request."""
        message.check_size()
        if message.head.expects_continue:
            connection.write(CONTINUE)
        return ForwardSink(self, connection, message)

    def send(self, sink: ForwardSink, message: Message, body: bytes, peer: tuple[str, bool]) -> int:
        """Pass a request on; its number."""
        self._number += 1
        self._sinks[self._number] = sink
        self._link.send(Forward(self._number, message.head, body, peer))
        return self._number

    def give_up(self, number: int) -> None:
        """The client left."""
        if self._sinks.pop(number, None) is not None:
            self._link.send(GiveUp(number))

    def answered(self, answer: Forwarded) -> None:
        """The core has answered."""
        sink = self._sinks.pop(answer.number, None)
        if sink is not None:
            sink.answer(answer)


class ForwardSink:
    """One request on its way to the core."""

    def __init__(self, forwarder: Forwarder, connection: Connection, message: Message) -> None:
        self._forwarder = forwarder
        self._connection = connection
        self._message = message
        self._chunks: list[bytes] = []
        self._number = 0

    def receive(self, chunk: bytes) -> None:
        """A part of the body came."""
        self._chunks.append(chunk)

    def end(self) -> None:
        """The body is complete."""
        peer = Peer.of(self._connection)
        body = b"".join(self._chunks)
        self._chunks = []
        self._number = self._forwarder.send(self, self._message, body, (peer.remote_ip, peer.protocol == "https"))

    def abandon(self) -> None:
        """The client left."""
        self._forwarder.give_up(self._number)

    def answer(self, answer: Forwarded) -> None:
        """Pass the response's bytes on."""
        if answer.data is None:
            self._connection.abort()
            return
        self._message.keeps_alive = answer.keeps_alive
        self._connection.write(answer.data)
        self._connection.done(self._message)


class _Collected(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, peer: tuple[str, bool]) -> None:
        super().__init__()
        self._peer = peer
        self.parts: list[bytes] = []

    def write(self, data: Any) -> None:
        """Keep it."""
        self.parts.append(bytes(data))

    def is_closing(self) -> bool:
        """Never by itself."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the worker knows of the client."""
        if name == "peername":
            return (self._peer[0], 0)
        if name == "ssl_object" and self._peer[1]:
            return self
        return default


class ForwardedConnection(Connection):
    """The core's side: a connection that carries one forwarded request.

    Args:
        server: answers the request.
        link: the way back.
        forward: the request.
    """

    __slots__ = ("_collected", "_link", "_number")

    def __init__(self, server: HttpServer, link: Link, forward: Forward) -> None:
        super().__init__(server)
        self._link = link
        self._number = forward.number
        self._collected = self._transport = _Collected(forward.peer)

    def answer(self, forward: Forward) -> None:
        """Let the server answer."""
        message = Message(forward.head, time.perf_counter(), max(1, len(forward.body)), self._server.budget)
        try:
            message.receive(forward.body)
            message.end()
            self._start(message)
        except Refused as refused:
            self.refuse(refused)

    def done(self, message: Message) -> None:
        """The response is complete."""
        if message is self._current:
            self._current = None
            message.answered()
            self._send(b"".join(self._collected.parts), keeps_alive=message.keeps_alive)

    def close_kindly(self) -> None:
        """Refused: the response is complete, and the client's connection ends."""
        self._send(b"".join(self._collected.parts), keeps_alive=False)

    def abort(self) -> None:
        """Cut the client off."""
        self._send(None, keeps_alive=False)

    def give_up(self) -> None:
        """The client left."""
        self._is_closing = True
        current, self._current = self._current, None
        if current is not None:
            current.abandon()

    def _send(self, data: bytes | None, *, keeps_alive: bool) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._link.send(Forwarded(self._number, data, keeps_alive))
