"""What a server does when it stops, and what is as before when it has; no other server runs in this process."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import threading

import pytest
from helpers.raw_http import receive

from tfserve_nb.errors import PortInUse
from tfserve_nb.server.settings import ServerSettings
from tfserve_nb.server.thread import ServerThread

ROWS = {"instances": [[1.0, 2.0]]}
BODY = json.dumps(ROWS).encode()
HEAD = b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer right-token\r\n"


def test_stop_is_quick_with_idle_slow_and_waiting_connections(make_server) -> None:
    server = make_server()
    server.serving.gate.clear()
    connections = [server.connect() for _ in range(4)]
    connections[1].sendall(HEAD)
    connections[2].sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    connections[3].sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    while not server.serving.tickets:
        threading.Event().wait(0.005)

    server.thread.stop()

    assert not any(thread.name == "tfserve-server" for thread in threading.enumerate())
    for connection in connections:
        connection.settimeout(5)
        assert b"200 OK" not in receive(connection)
        connection.close()
    server.thread.stop()


def test_running_request_is_answered_while_the_server_stops(make_server) -> None:
    server = make_server()
    server.serving.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.predict, ROWS)
        while not server.serving.tickets:
            threading.Event().wait(0.005)
        stopper = threading.Thread(target=server.thread.stop)
        stopper.start()
        server.serving.gate.set()
        stopper.join(5)
        assert answer.result(5).status == 200


def test_port_in_use_is_named(make_server, serving) -> None:
    taken = make_server().thread.port

    with pytest.raises(PortInUse, match=f"port {taken} on 127.0.0.1 is taken"):
        ServerThread(serving, ServerSettings(port=taken)).start()


def test_port_is_free_again_after_stop_and_two_servers_get_along(make_server) -> None:
    first = make_server()
    port = first.thread.port
    second = make_server()
    assert second.thread.port != port

    first.thread.stop()
    third = make_server(port=port)

    assert third.predict(ROWS).status == 200
    assert second.predict(ROWS).status == 200


def test_switch_interval_is_short_while_a_server_runs(make_server) -> None:
    before = sys.getswitchinterval()

    first, second = make_server(), make_server()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    first.thread.stop()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    second.thread.stop()

    assert sys.getswitchinterval() == pytest.approx(before)
