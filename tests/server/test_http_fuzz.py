"""Byte streams that nobody thought of: cut anywhere, mutated, and compared with what Tornado makes of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from helpers.raw_http import Echo, short_echo
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado import web
from tornado.http1connection import HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from tfserve_nb.server.budget import ByteBudget
from tfserve_nb.server.http.connection import Connection
from tfserve_nb.server.http.message import Message, Refused
from tfserve_nb.server.http.reader import RequestReader
from tfserve_nb.server.http.server import HttpServer
from tfserve_nb.server.http.tornado_sink import sinks_of
from tfserve_nb.server.settings import ServerSettings

LIMITS = ServerSettings(max_header_bytes=4000, max_body_bytes=4000)
LOG = logging.getLogger("http_fuzz")
DATE = re.compile(rb"Date: [^\r]*\r\n")
Seen = tuple[str, str, bytes]
Runner = Callable[..., Any]


# ---------------------------------------------------------------- streams

token = st.text("abcXYZ019-_.!", min_size=1, max_size=12)
value = st.text("abc XYZ,;=\"'\t\u00e9", max_size=20).map(str.strip)
target = st.builds("/{}{}".format, st.sampled_from(["", "short", "echo"]), st.text("ab/?&=%41.#", max_size=20))
body = st.one_of(st.binary(max_size=40), st.just(b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"), st.just(b"0\r\n\r\n"))


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    """Any request that keeps its connection open."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]))
    lines = [f"{draw(st.sampled_from(['Host', 'host', 'HOST']))}:{draw(st.sampled_from(['', ' ', '  ']))}localhost:80"]
    lines += [f"X-{name}: {text}" for name, text in draw(st.lists(st.tuples(token, value), max_size=4))]
    if draw(st.integers(0, 9)) == 0:
        lines.append("Connection: Upgrade\r\nUpgrade: h2c")
    content = draw(body)
    framing = draw(st.sampled_from(["length", "chunks", "none"]))
    if framing == "length":
        lines.append(f"Content-Length: {len(content)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        content = draw(chunks_of(content))
    else:
        content = b""
    lines = draw(st.permutations(lines))
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return blank + "\r\n".join([f"{method} {draw(target)} HTTP/1.1", *lines, "", ""]).encode("latin-1") + content


@st.composite
def chunks_of(draw: st.DrawFn, content: bytes) -> bytes:
    """A body in chunks, without extensions and trailers."""
    framed = b""
    while content:
        size = draw(st.integers(1, len(content)))
        framed += draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size + b"\r\n" + content[:size] + b"\r\n"
        content = content[size:]
    return framed + b"0\r\n\r\n"


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """The stream, cut."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


POISON = [
    *(b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b";", b",", b"+", b"-", b"_", b"0x", b"\x0b", b"\x7f"),
    *(b"\xa0", b"\xff", b"0", b"1", b"HTTP/1.0", b"HTTP/1.1", b"chunked", b"0\r\n\r\n"),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: other\r\n"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of good requests with a few changes."""
    data = b"".join(draw(st.lists(good_requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        places = [found.start() for found in re.finditer(rb"[\r\n: ,]|(?<=[\r\n: ,])", data)]
        place = draw(st.one_of(st.sampled_from(places), st.integers(0, len(data))))
        removed = draw(st.sampled_from([0, 0, 1, 1, 2, 5]))
        data = data[:place] + draw(st.sampled_from([b"", *POISON])) + data[place + removed :]
    return data


# ---------------------------------------------------------------- ours, without a socket


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; what is read comes from the test."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.sent = b""
        self.is_ended = self.is_paused = False
        connection.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.is_ended
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_ended

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def close(self) -> None:
        if not self.is_ended:
            self.is_ended = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close


async def settle(transport: MemoryTransport) -> None:
    """Let everything happen that can happen without more bytes."""
    connection = transport.connection
    for _ in range(3):
        await asyncio.sleep(0)
    for _ in range(2000):
        current = connection._current  # noqa: SLF001 - what no client can see
        is_waiting = current is not None and not current.is_complete
        is_idle = not connection.is_busy and connection._refusal is None  # noqa: SLF001 - as above
        if transport.is_ended or is_idle or (is_waiting and not transport.is_paused):
            return
        await asyncio.sleep(0)
    pytest.fail("a request is neither answered nor refused")


async def feed_ours(
    application: HTTPServerConnectionDelegate, pieces: list[bytes], *, has_fast_path: bool = True
) -> MemoryTransport:
    """What our connection answers."""
    server = HttpServer(sinks_of(application, LOG), LIMITS, LOG, short_echo if has_fast_path else None)
    transport = MemoryTransport(Connection(server))
    for piece in pieces:
        while transport.is_paused and not transport.is_ended:
            await settle(transport)
            await asyncio.sleep(0)
        if not transport.is_ended:
            transport.connection.data_received(piece)
            await asyncio.sleep(0)
    await settle(transport)
    transport.connection.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    return transport


def echo() -> web.Application:
    return web.Application(default_handler_class=Echo, log_function=lambda _: None)


@pytest.fixture(scope="module")
def run() -> Any:
    """Run on a loop where nothing may go wrong."""
    problems: list[Any] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))

        def run(main: Any) -> Any:
            result = runner.run(main)
            assert not problems
            return result

        yield run


@pytest.fixture(autouse=True)
def _no_errors(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


# ---------------------------------------------------------------- (a) cuts change nothing


def read_ours(pieces: list[bytes]) -> tuple[list[Any], int | None]:
    """What the reader makes of pieces: heads and bodies, and the status of a refusal."""
    found: list[Any] = []

    class Sink:
        def __init__(self, message: Message) -> None:
            self.body = b""
            self.is_ended = False
            found.append((message.head, self))

        def receive(self, chunk: bytes) -> None:
            self.body += chunk

        def end(self) -> None:
            self.is_ended = True

        def abandon(self) -> None:
            pass

    def take(message: Message) -> None:
        message.check_size()
        message.start(Sink(message))

    reader, status = RequestReader(LIMITS, ByteBudget(LIMITS.max_bytes_in_flight), take), None
    try:
        for piece in pieces:
            reader.feed(piece)
    except Refused as refused:
        status = refused.status
    return [(head, sink.body if sink.is_ended else None, sink.is_ended) for head, sink in found], status


cuts = st.one_of(st.lists(st.integers(0, 5000), max_size=12), st.just(list(range(5000))))


@settings(max_examples=200, deadline=None)
@given(requests=st.lists(good_requests(), min_size=1, max_size=4), cuts=cuts)
def test_cut_anywhere_the_same_requests_come_out(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    whole, status = read_ours([data])

    assert (status, len(whole)) == (None, len(requests))
    assert all(is_ended for _, _, is_ended in whole)
    assert read_ours(pieces_of(data, cuts)) == (whole, None)


@settings(max_examples=100, deadline=None)
@given(requests=st.lists(good_requests(), min_size=1, max_size=4), cuts=cuts)
def test_cut_anywhere_the_same_answers_come_out(run: Runner, requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    whole = run(feed_ours(echo(), [data]))
    parts = run(feed_ours(echo(), pieces_of(data, cuts)))

    assert DATE.sub(b"", parts.sent) == DATE.sub(b"", whole.sent)
    assert whole.sent.count(b"HTTP/1.1 200 OK\r\n") == len(requests)
    assert not whole.is_ended
    assert not parts.is_ended


# ---------------------------------------------------------------- (b) garbage harms nobody


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(mutated(), st.binary(max_size=200)), cuts=cuts)
def test_broken_streams_are_read_alike_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole, whole_status = read_ours([data])
    parts, parts_status = read_ours(pieces_of(data, cuts))

    assert [one for one in whole if one[2]] == [one for one in parts if one[2]]
    assert (whole_status is None) == (parts_status is None)


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(mutated(), st.binary(max_size=200)), cuts=cuts)
def test_broken_streams_end_answered_or_closed(run: Runner, data: bytes, cuts: list[int]) -> None:
    transport = run(feed_ours(echo(), pieces_of(data, cuts)))

    sent = transport.sent
    assert sent[:9] in (b"", b"HTTP/1.1 ")
    if b"Connection: close\r\n" in sent:
        assert transport.is_ended
    _, status = read_ours([data])
    if status is not None:
        assert transport.is_ended
        assert sent


# ---------------------------------------------------------------- (c) nothing that Tornado refuses is taken


class Recorder(HTTPServerConnectionDelegate):
    """Answers everything with nothing, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        return RecorderDelegate(request_conn, self.seen)


class RecorderDelegate(HTTPMessageDelegate):
    """One request."""

    def __init__(self, connection: Any, seen: list[Seen]) -> None:
        self._connection = connection
        self._seen = seen
        self._body = b""

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        # Tornado checks Host and query here.
        self._request = HTTPServerRequest(connection=self._connection, start_line=start_line, headers=headers)

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def finish(self) -> None:
        self._seen.append((self._request.method or "", self._request.uri or "", self._body))
        fields = HTTPHeaders({"Content-Length": "0"})
        self._connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), fields)
        self._connection.finish()

    def on_connection_close(self) -> None:
        pass


async def feed_tornado(application: HTTPServerConnectionDelegate, data: bytes) -> None:
    """Let Tornado's connection read a stream."""
    ours, theirs = socket.socketpair()
    stream = IOStream(theirs, max_buffer_size=1 << 20)
    limits = HTTP1ConnectionParameters(
        max_header_size=LIMITS.max_header_bytes, max_body_size=LIMITS.max_body_bytes, chunk_size=1 << 16
    )
    connection = HTTP1ServerConnection(stream, limits, None)
    with ours:
        ours.setblocking(False)
        connection.start_serving(application)
        ours.send(data)
        ours.shutdown(socket.SHUT_WR)
        while await asyncio.get_running_loop().sock_recv(ours, 1 << 16):
            pass
    await connection.close()


EXTENSION = re.compile(rb"\n[0-9a-fA-F]+;|(^|\n)0+\r\n[^\r]")
"""Chunk extensions and trailers: Tornado knows none, RFC 9112 (section 7.1) wants them ignored."""
SPACES = re.compile(rb"(^|\n)[A-Z]+(  | [^ \r\n]+  )")
"""More than one in a request line: RFC 9112 (section 3) lets a server skip them."""
BLANKS = re.compile(rb"(^|\n)(\r*\n){2}")
"""Empty lines before a request: RFC 9112 (section 2.2) lets a server skip them; Tornado skips one."""


@settings(max_examples=400, deadline=None)
@given(data=mutated())
@example(b"GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
def test_what_tornado_refuses_is_refused(run: Runner, data: bytes) -> None:
    ours, theirs = Recorder(), Recorder()
    run(feed_ours(ours, [data], has_fast_path=False))
    logging.disable(logging.CRITICAL)
    try:
        run(feed_tornado(theirs, data))
    finally:
        logging.disable(logging.NOTSET)

    seen = ours.seen
    if b"HTTP/1.0" in data:
        seen = seen[:1]  # whether the connection goes on is another question there
    if seen != theirs.seen[: len(seen)]:
        known = (EXTENSION, SPACES, BLANKS)
        assert any(pattern.search(data) for pattern in known), (seen, theirs.seen)


def test_the_comparison_compares_something(run: Runner) -> None:
    theirs = Recorder()
    run(feed_tornado(theirs, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2))

    assert theirs.seen == [("GET", "/", b"")] * 2
