"""Who is let in, what is too much, and who leaves early."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import threading

import pytest
from helpers.eventually import eventually
from helpers.raw_http import receive

from tfserve_nb.errors import InvalidOption
from tfserve_nb.server.settings import ServerSettings

ROWS = {"instances": [[1.0, 2.0]]}
BODY = json.dumps(ROWS).encode()
HEAD = b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer right-token\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic right-token"}, 401),
        ({"Authorization": "Bearer t\xf6ken"}, 401),
        ({"X-TFServe-Token": "wrong"}, 401),
        ({"Authorization": "bearer right-token"}, 200),
        ({"X-TFServe-Token": "right-token"}, 200),
        ({"X-TFServe-Token": "right-token", "Authorization": "token of-the-hub"}, 200),
        ({"X-TFServe-Token": "wrong", "Authorization": "Bearer right-token"}, 401),
    ],
)
def test_token_decides(common, headers: dict[str, str], status: int) -> None:
    answer = common.predict(ROWS, headers=headers, token=None)

    assert answer.status == status
    if status == 401:
        assert "oken" in answer.json["error"]
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "right-token" not in answer.text
        assert not any("right-token" in line for line in common.thread.log_ring.lines)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 200),  # a right token proves more than a name
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "hub.example", "Origin": "https://hub.example"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost", "Content-Type": "text/plain"}, 415),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 200),
    ],
)
def test_web_pages_of_others_are_kept_out(common, headers: dict[str, str], status: int) -> None:
    assert common.predict(ROWS, headers=headers).status == status


def test_without_a_token_only_loopback_names_are_answered(make_server) -> None:
    server = make_server(token=None)

    assert server.predict(ROWS, token=None).status == 200
    assert server.predict(ROWS, token=None, headers={"Host": "[::1]:80"}).status == 200
    assert server.predict(ROWS, token=None, headers={"Host": "evil.example:80"}).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "models.example.org"}, 200),
        ({"Host": "MODELS.example.org:8443", "Origin": "https://models.example.org:8443"}, 200),
        ({"Host": "models.example.org", "Origin": "https://evil.example"}, 403),
        ({"Host": "evil.models.example.org"}, 403),
    ],
)
def test_without_a_token_names_that_are_allowed_are_answered_too(
    make_server, headers: dict[str, str], status: int
) -> None:
    server = make_server(token=None, allowed_hosts=("models.example.org",))

    assert server.predict(ROWS, token=None, headers=headers).status == status


def test_body_that_is_too_large_is_refused_and_harms_nobody(make_server) -> None:
    server = make_server(max_body_bytes=1000)

    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 2000\r\n\r\n")
        assert receive(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert server.predict(ROWS).status == 200


def test_head_that_is_too_large_is_refused(make_server) -> None:
    server = make_server(max_header_bytes=2000)

    with server.connect() as connection:
        connection.sendall(HEAD + b"X: " + b"a" * 5000)
        assert b"200 OK" not in receive(connection)
    assert server.predict(ROWS).status == 200


def test_chunked_bodies_keep_alive_and_pipelining(common) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:]
    plain = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

    with common.connect() as connection:
        connection.sendall(chunked + b"\r\n0\r\n\r\n" + plain + plain)
        data = b""
        while data.count(b"predictions") < 3:
            data += receive(connection, b"predictions")
    assert data.count(b"200 OK") == 3


def test_slow_heads_and_bodies_are_cut_off(make_server) -> None:
    server = make_server(idle_timeout_s=0.2, body_timeout_s=0.2)

    with server.connect() as slow_head, server.connect() as slow_body:
        slow_head.sendall(HEAD)
        slow_body.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert receive(slow_head) == b""
        assert b"200 OK" not in receive(slow_body)


def test_more_busy_connections_than_allowed_are_closed(make_server) -> None:
    server = make_server(max_connections=2, workers=0)
    server.serving.gate.clear()

    with server.connect() as one, server.connect() as two:
        for connection in (one, two):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        eventually(lambda: len(server.serving.tickets) == 2)
        with server.connect() as three:
            assert three.recv(10) == b""
        server.serving.gate.set()
        for connection in (one, two):
            assert b"200 OK" in receive(connection, b"predictions")


def test_client_that_leaves_takes_its_request_out_of_the_queue(server) -> None:
    server.serving.gate.clear()
    connection = server.connect()
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    while not server.serving.tickets:
        threading.Event().wait(0.005)
    connection.close()

    assert server.serving.tickets[0].was_cancelled.wait(5)

    server.serving.gate.set()
    assert server.predict(ROWS).status == 200
    assert server.serving.num_held == 0


def test_deadline_answers_504(make_server) -> None:
    server = make_server(request_timeout_s=0.1)
    server.serving.gate.clear()

    answer = server.predict(ROWS)

    assert (answer.status, answer.json) == (504, {"error": "Timed out waiting for notification"})
    assert server.serving.tickets[0].was_cancelled.wait(5)


def test_malformed_requests_never_disturb_others(common) -> None:
    def good(number: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", common.thread.port, timeout=10)
        headers = {"Authorization": "Bearer right-token"}
        for step in range(20):
            connection.request(
                "POST", "/v1/models/double:predict", json.dumps({"instances": [[number, step]]}), headers
            )
            answer = json.loads(connection.getresponse().read())
            if answer != {"predictions": [[number * 2.0 + 2, step * 2.0 + 2]]}:
                return False
        connection.close()
        return True

    def bad(number: int) -> bool:
        bodies = (b"{", b"", b'{"instances": [["a"]]}', b"\xff" * 50, b'{"instances": [[1,2],[3]]}')
        for step in range(20):
            if number % 2:
                assert common.predict(bodies[step % len(bodies)]).status == 400
            else:
                with common.connect() as connection:
                    connection.sendall((HEAD, b"\0\1\2\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\nabc")[step % 3])
        return True

    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        results = [*pool.map(good, range(32)), *pool.map(bad, range(8))]
    assert all(results)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_addresses_of_other_machines_must_be_allowed(host: str) -> None:
    with pytest.raises(InvalidOption, match="can be reached from other machines"):
        ServerSettings(host=host)


@pytest.mark.parametrize("port", [-1, 65536, True, "80"])
def test_port_numbers_are_checked(port: int) -> None:
    with pytest.raises(InvalidOption, match="port="):
        ServerSettings(port=port)
