"""What the runner of the tests promises when a test hangs, dies, or leaves a process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
INI = """
[pytest]
addopts = -p no:cacheprovider
timeout = 120
timeout_method = signal
"""
HANGS_IN_C = """
import ctypes, pytest

@pytest.mark.timeout(2)
def test_hangs_in_c():
    print("last words")
    # A mutex that is locked twice: no signal ends this wait, so the alarm's handler never runs.
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""
FINE = """
def test_before():
    pass
"""
FINE_AFTER = """
def test_after():
    pass
"""

ALONE = """
import psutil

def test_alone():
    _group, run, *_ = psutil.Process().parents()
    assert len(run.children()) == 1
"""


@dataclass
class Ran:
    """What a group did."""

    code: int
    text: str
    events: list[dict[str, Any]]

    @property
    def results(self) -> list[tuple[str, str]]:
        """(name of the test, result) in order."""
        return [(e["test"].rpartition("::")[2], e["result"]) for e in self.events if e["event"] == "report"]

    def reason(self, name: str) -> str:
        """Why a test failed."""
        (reason,) = [e["reason"] for e in self.events if e["event"] == "report" and e["test"].endswith(f"::{name}")]
        return str(reason)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """Run a group over a project of test modules, in the order given."""

    def run_group(*modules: str) -> Ran:
        journal = project(tmp_path, *modules)
        done = subprocess.run(
            command(journal), cwd=tmp_path, capture_output=True, text=True, check=False, env=environment()
        )
        events = [json.loads(line) for line in journal.read_text().splitlines()]
        return Ran(done.returncode, done.stdout + done.stderr, events)

    return run_group


def project(folder: Path, *modules: str) -> Path:
    """Write the test modules; the path of the journal."""
    (folder / "pytest.ini").write_text(INI)
    for number, text in enumerate(modules):
        (folder / f"test_{number}.py").write_text(text)
    return folder / "journal.jsonl"


def command(journal: Path) -> list[str]:
    """A guard that tells and waits in shorter steps than the real one."""
    program = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import guarded_pytest as guard; "
        f"guard.TELL_S, guard.GOING_S = 0.5, 2.0; sys.exit(guard.main('group', {str(journal)!r}, []))"
    )
    return [sys.executable, "-c", program]


def environment() -> dict[str, str]:
    """Without what the pytest around this one tells its children."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_group_that_passes(run: Callable[..., Ran]) -> None:
    ran = run(FINE, FINE_AFTER)
    assert ran.code == 0, ran.text
    assert ran.results == [("test_before", "passed"), ("test_after", "passed")]
    assert [event["event"] for event in ran.events].count("begin") == 1


def test_failures_errors_and_skips_are_noted_with_their_reasons(run: Callable[..., Ran]) -> None:
    ran = run(
        """
import pytest

def test_fails():
    assert 1 == 2

def test_has_no_fixture(missing):
    pass

@pytest.mark.skip(reason="no GPU")
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    assert False
"""
    )
    assert ran.code == 1
    assert dict(ran.results) == {
        "test_fails": "failed", "test_has_no_fixture": "error", "test_skipped": "skipped", "test_expected": "xfailed",
    }  # fmt: skip
    assert "assert 1 == 2" in ran.reason("test_fails")
    assert "no GPU" in ran.reason("test_skipped")


def test_a_module_that_cannot_be_imported_fails_the_group(run: Callable[..., Ran]) -> None:
    ran = run(FINE, "import there_is_no_such_module")
    assert ran.code != 0
    assert ("test_1.py", "error") in ran.results


def test_a_test_that_hangs_in_python_fails_alone_and_in_the_same_process(run: Callable[..., Ran]) -> None:
    hangs = """
import threading, pytest

@pytest.mark.timeout(3)
def test_hangs():
    threading.Event().wait()
"""
    ran = run(FINE, hangs, FINE_AFTER)
    assert ran.code == 1
    assert ran.results == [("test_before", "passed"), ("test_hangs", "failed"), ("test_after", "passed")]
    assert "Timeout" in ran.reason("test_hangs")
    assert [event["event"] for event in ran.events].count("begin") == 1


def test_a_test_that_hangs_in_c_fails_alone_and_the_rest_goes_on_in_a_new_process(run: Callable[..., Ran]) -> None:
    ran = run(FINE, HANGS_IN_C, FINE_AFTER)
    assert ran.code != 0
    assert ran.results == [("test_before", "passed"), ("test_hangs_in_c", "failed"), ("test_after", "passed")]
    assert "twice its limit" in ran.reason("test_hangs_in_c")
    assert "in test_hangs_in_c" in ran.text, "no stack of the main thread"
    assert "last words" in ran.text
    assert [event["event"] for event in ran.events].count("begin") == 2


def test_a_test_that_hangs_after_every_other_one(run: Callable[..., Ran]) -> None:
    ran = run(FINE, HANGS_IN_C)
    assert ran.code != 0
    assert ran.results == [("test_before", "passed"), ("test_hangs_in_c", "failed")]


@pytest.mark.parametrize(
    ("dies", "how"), [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV")]
)
def test_a_test_that_ends_its_process_fails_alone(run: Callable[..., Ran], dies: str, how: str) -> None:
    ran = run(FINE, f"import os, signal\n\ndef test_dies():\n    {dies}\n", FINE_AFTER)
    assert ran.code != 0
    assert ran.results == [("test_before", "passed"), ("test_dies", "failed"), ("test_after", "passed")]
    assert how in ran.reason("test_dies")


def test_a_hanging_tests_processes_end_with_it_and_their_logs_are_shown(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    server = """
import subprocess, sys

def test_starts_a_server():
    code = "print('server: waiting for a client', flush=True); import time; time.sleep(1000)"
    with open("server.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-c", code], stdout=log, start_new_session=True, env={})
    open("pid", "w").write(str(server.pid))
    globals()["kept"] = server  # a process object that is thrown away warns
"""
    ran = run(server, HANGS_IN_C)
    assert ran.code != 0
    assert "server: waiting for a client" in ran.text
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_process_left_behind_is_killed_and_fails_the_test_that_started_it(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    leaves = """
import os, subprocess

def test_leaves():
    # An orphan in a session of its own, whose parent shell is gone.
    subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $! >pid"], check=True)
"""
    ran = run(leaves, FINE_AFTER)
    assert ran.code != 0
    assert ran.results == [("test_leaves", "passed"), ("test_after", "passed"), ("test_leaves", "failed")]
    assert "sleep 1000" in ran.text
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_what_it_waits_for_is_printed(tmp_path: Path) -> None:
    slow = """
import pathlib, time

def test_slow():
    while not pathlib.Path("go on").exists():
        time.sleep(0.01)
"""
    journal = project(tmp_path, slow)
    with subprocess.Popen(
        command(journal), cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "test_0.py::test_slow" in line)
        (tmp_path / "go on").touch()
        process.stdout.read()
    assert said.startswith("group    | ... ")
    assert "(at most 240 s)" in said
    assert process.returncode == 0


WAITS = """
import os, pathlib, subprocess, time

def test_waits():
    child = subprocess.Popen(["sleep", "1000"])
    pathlib.Path("pids.new").write_text(f"{os.getpid()} {child.pid}")
    os.rename("pids.new", "pids")
    time.sleep(1000)
"""


def pids_of_waiting(folder: Path, process: subprocess.Popen[Any]) -> list[int]:
    """The process ids of pytest and of what its test started, once it waits."""
    while not (folder / "pids").exists():
        assert process.poll() is None
        time.sleep(0.02)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_group_that_is_ended(tmp_path: Path, number: int) -> None:
    # Started as in the background of a script, where SIGINT is ignored at first.
    line = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command(project(tmp_path, WAITS))]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, env=environment()) as process:
        pids = pids_of_waiting(tmp_path, process)
        if number == signal.SIGINT:
            os.kill(pids[0], number)  # as a terminal does: to every process in its foreground
        process.send_signal(number)
        process.wait()
    assert not any(map(is_running, pids))


def all_rings(folder: Path, *modules: str) -> list[str]:
    """The command line of `run_tests.py` with a group for each module; the last one needs the machine for itself."""
    project(folder, *modules)
    groups = {f"group{number}": (f"test_{number}.py",) for number in range(len(modules))}
    takes = {f"group{len(modules) - 1}": 3}
    program = (
        f"import pathlib, sys; sys.path.insert(0, {str(TOOLS)!r}); import run_tests; run_tests.GROUPS = {groups!r}; "
        f"run_tests.TAKES = {takes!r}; run_tests.FOLDER = pathlib.Path({str(folder)!r}); sys.exit(run_tests.main([]))"
    )
    return [sys.executable, "-c", program]


def test_the_end_of_a_run_says_what_failed_and_what_was_skipped(tmp_path: Path) -> None:
    mixed = """
import pytest

def test_passes():
    pass

def test_fails():
    assert 1 == 2

@pytest.mark.skip(reason="no GPU")
def test_skipped():
    pass
"""
    done = subprocess.run(
        all_rings(tmp_path, mixed, FINE, ALONE), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 1
    closing = done.stdout.partition(" all rings ")[2]
    assert "group0   FAILED test_0.py::test_fails - assert 1 == 2" in closing
    assert "[1] test_0.py:10: Skipped: no GPU" in closing
    assert "group0   1 passed, 1 failed, 1 skipped (exit code 1, " in closing
    assert "group1   1 passed, 0 failed, 0 skipped (exit code 0, " in closing
    assert "group2   1 passed, 0 failed, 0 skipped (exit code 0, " in closing  # when both of the others had ended
    assert "s: 3 passed, 1 failed, 1 skipped" in closing


def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        all_rings(tmp_path, WAITS), cwd=tmp_path, stdout=subprocess.DEVNULL, env=environment()
    ) as process:
        pids = pids_of_waiting(tmp_path, process)
        process.kill()
        process.wait()
    while any(map(is_running, pids)):
        time.sleep(0.02)
