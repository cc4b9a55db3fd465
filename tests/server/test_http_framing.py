"""Where a request begins and ends (RFC 9112): whatever two servers could read differently is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.raw_http import RunningServer, chunked, request, running

from tfserve_nb.server.settings import ServerSettings

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BEHIND = request("/behind", method="GET")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running(ServerSettings(max_header_bytes=4000, max_body_bytes=10_000)) as one:
        yield one


def is_refused(server: RunningServer, data: bytes, status: int = 400) -> bool:
    """Whether a request is answered with an error and nothing after it is looked at."""
    with server.connect() as client:
        answer = client.ask(data + BEHIND)
        assert answer.status == status, answer
        assert answer.fields["connection"] == "close"
        return client.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: -3\r\n\r\nabc",
        HEAD + b"Content-Length: 1_0\r\n\r\nabc",
        HEAD + b"Content-Length: 0x3\r\n\r\nabc",
        HEAD + b"Content-Length: 3 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3.0\r\n\r\nabc",
        HEAD + b"Content-Length: \r\n\r\nabc",
        HEAD + b"Content-Length: \xb3\r\n\r\nabc",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        HEAD + b"Content-Length: 00000000000000000000000003\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_lengths_that_can_be_read_in_two_ways_are_refused(server, data: bytes) -> None:
    assert is_refused(server, data)


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "xchunked", '"chunked"', "\xa0chunked"])
def test_unknown_transfer_codings_are_refused(server, coding: str) -> None:
    assert is_refused(server, HEAD + f"Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n".encode("latin-1"), 501)


@pytest.mark.parametrize(
    "line",
    [
        b"X: a\rb",
        b"X: a\nY: b",
        b"X: a\n",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X : a",
        b"X\t: a",
        b" X: a",
        b": a",
        b"X",
        b"X\xff: a",
        b"X(y): a",
        b'"X": a',
        b"X\x00: a",
        *(b"X: a%cb" % code for code in (0, 1, 8, 11, 12, 14, 31, 127)),
    ],
)
def test_malformed_fields_are_refused(server, line: bytes) -> None:
    assert is_refused(server, HEAD + line + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/3\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/01.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\rHost: x\r\r", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\0" * 50, 400),
    ],
)
def test_what_is_not_a_request_of_http_1_is_refused(server, data: bytes, status: int) -> None:
    assert is_refused(server, data, status)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: me@x\r\n",
        "Host: a%zz\r\n",
        "Host: \xe9\r\n",
    ],
)
def test_every_request_names_one_host(server, lines: str) -> None:
    assert is_refused(server, b"GET / HTTP/1.1\r\n" + lines.encode("latin-1") + b"\r\n")


@pytest.mark.parametrize("host", ["x", "x:80", "[::1]:8501", "", "a%20b", "1.2.3.4"])
def test_hosts_that_are_names_or_addresses_are_taken(server, host: str) -> None:
    with server.connect() as client:
        assert client.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


@pytest.mark.parametrize(
    "chunks",
    [
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"0_3\r\nabc\r\n0\r\n\r\n",
        b"3g\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3;\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
        b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\rX",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        b"3\r\nabc\r\n0\r\n folded\r\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(server, chunks: bytes) -> None:
    assert is_refused(server, CHUNKED + chunks)


def test_chunk_extensions_and_trailers_are_dropped(server) -> None:
    chunks = b'3;a=b;c="d e"\r\nabc\r\n0002\r\nde\r\nA\r\n0123456789\r\n0;x\r\nHost: evil\r\nX: y\r\n\r\n'

    with server.connect() as client:
        assert client.ask(CHUNKED + chunks + BEHIND).body == b"POST /echo abcde0123456789"
        assert client.answer().body == b"GET /behind "


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"1;" + b"a" * 20_000,
        CHUNKED + b"1;aaaaaaa=" + b"b" * 20_000,
        CHUNKED + b"0" * 20_000,
        CHUNKED + b"0\r\nX: " + b"a" * 20_000,
        CHUNKED + b"0\r\n" + b"X: a\r\n" * 4000,
        CHUNKED + (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 500,
    ],
)
def test_framing_costs_little_beside_the_data(server, data: bytes) -> None:
    with server.connect() as client:
        assert client.ask(data).status == 400
        assert client.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 5000,
        request("/" + "a" * 5000),
        HEAD + b"X: " + b"a" * 5000,
        HEAD + b"X" * 5000,
        HEAD + b"X: a\r\n" * 1000,
        HEAD + b"X: a\r\n" * 1000 + b"\r\n",
        b"\r\n" * 3000,
    ],
)
def test_heads_are_bounded(server, data: bytes) -> None:
    with server.connect() as client:
        assert client.ask(data).status == 431
        assert client.is_closed()


def test_many_tiny_chunks_are_taken(server) -> None:
    with server.connect() as client:
        assert client.ask(chunked(*[b"ab"] * 5000)).body == b"POST /echo " + b"ab" * 5000


@pytest.mark.parametrize("path", ["/echo", "/short"])
def test_bodies_are_bounded(server, path: str) -> None:
    large = b"x" * 10_001

    assert is_refused(server, request(path, large), 413)
    assert is_refused(server, chunked(large[:5000], large[5000:], target=path), 413)
    with server.connect() as client:
        assert client.ask(request(path, large[1:])).status == 200
        assert client.ask(chunked(large[1:], target=path)).status == 200


@pytest.mark.parametrize("path", ["/echo", "/short"])
@pytest.mark.parametrize("with_body", [False, True])
def test_clients_that_wait_for_100_get_it_or_a_refusal(server, path: str, with_body) -> None:
    with server.connect() as client:
        client.send(request(path, b"abc", "Expect: 100-Continue")[: None if with_body else -3])
        assert client.answer().status == 100
        if not with_body:
            client.send(b"abc")
        assert client.answer().body == f"POST {path} abc".encode()
        assert client.ask(request(path, method="GET"), "GET").status == 200
    with server.connect() as client:
        client.send(request(path, b"", "Content-Length: 10001", "Expect: 100-continue"))
        assert client.answer().status == 413
        assert client.is_closed()


def test_the_first_http_does_not_know_100(server) -> None:
    with server.connect() as client:
        assert client.ask(request("/echo", b"abc", "Expect: 100-continue", version="1.0")).status == 200


UPGRADES = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "websocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
}


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("path", ["/echo", "/short"])
def test_upgrades_are_answered_as_if_nobody_had_asked(server, upgrade: str, path: str) -> None:
    lines = UPGRADES[upgrade]

    with server.connect() as client:
        client.send(request(path, b"", lines, method="GET") * 3)
        client.send(request(path, b"abc", lines) + BEHIND)
        client.send(request(path, b"", lines, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n" + BEHIND)
        bodies = [client.answer().body.decode() for _ in range(7)]
    assert bodies == [f"GET {path} "] * 3 + [f"POST {path} abc", "GET /behind "] * 2


def test_upgrade_does_not_hide_what_is_ambiguous(server) -> None:
    lines = UPGRADES["h2c"]

    assert is_refused(server, request("/echo", b"", lines, "Content-Length: 3", "Transfer-Encoding: chunked"))
    assert is_refused(server, request("/echo", b"", lines, "Host: y"))
    assert is_refused(server, request("/echo", b"", lines, "Content-Length: 10001"), 413)
    with server.connect() as client:
        answer = client.ask(request("/echo", b"", "Connection: close, upgrade\r\nUpgrade: h2c"))
        assert answer.fields["connection"] == "close"
        assert client.is_closed()
