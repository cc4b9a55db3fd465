"""What a connection does over its life: keep-alive, pipelining, slow clients, handlers of all kinds, the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tornado.test
import uvloop
from helpers.eventually import eventually
from helpers.raw_http import Client, RunningServer, chunked, request, running

from tfserve_nb.server.settings import ServerSettings

CERTIFICATE = Path(tornado.test.__file__).with_name("test.crt")
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
PATHS = ("/echo", "/short")
MEGABYTE = 1 << 20


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with running(new_loop=LOOPS[request.param]) as one:
        yield one


@pytest.fixture
def slow_server() -> Iterator[RunningServer]:
    with running(ServerSettings(idle_timeout_s=0.2, body_timeout_s=0.2, write_timeout_s=0.2)) as one:
        yield one


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    return context


def get(target: str = "/echo", *lines: str, version: str = "1.1") -> bytes:
    return request(target, b"", *lines, method="GET", version=version)


# ---------------------------------------------------------------- keep-alive


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("version", "line", "expected"),
    [
        ("1.1", "X: y", None),
        ("1.1", "Connection: keep-alive", None),
        ("1.1", "Connection: close", "close"),
        ("1.1", "Connection: Keep-Alive, Close", "close"),
        ("1.0", "Connection: keep-alive", "Keep-Alive"),
        ("1.0", "Connection: Keep-Alive, X-Mine", "Keep-Alive"),
    ],
)
def test_who_asks_for_it_keeps_the_connection(server, path: str, version: str, line: str, expected: str | None) -> None:
    with server.connect() as client:
        for _ in range(2):
            answer = client.ask(request(path, b"abc", line, version=version))
            assert (answer.status, answer.fields.get("connection")) == (200, expected)
            if expected == "close":
                assert client.is_closed()
                return


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("line", ["X: y", "Connection: close", "Connection: keep-alive, close"])
def test_http_1_0_ends_after_its_answer(server, path: str, line: str) -> None:
    with server.connect() as client:
        assert client.ask(request(path, b"abc", line, version="1.0")).body == f"POST {path} abc".encode()
        assert client.is_closed()


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_after_the_last_request(server, path: str) -> None:
    with server.connect() as client:
        client.send(get(path, "Connection: close") + get(path) + b"garbage")
        assert client.answer().status == 200
        assert client.is_closed()


def test_handler_can_ask_to_close(server) -> None:
    with server.connect() as client:
        assert client.ask(get("/bare/close")).fields["connection"] == "close"
        assert client.is_closed()


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_length_and_no_body(server, path: str) -> None:
    with server.connect() as client:
        answer = client.ask(request(path, method="HEAD"), "HEAD")
        assert int(answer.fields["content-length"]) == len(f"HEAD {path} ")
        assert client.ask(get(path)).body == f"GET {path} ".encode()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_none(server, status: int) -> None:
    with server.connect() as client:
        answer = client.ask(get(f"/bare/{status}"))
        assert (answer.status, answer.fields.get("transfer-encoding")) == (status, None)
        assert client.ask(get()).status == 200


# ---------------------------------------------------------------- pipelining


def test_pipelined_answers_keep_their_order(server) -> None:
    server.gate.clear()
    before = server.num_waiting
    with server.connect() as client:
        client.send(request("/gate", b"1") + get("/short/2") + get("/3") + chunked(b"4") + request("/gate", b"5"))
        eventually(lambda: server.num_waiting > before)
        server.gate.set()
        bodies = [client.answer().body for _ in range(5)]
    assert bodies == [b"gate 1", b"GET /short/2 ", b"GET /3 ", b"POST /echo 4", b"gate 5"]


@pytest.mark.parametrize("path", PATHS)
def test_thousands_of_pipelined_requests(server, path: str) -> None:
    with server.connect() as client:
        sender = threading.Thread(target=client.send, args=(b"".join(get(f"{path}/{i}") for i in range(5000)),))
        sender.start()
        for i in range(5000):
            assert client.answer().body == f"GET {path}/{i} ".encode()
        sender.join()


def test_requests_answered_at_once_behind_a_slow_one_do_not_nest(server) -> None:
    server.gate.clear()
    with server.connect() as client:
        client.send(request("/gate", b"") + get("/short") * 3000)
        server.gate.set()
        assert client.answer().body == b"gate "
        assert {client.answer().body for _ in range(3000)} == {b"GET /short "}


@pytest.mark.parametrize("broken", [b"garbage\r\n\r\n", request("/", b"", "Content-Length: 1_0")])
def test_good_requests_before_a_broken_one_are_answered(server, broken: bytes) -> None:
    server.gate.clear()
    before = server.num_waiting
    with server.connect() as client:
        client.send(request("/gate", b"1") + get("/short") + get("/echo") + broken)
        eventually(lambda: server.num_waiting > before)
        client.send(b"more")
        server.gate.set()
        assert [client.answer().status for _ in range(4)] == [200, 200, 200, 400]
        assert client.is_closed()


def test_body_that_breaks_behind_a_slow_request_is_refused_in_its_turn(server) -> None:
    server.gate.clear()
    before = server.num_waiting
    with server.connect() as client:
        client.send(request("/gate", b"1") + chunked(b"abc", tail=b"garbage"))
        eventually(lambda: server.num_waiting > before)
        server.gate.set()
        assert [client.answer().status for _ in range(2)] == [200, 400]
        assert client.is_closed()


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [100_000, 3 * MEGABYTE])
def test_large_bodies_and_the_request_after_them(server, path: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256)
    with server.connect() as client:
        plain, parts = request(path, body), chunked(body[:1000], body[1000:], target=path)
        for data in (plain, parts, plain):
            assert client.ask(data).body == f"POST {path} ".encode() + body


def test_slow_reader_of_a_body_slows_its_client_down(server) -> None:
    server.gate.clear()
    server.num_waiting = server.num_taken = 0
    body = b"x" * (64 * MEGABYTE)
    with server.connect() as client:
        client.socket.setblocking(False)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        data = memoryview(request("/slow", body))
        num_sent = client.socket.send(data)
        eventually(lambda: server.num_waiting == 1)
        num_sent += send_what_fits(client, data[num_sent:])
        assert num_sent < len(body) // 2
        assert server.num_taken == 0
        server.gate.set()
        client.socket.setblocking(True)
        client.send(data[num_sent:])
        assert client.answer().body == b"%d" % len(body)
        assert client.ask(get()).status == 200


def send_what_fits(client: Client, data: memoryview) -> int:
    """Send until nothing has fitted for a while."""
    num_sent = num_failed = 0
    pause = threading.Event()
    while num_failed < 20:
        try:
            num_sent += client.socket.send(data[num_sent : num_sent + (1 << 18)])
            num_failed = 0
        except BlockingIOError:
            num_failed += 1
            pause.wait(0.005)
    return num_sent


@pytest.mark.parametrize("query", ["early=1", "middle=1"])
def test_answer_before_the_body_has_arrived_ends_the_connection(server, query: str) -> None:
    with server.connect() as client:
        client.send(request(f"/slow?{query}", b"", "Content-Length: 50000000") + b"x" * 100_000)
        answer = client.answer()
        assert answer.body.decode() == query.partition("=")[0]
        assert answer.fields["connection"] == "close"
        for _ in range(20):
            client.send(b"x" * MEGABYTE)  # the answer is not lost, and who goes on sending is heard for a while
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_closed()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_tls", [False, True])
def test_refusal_reaches_a_client_that_goes_on_sending(loop: str, is_tls) -> None:
    context = server_context() if is_tls else None
    with running(ServerSettings(max_body_bytes=1000), context=context, new_loop=LOOPS[loop]) as server:
        for path in (*PATHS, "/slow"):
            for data in (request(path, b"", "Content-Length: 9000000"), chunked(target=path, tail=b"fffffff\r\n")):
                with connect(server, is_tls) as client:
                    client.send(data)
                    for _ in range(8):
                        client.send(b"x" * MEGABYTE)
                    assert client.answer().status == 413
                    if not is_tls:
                        client.socket.shutdown(socket.SHUT_WR)
                        assert client.is_closed()
        eventually(lambda: not server.num_connections)


def test_handler_can_allow_a_larger_body() -> None:
    with running(ServerSettings(max_body_bytes=1000)) as server, server.connect() as client:
        body = b"x" * 5000
        assert client.ask(request("/slow?most=5000", body)).body == b"5000"
        assert client.ask(chunked(body, target="/slow?most=5000")).body == b"5000"
        client.send(get("/echo") + request("/slow?most=5000", body))
        assert [client.answer().status, client.answer().body] == [200, b"5000"]
        assert client.ask(request("/slow?most=4999", body)).status == 413


# ---------------------------------------------------------------- handlers


def test_answer_that_is_shorter_than_announced_ends_the_connection(server, caplog) -> None:
    with server.connect() as client:
        client.send(get("/wrong/4") + get())
        head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 10" in head
    assert body == b"xxxx", "the next answer would be read as the rest of this one"


def test_answer_that_is_longer_than_announced_is_not_sent_and_ends_the_connection(server, caplog) -> None:
    with server.connect() as client:
        client.send(get("/wrong/20") + get())
        assert client.rest() == b""


def test_handler_that_raises(server, caplog) -> None:
    with server.connect() as client:
        answer = client.ask(get("/wrong/raise"))
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert client.ask(get()).status == 200


@pytest.mark.parametrize("is_behind", [False, True])
def test_short_way_that_raises(server, is_behind, caplog) -> None:
    server.gate.clear()
    with server.connect() as client:
        client.send(request("/gate", b"") * is_behind + get("/short/raise") + get())
        server.gate.set()
        statuses = [client.answer().status for _ in range(1 + is_behind)]
        assert statuses == [200] * is_behind + [500]
        assert client.is_closed()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("query", ["&".join(["a"] * 5000), "a=1&" * 3000])
def test_what_tornado_refuses_is_refused(server, query: str) -> None:
    with server.connect() as client:
        assert client.ask(get(f"/echo?{query}")).status == 400
        assert client.is_closed()


def test_streamed_answers(server) -> None:
    with server.connect() as client:
        answer = client.ask(get(f"/large/{MEGABYTE}"))
        assert (len(answer.body), answer.fields["transfer-encoding"]) == (MEGABYTE, "chunked")
        assert client.ask(get()).status == 200
        answer = client.ask(get(f"/large/{MEGABYTE}", version="1.0"))
        assert (len(answer.body), answer.fields.get("transfer-encoding")) == (MEGABYTE, None)


# ---------------------------------------------------------------- clients that are slow, and that leave


def test_slow_heads_bodies_and_idle_clients_are_cut_off(slow_server) -> None:
    slow_server.gate.clear()
    starts = {
        "nothing": b"",
        "head": b"GET / HTTP/1.1\r\nHost:",
        "body": request("/echo", b"", "Content-Length: 100") + b"x",
        "short body": request("/short", b"", "Content-Length: 100") + b"x",
        "chunks": chunked(b"x", tail=b"5\r\nab"),
        "streamed": request("/slow?early=", b"", "Content-Length: 100"),
        "idle": get("/bare/304"),
    }
    clients = {name: slow_server.connect() for name in starts}
    for name, data in starts.items():
        clients[name].send(data)
    for name, client in clients.items():
        with client:
            rest = client.rest()
            assert (b"304" in rest) if name == "idle" else rest == b"", name
    eventually(lambda: not slow_server.num_connections)


def test_head_that_comes_byte_by_byte_is_cut_off(slow_server) -> None:
    pause = threading.Event()
    with slow_server.connect() as client:
        for number in range(2000):
            try:
                client.send(b"GET /"[number : number + 1] or b"a")
            except ConnectionError:
                return
            pause.wait(0.005)
    pytest.fail("it could go on for ever")


@pytest.mark.parametrize("is_tls", [False, True])
def test_client_that_does_not_read_is_cut_off_and_costs_little(is_tls) -> None:
    context = server_context() if is_tls else None
    with running(ServerSettings(write_timeout_s=0.3), context=context) as server, connect(server, is_tls) as client:
        client.send(get(f"/large/{64 * MEGABYTE}"))
        eventually(lambda: server.num_written > 0)
        eventually(lambda: not server.num_connections)
        assert server.num_written < 32 * MEGABYTE


def test_requests_of_a_client_that_does_not_read_wait_outside() -> None:
    body = b"x" * 10_000
    with running(ServerSettings(write_timeout_s=5.0)) as server, server.connect() as client:
        client.socket.setblocking(False)
        data = memoryview(request("/short", body) * 10_000)
        num_sent = send_what_fits(client, data)
        assert num_sent < len(data) // 2
        client.socket.setblocking(True)
        num_whole = num_sent // len(request("/short", body))
        for _ in range(num_whole):
            assert client.answer().status == 200


def test_client_that_leaves_is_noticed(server) -> None:
    for path in ("/gate", "/slow"):
        server.gate.clear()
        server.has_left.clear()
        before = server.num_waiting
        with server.connect() as client:
            client.send(request(path, b"", "Content-Length: 3") + (b"abc" if path == "/gate" else b"a"))
            eventually(lambda: server.num_waiting > before)  # noqa: B023 - called at once
        assert server.has_left.wait(5)
        server.gate.set()


def test_client_that_leaves_in_the_middle_of_everything(server) -> None:
    starts = (request("/echo", b"abc")[:-1], get("/large/10000000"), b"GET", b"", get() * 100, chunked(b"a", tail=b""))
    for data in starts:
        with server.connect() as client:
            client.send(data)
    eventually(lambda: not server.num_connections)
    with server.connect() as client:
        assert client.ask(get()).status == 200


def test_beyond_the_limit_idle_connections_are_closed_and_busy_ones_stay() -> None:
    with running(ServerSettings(max_connections=1)) as server, server.connect() as one:
        assert one.ask(get()).status == 200
        with server.connect() as two:
            assert two.ask(get()).status == 200
            assert one.is_closed()
            server.gate.clear()
            two.send(request("/gate", b"1"))
            eventually(lambda: server.num_waiting == 1)
            with server.connect() as three:
                assert three.is_closed()
            server.gate.set()
            assert two.answer().status == 200


# ---------------------------------------------------------------- the end


def test_stop_closes_the_idle_and_answers_the_busy() -> None:
    with running() as server:
        server.gate.clear()
        with server.connect() as idle, server.connect() as busy, server.connect() as sending:
            assert idle.ask(get()).status == 200
            busy.send(request("/gate", b"1") + get("/never"))
            sending.send(request("/echo", b"abc")[:-1])
            eventually(lambda: server.num_waiting == 1 and server.num_connections == 3)
            eventually(lambda: server.run(num_busy(server)) == 2)
            server.loop.call_soon_threadsafe(server.server.stop)
            assert idle.is_closed()
            drained = asyncio.run_coroutine_threadsafe(server.server.drained(), server.loop)
            sending.send(b"c")
            assert sending.answer().fields["connection"] == "close"
            assert not drained.done()
            server.gate.set()
            answer = busy.answer()
            assert (answer.body, answer.fields["connection"]) == (b"gate 1", "close")
            assert busy.is_closed()
            drained.result(5)


async def num_busy(server: RunningServer) -> int:
    return sum(one.is_busy for one in server.server._connections)  # noqa: SLF001 - what no client can see


@pytest.mark.parametrize("path", PATHS)
def test_stop_waits_until_large_answers_are_read(path: str) -> None:
    body = b"x" * (8 * MEGABYTE)
    with running() as server, server.connect() as client:
        client.send(request(path, body))
        eventually(lambda: server.run(num_unsent(server)) == 1)
        server.loop.call_soon_threadsafe(server.server.stop)
        drained = asyncio.run_coroutine_threadsafe(server.server.drained(), server.loop)
        assert len(client.answer().body) == len(body) + len(f"POST {path} ")
        drained.result(5)


async def num_unsent(server: RunningServer) -> int:
    return sum(one.has_unsent and not one.is_busy for one in server.server._connections)  # noqa: SLF001 - as above


# ---------------------------------------------------------------- TLS


def connect(server: RunningServer, is_tls: bool = True) -> Client:
    client = server.connect()
    if is_tls:
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        context.check_hostname = False
        client.socket = context.wrap_socket(client.socket)
    return client


@pytest.mark.parametrize("loop", LOOPS)
def test_tls(loop: str) -> None:
    body = b"x" * MEGABYTE
    limits = ServerSettings(max_body_bytes=2 * MEGABYTE)
    with running(limits, context=server_context(), new_loop=LOOPS[loop]) as server:
        with connect(server) as client:
            for path in PATHS:
                assert client.ask(request(path, body)).body == f"POST {path} ".encode() + body
            client.send(get("/short") * 100 + get("/echo", "Connection: close"))
            assert [client.answer().status for _ in range(101)] == [200] * 101
            assert client.is_closed()
        with server.connect() as plain:
            plain.send(get())
            assert b"200 OK" not in plain.rest()
        with connect(server) as client:
            client.send(request("/short", b"", "Content-Length: 3000000"))
            client.send(body[:100_000])
            assert client.answer().status == 413
