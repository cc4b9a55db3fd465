"""Refused at the head, bounded together: what clients without the token, slow ones and many at once can take."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.eventually import eventually
from helpers.raw_http import receive

from tfserve_nb.server.budget import ByteBudget
from tfserve_nb.server.http.message import Message, Refused, RequestHead
from tfserve_nb.server.rest import tolerant_json
from tfserve_nb.server.rest.json_numbers import NumbersReader

ROWS = {"instances": [[1.0, 2.0]]}
BODY = json.dumps(ROWS).encode()
GOOD = b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer right-token\r\n"
WHOLE = GOOD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

DOORS = [
    "POST /v1/models/double:predict",
    "PUT /v1/models/double",
    "POST /v2/models/double/infer",
    "POST /tfserve/v1/models/double/promote",
    "GET /tfserve/v1/models",
    "OPTIONS /tfserve/v1/models",
    "POST /monitoring/prometheus/metrics",
    "POST /anything/else",
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("token", [b"", b"Authorization: Bearer wrong\r\n", b"X-TFServe-Token: wrong\r\n"])
def test_without_the_token_no_body_is_waited_for(common, door: str, token: bytes) -> None:
    head = f"{door} HTTP/1.1\r\nHost: localhost\r\n".encode() + token
    bodies = (
        b"Content-Length: 90000000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{1234\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"\r\n",
    )
    for body in bodies:
        with common.connect() as connection:
            connection.sendall(head + body)
            answer = receive(connection)
            assert answer.startswith(b"HTTP/1.1 401 "), (body, answer)
            assert b"100 Continue" not in answer
    assert common.predict(ROWS).status == 200


def test_a_refused_request_with_a_small_body_leaves_the_connection_to_others(common) -> None:
    refused = WHOLE.replace(b"right", b"wrong")

    with common.connect() as connection:
        connection.sendall(refused + WHOLE + refused + WHOLE)
        data = b""
        while data.count(b"predictions") < 2:
            data += receive(connection, b"predictions")
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"401", b"200", b"401", b"200"]


def test_nothing_after_a_large_refused_body_is_carried_out(server) -> None:
    large = GOOD.replace(b"right", b"wrong") + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000

    with server.connect() as connection:
        connection.sendall(large + WHOLE)
        assert b"401" in receive(connection, b"}")
        assert receive(connection, b"200 OK") == b""
    assert server.serving.tickets == []


def test_what_needs_no_token_takes_small_bodies_only(common) -> None:
    for door in ("GET /healthz", "POST /healthz", "GET /v2/health/live", "OPTIONS /v1/models/double:predict"):
        with common.connect() as connection:
            connection.sendall(f"{door} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n".encode())
            assert receive(connection, b"\r\n").startswith(b"HTTP/1.1 413 "), door
    assert common.call("GET", "/healthz", token=None).status == 200


@pytest.mark.parametrize("workers", [0])  # those of workers count in their own processes
def test_large_unfinished_bodies_are_bounded_together_and_small_ones_go_on(make_server) -> None:
    server = make_server(max_bytes_in_flight=1_000_000, max_body_bytes=800_000)
    held = [server.connect() for _ in range(2)]
    for connection in held:
        connection.sendall(GOOD + b"Content-Length: 500000\r\n\r\n" + b" " * 450_000)

    def third() -> bytes:
        with server.connect() as connection:
            connection.sendall(GOOD + b"Content-Length: 400000\r\n\r\n" + b" " * 399_999)
            return receive(connection)

    eventually(lambda: server.thread.budget.num_held == 900_000)
    answer = third()
    assert b" 503 " in answer
    assert b"Retry-After: 1\r\n" in answer
    assert b"as many bytes of unfinished requests as it may (1000000)" in answer
    assert server.predict(ROWS).status == 200

    for connection in held:
        connection.close()
    padded = BODY + b" " * 700_000
    eventually(lambda: server.predict(padded).status == 200)
    for _ in range(5):  # what was answered is given back
        assert server.predict(padded).status == 200
        assert server.predict(padded, token="wrong").status == 401


def test_idle_connections_make_room_for_new_ones(make_server) -> None:
    server = make_server(max_connections=5)
    idle = [server.connect() for _ in range(12)]
    idle[0].sendall(GOOD)  # a head that never ends is idle too

    for _ in range(3):
        assert server.predict(ROWS).status == 200
    for connection in idle:
        connection.close()


SLOW = b"Content-Length: 100\r\n\r\n{"


@pytest.mark.parametrize("workers", [0])  # those of workers have tables of their own
@pytest.mark.parametrize(
    ("token", "head"),
    [
        ("right-token", b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\n"),
        ("right-token", GOOD.replace(b"right", b"wrong")),
        ("right-token", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n"),
        ("right-token", b"OPTIONS /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\n"),
        ("right-token", b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n"),
        (None, b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\n"),
    ],
)
def test_bodies_that_never_end_do_not_keep_others_out(make_server, token: str | None, head: bytes) -> None:
    server = make_server(max_connections=5, token=token)
    held = [server.connect() for _ in range(12)]
    for connection in held:
        with contextlib.suppress(OSError):
            connection.sendall(head + SLOW)

    for _ in range(3):
        assert server.predict(ROWS).status == 200
    for connection in held:
        connection.close()


@pytest.mark.parametrize("workers", [0])
def test_a_body_that_shows_the_token_is_not_cut_for_others(make_server) -> None:
    server = make_server(max_connections=2)
    start, end = WHOLE[:-5], WHOLE[-5:]
    with server.connect() as one, server.connect() as two:
        for connection in (one, two):
            connection.sendall(start)
        for _ in range(4):
            with server.connect() as other, contextlib.suppress(OSError):
                other.sendall(GOOD.replace(b"right", b"wrong") + SLOW)
                assert receive(other) == b""
        for connection in (one, two):
            connection.sendall(end)
            assert b"200 OK" in receive(connection, b"predictions")


NUM_ROWS = 110_000  # from a MiB on a body is large
LARGE = json.dumps({"instances": [[1.0, 2.0]] * NUM_ROWS}).encode()
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [NUM_ROWS, 2], "data": [1.0, 2.0] * NUM_ROWS}]}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_large_bodies_of_all_kinds_are_answered_as_small_ones(server, encoding: str) -> None:
    def ask(body: bytes, path: str = "/v1/models/double:predict") -> Any:
        sent = gzip.compress(body, 1) if encoding == "gzip" else body
        return server.predict(sent, path, headers={"Content-Encoding": encoding})

    assert ask(LARGE).json["predictions"] == [[4.0, 6.0]] * NUM_ROWS
    assert ask(json.dumps(V2).encode(), "/v2/models/double/infer").json["outputs"][0]["data"] == [4.0, 6.0] * NUM_ROWS
    ragged, broken = ask(LARGE[:-2] + b", [1.0]]}"), ask(LARGE[:-2])
    assert (ragged.status, broken.status) == (400, 400)
    assert broken.json["error"].startswith("JSON Parse error")
    assert ask(LARGE, "/v1/models/nothing:predict").status == 404
    assert ask(LARGE, "/v1/models/double:classify").status == 400
    assert ask(json.dumps({"inputs": []}).encode() + b" " * 2_000_000, "/v2/models/double/infer").status == 400
    eventually(lambda: server.serving.num_held == 0)


@pytest.mark.parametrize("workers", [0])
def test_others_are_answered_while_a_large_body_is_decoded(server, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, has_begun = threading.Event(), threading.Event()
    read = NumbersReader.read

    def slow(self: NumbersReader, body: bytes, signatures: Any) -> Any:
        if len(body) > 1_000_000:
            has_begun.set()
            assert gate.wait(40)
        return read(self, body, signatures)

    monkeypatch.setattr(NumbersReader, "read", slow)
    whole = GOOD + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE
    with server.connect() as leaves, server.connect() as stays:
        leaves.sendall(whole)
        assert has_begun.wait(40)
        stays.sendall(whole)
        assert server.predict(ROWS).json == {"predictions": [[4.0, 6.0]]}
        leaves.close()
        eventually(lambda: server.serving.num_held <= 1)
        gate.set()
        assert b"200 OK" in receive(stays, b"]]}")
    eventually(lambda: server.serving.num_held == 0)


@pytest.mark.parametrize("workers", [0])  # a patch does not reach those of workers
@pytest.mark.parametrize("action", ["predict", "classify"])
def test_others_are_answered_while_the_slow_parser_reads(server, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, has_begun, parse = threading.Event(), threading.Event(), tolerant_json.parse

    def slow(text: bytes) -> Any:
        has_begun.set()
        assert gate.wait(40)
        return parse(text)

    monkeypatch.setattr(tolerant_json, "parse", slow)
    body = b'{"instances": ' + b"[" * 50_000
    with server.connect() as connection:
        head = GOOD.replace(b":predict", b":" + action.encode())
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert has_begun.wait(40)
        assert server.predict(ROWS).json == {"predictions": [[4.0, 6.0]]}
        gate.set()
        assert b"JSON Parse error: Invalid value." in receive(connection)


HOLDING = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from helpers.fake_serving import FakeServing
from tfserve_nb.server.settings import ServerSettings
from tfserve_nb.server.thread import ServerThread
thread = ServerThread(FakeServing(), ServerSettings(token="right-token"))
thread.start()
print(thread.port, flush=True)
sys.stdin.readline()
files = [open("/dev/null") for _ in range(80)]
print("opened", resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
sys.stdin.readline()
"""


def test_clients_leave_files_to_the_notebook_whose_limit_stays() -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        port = int(process.stdout.readline())
        held = [socket.create_connection(("127.0.0.1", port), timeout=40) for _ in range(400)]
        with socket.create_connection(("127.0.0.1", port), timeout=40) as late:
            late.sendall(WHOLE)
            assert b"200 OK" in receive(late, b"predictions")
        process.stdin.write("\n")
        assert process.stdout.readline() == "opened (256, 256)\n"
        process.stdin.write("\n")
        for connection in held:
            connection.close()


def test_what_is_answered_or_given_up_holds_nothing_of_its_body() -> None:
    budget = ByteBudget(1_000_000)
    for end in (Message.answered, Message.abandon):
        head = RequestHead("POST", "/", True, [(b"host", b"x")], {b"host": b"x"}, True)
        message = Message(head, 0.0, 10_000_000, budget)
        message.receive(b"x" * 60_000)
        assert budget.num_held == 0
        message.receive(b"x" * 60_000)
        assert budget.num_held == 120_000
        with pytest.raises(Refused, match="as many bytes of unfinished requests as it may"):
            message.receive(b"x" * 900_000)

        end(message)
        message.receive(b"x" * 100_000)

        assert budget.num_held == 0
        assert message._chunks == []  # noqa: SLF001 - what it holds
