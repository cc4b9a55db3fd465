"""The supervisor of the isolated server, at its edges."""

from __future__ import annotations

import os
import signal
import socket

import psutil
import pytest
from helpers.eventually import eventually

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


def test_a_process_that_dies_again_and_again_is_given_up_until_it_is_asked_for() -> None:
    child = ChildServer(None, None, "token", lambda: None)
    child.start()
    assert not child.start_anew(), "it runs"
    # The next ones cannot read it, and end by themselves.
    child._token_file.unlink()  # noqa: SLF001 - the file that each of them reads

    os.kill(child.pid, signal.SIGKILL)

    eventually(lambda: f"died {MAX_RESTARTS} times" in child.problem())
    assert "auth_token_file" in child.problem()
    assert "%serving --resume" in child.problem()

    child._token_file.write_text("token")  # noqa: SLF001
    assert child.start_anew()
    assert not child.problem()
    assert not gone(child.pid)
    child.stop()
