"""All processes below this one, also those whose parents are gone; Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILLING_S = 30.0
TAIL_BYTES = 8000


def end_with_parent(number: signal.Signals) -> None:
    """Ask the system for a signal to this process when the thread that started it ends."""
    _prctl(PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends, so that none can be lost."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")


def bury(but: int = 0) -> None:
    """Take leave of adopted processes that ended: until then their process ids look alive.

    Args:
        but: a child that something else waits for.
    """
    with suppress(ChildProcessError):
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (ended := os.waitid(os.P_ALL, 0, flags)) and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


def living() -> list[psutil.Process]:
    """Every process below this one that has not ended."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for_all(limit_s: float) -> list[psutil.Process]:
    """Wait until no process is left below this one; those that are after `limit_s`."""
    until_s = time.monotonic() + limit_s
    while left := living():
        if time.monotonic() > until_s:
            break
        bury()
        time.sleep(0.05)
    bury()
    return left


def kill_all() -> None:
    """Kill every process below this one, until none is left."""
    until_s = time.monotonic() + KILLING_S
    while (left := living()) and time.monotonic() < until_s:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        bury()
        time.sleep(0.02)
    bury()


def describe(process: psutil.Process) -> str:
    """Process id, command line, and the test that was running when it was started."""
    with suppress(psutil.Error):
        command = " ".join(process.cmdline())[:200]
        return f"process {process.pid} ({command}), started by {started_by(process) or 'no test'}"
    return f"process {process.pid}"


def started_by(process: psutil.Process) -> str:
    """The id of the test during which a process was started, "" if that is not known: pytest tells its children."""
    with suppress(psutil.Error, OSError):
        told: str = process.environ().get("PYTEST_CURRENT_TEST", "")
        return told.rpartition(" (")[0]
    return ""


def output_tail(pid: int) -> str:
    """The end of what a process wrote, if its standard output is a file: a server's log."""
    opened = Path(f"/proc/{pid}/fd/1")
    with suppress(OSError):
        if stat.S_ISREG(opened.stat().st_mode):
            with opened.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
    return ""
