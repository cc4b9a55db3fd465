"""Our HTTP connection alone: handlers that behave in every way, a raw client, and a parser of what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import uvloop
from tornado import web
from tornado.iostream import StreamClosedError

from tfserve_nb.server.http.connection import Connection, status_line
from tfserve_nb.server.http.message import Message
from tfserve_nb.server.http.server import HttpServer
from tfserve_nb.server.http.tornado_sink import CONTINUE, sinks_of
from tfserve_nb.server.settings import ServerSettings

from .eventually import eventually

LIMIT_S = 10.0
END = b"\r\n\r\n"


def receive(connection: socket.socket, until: bytes = b"}") -> bytes:
    """Read until some bytes came or the other side closed."""
    data = b""
    while until not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def request(target: str = "/echo", body: bytes = b"", *lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    """A request with a fixed length."""
    fields = ["Host: x", *lines, *([f"Content-Length: {len(body)}"] if body else [])]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *fields, "", ""]).encode() + body


def chunked(*chunks: bytes, target: str = "/echo", tail: bytes = b"0\r\n\r\n") -> bytes:
    """A request whose body comes in chunks."""
    head = request(target, b"", "Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + tail


@dataclass
class Answer:
    """One answer as it came."""

    status: int
    fields: dict[str, str]
    body: bytes


class Client:
    """A connection of our own making."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes, method: str = "POST") -> Answer:
        """Send a request, get its answer."""
        self.send(data)
        return self.answer(method)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        self._data += data
        return bool(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            assert self._more(), f"closed after {self._data!r}"
        found, _, self._data = self._data.partition(end)
        return found

    def _take(self, number: int) -> bytes:
        while len(self._data) < number:
            assert self._more(), f"closed after {len(self._data)} of {number} bytes"
        found, self._data = self._data[:number], self._data[number:]
        return found

    def answer(self, method: str = "POST") -> Answer:
        """The next answer."""
        first, *lines = self._until(END).decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(fields) == len(lines)
        return Answer(int(status), fields, self._body(method, int(status), fields))

    def _body(self, method: str, status: int, fields: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (100, 204, 304):
            return b""
        if "content-length" in fields:
            return self._take(int(fields["content-length"]))
        if fields.get("transfer-encoding") != "chunked":
            return self.rest()
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._take(size)
            assert self._take(2) == b"\r\n"
        assert self._take(2) == b"\r\n"
        return body

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while self._more():
            pass
        found, self._data = self._data, b""
        return found

    def is_closed(self) -> bool:
        """Wait for the end; nothing more may come."""
        return self.rest() == b""


class Echo(web.RequestHandler):
    """Answers with what it got."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")

    def prepare(self) -> None:
        self.finish(f"{self.request.method} {self.request.uri} ".encode() + self.request.body)


class Gate(web.RequestHandler):
    """Answers when the test says so, and remembers clients that leave."""

    def initialize(self, server: RunningServer) -> None:
        self._server = server

    async def post(self) -> None:
        self._server.num_waiting += 1
        await asyncio.get_running_loop().run_in_executor(None, self._server.gate.wait, LIMIT_S)
        self.finish(b"gate " + self.request.body)

    def on_connection_close(self) -> None:
        self._server.has_left.set()


class Large(web.RequestHandler):
    """As many bytes as asked for, at once or in parts."""

    def initialize(self, server: RunningServer) -> None:
        self._server = server

    async def get(self, size: str) -> None:
        part = b"x" * (1 << 16)
        with contextlib.suppress(StreamClosedError):
            for _ in range(int(size) >> 16):
                self.write(part)
                await self.flush()
                self._server.num_written += len(part)


class Wrong(web.RequestHandler):
    """Announces ten bytes and writes another number, or raises."""

    def get(self, number: str) -> None:
        if number == "raise":
            raise ZeroDivisionError("secret detail")
        self.set_header("Content-Length", "10")
        self.write(b"x" * int(number))
        self.finish()


class Bare(web.RequestHandler):
    """Without a body, or asked to close."""

    def get(self, word: str) -> None:
        if word == "close":
            self.set_header("Connection", "close")
        else:
            self.set_status(int(word))


@web.stream_request_body
class Slow(web.RequestHandler):
    """Takes a body as slowly as the test wants, and may answer early or allow more."""

    def initialize(self, server: RunningServer) -> None:
        self._server = server
        self._num_bytes = 0

    def prepare(self) -> None:
        most = self.get_query_argument("most", None)
        if most is not None:
            connection: Any = self.request.connection
            connection.set_max_body_size(int(most))
        if self.get_query_argument("early", None):
            self.finish(b"early")

    async def data_received(self, chunk: bytes) -> None:
        if not self._num_bytes:
            self._server.num_waiting += 1
            await asyncio.get_running_loop().run_in_executor(None, self._server.gate.wait, LIMIT_S)
        self._num_bytes += len(chunk)
        self._server.num_taken += len(chunk)
        if self.get_query_argument("middle", None):
            self.finish(b"middle")

    def post(self) -> None:
        self.finish(b"%d" % self._num_bytes)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._server.has_left.set()


class ShortEcho:
    """Answers below /short at once, without Tornado."""

    def __init__(self, connection: Connection, message: Message) -> None:
        self._connection = connection
        self._message = message
        self._body = b""

    def receive(self, chunk: bytes) -> None:
        self._body += chunk

    def end(self) -> None:
        if self._message.head.target == "/short/raise":
            raise ZeroDivisionError("secret detail")
        head = self._message.head
        body = f"{head.method} {head.target} ".encode() + self._body
        self._connection.respond(self._message, status_line(200), b"", body)

    def abandon(self) -> None:
        pass


def short_echo(connection: Connection, message: Message) -> ShortEcho | None:
    """A short way for requests below /short."""
    if not message.head.target.startswith("/short"):
        return None
    message.check_size()
    if message.head.expects_continue:
        connection.write(CONTINUE)
    return ShortEcho(connection, message)


class RunningServer:
    """A server on a loop of its own.

    Args:
        limits: of the server.
        context: for TLS.
        new_loop: uvloop's or asyncio's.
    """

    def __init__(
        self,
        limits: ServerSettings | None = None,
        context: ssl.SSLContext | None = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    ) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.has_left = threading.Event()
        self.num_waiting = self.num_written = self.num_taken = 0
        self._limits = limits or ServerSettings()
        self._context = context
        self.loop = new_loop()
        self.problems: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(str(context)))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server: HttpServer = self.run(self._start())

    def run(self, coroutine: Any) -> Any:
        """Run on the server's loop, wait for the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LIMIT_S)

    async def _start(self) -> HttpServer:
        mine = {"server": self}
        application = web.Application(
            [
                ("/gate", Gate, mine),
                ("/slow", Slow, mine),
                (r"/large/(\d+)", Large, mine),
                ("/wrong/(.*)", Wrong),
                ("/bare/(.*)", Bare),
            ],
            default_handler_class=Echo,
            log_function=lambda _: None,
        )
        log = logging.getLogger("raw_http")
        server = HttpServer(sinks_of(application, log), self._limits, log, short_echo)
        await server.listen(self.socket, self._context)
        return server

    def connect(self) -> Client:
        """A raw connection; close it after use."""
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S))

    async def _num_tasks(self) -> int:
        return len(asyncio.all_tasks()) - 1

    @property
    def num_connections(self) -> int:
        """Open connections."""
        return len(self.server._connections)  # noqa: SLF001 - what no client can see

    def close(self) -> None:
        """Stop; nothing may be left behind."""
        self.gate.set()
        self.run(self.server.close())
        eventually(lambda: not self.run(self._num_tasks()))
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_S)
        self.loop.close()
        assert not self.problems


@contextlib.contextmanager
def running(limits: ServerSettings | None = None, **options: Any) -> Iterator[RunningServer]:
    """A server for a while."""
    server = RunningServer(limits, **options)
    try:
        yield server
    finally:
        server.close()
