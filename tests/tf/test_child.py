"""The supervisor of the isolated server, at its edges."""

from __future__ import annotations

import os
import signal
import time

import psutil

from tfserve_nb.server.child import MAX_RESTARTS, ChildServer


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(is_so, limit_s: float = 60.0) -> None:
    until_s = time.perf_counter() + limit_s
    while not is_so():
        assert time.perf_counter() < until_s
        time.sleep(0.01)


def test_stopping_while_a_new_process_starts_leaves_none_behind() -> None:
    restarted: list[bool] = []
    child = ChildServer(None, None, "token", lambda: restarted.append(True))
    child.start()
    first = child.pid

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: child.pid != first)
    second = child.pid
    child.stop()

    assert gone(first)
    assert gone(second)
    assert restarted == []


def test_a_process_that_dies_again_and_again_is_given_up() -> None:
    child = ChildServer(None, None, "token", lambda: None)
    child.start()
    # The next ones cannot read it, and end by themselves.
    child._token_file.unlink()  # noqa: SLF001 - the file that each of them reads

    os.kill(child.pid, signal.SIGKILL)

    wait_until(lambda: f"died {MAX_RESTARTS} times" in child.problem())
    assert "auth_token_file" in child.problem()
    child.stop()
