"""The supervisor of the isolated server, at its edges."""

from __future__ import annotations

import http.client
import os
import signal
import socket

import psutil
import pytest
from helpers.eventually import PATIENCE_S, eventually

from tfserve_nb.errors import ServerFailed
from tfserve_nb.server.child import MAX_RESTARTS, ChildServer


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_ports_are_kept_from_the_first_moment_to_the_last() -> None:
    child = ChildServer(None, 0, "token", lambda: None)  # no process runs, as between two of them

    for port in (child.port, child.grpc_port):
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
    assert child.port != child.grpc_port
    child.stop()
    for port in (child.port, child.grpc_port):
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_process_that_ends_or_hangs_is_replaced_and_stopping_meanwhile_leaves_none_behind(
    how: signal.Signals,
) -> None:
    restarted: list[bool] = []
    child = ChildServer(None, None, "token", lambda: restarted.append(True))
    child.start()
    first = child.pid

    os.kill(first, how)
    eventually(lambda: child.pid != first)
    second = child.pid
    child.stop()

    assert gone(first)
    assert gone(second)
    assert restarted == []


def answer(port: int) -> int | None:
    """The status with which a server answers, or None when it closes or refuses the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def assert_taken(child: ChildServer) -> None:
    """No program can take the port, also one that sets SO_REUSEADDR, as `create_server` does."""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", child.port))
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", child.port))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_dies_again_and_again_is_given_up_until_it_is_asked_for(workers: int) -> None:
    child = ChildServer(None, None, "token", lambda: None, workers=workers)
    child.start()
    assert not child.start_anew(), "it runs"
    # The next ones cannot read it, and end by themselves.
    child._token_file.unlink()  # noqa: SLF001 - the file that each of them reads

    os.kill(child.pid, signal.SIGKILL)

    eventually(lambda: f"died {MAX_RESTARTS} times" in child.problem())
    assert "auth_token_file" in child.problem()
    assert "%serving --resume" in child.problem()
    assert "\n" not in child.problem(), "it stands in errors and tables"
    assert answer(child.port) is None, "clients are not left waiting"
    assert_taken(child)
    with pytest.raises(ServerFailed, match="auth_token_file"):
        child.start_anew()
    assert answer(child.port) is None
    assert_taken(child)

    child._token_file.write_text("token")  # noqa: SLF001
    assert child.start_anew()
    assert not child.problem()
    assert not gone(child.pid)
    assert answer(child.port) == 200, "the same port leads to the new process"
    child.stop()
    assert answer(child.port) is None
