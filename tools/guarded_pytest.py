"""One group of tests, to its end: a test that hangs costs that test only, and no process outlives the group.

Usage: python tools/guarded_pytest.py NAME JOURNAL [pytest arguments]

pytest-timeout ends a test that is over its limit when it can: it raises in the main thread, which does not help a test
that hangs in C code, for example in a TensorFlow call. So pytest runs in a process below this one and keeps a journal.
When a test takes twice its limit, or pytest's process dies, that test has failed: this program shows where every thread
stood and what the servers wrote, kills all of it, and starts pytest again for the tests that are left. A process that
is still there at the end is killed and fails the group. Every line begins with NAME; a test that takes long is told
again and again. The exit code is 0 if every test passed and nothing was left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import journal
import process_tree
import pytest

TOOLS = Path(__file__).parent
LOOK_S = 0.2
TELL_S = 20.0
"""How often is told what pytest waits for."""
GOING_S = 20.0
"""How long processes may take to end after pytest: a server notices that its kernel is gone, and closes TensorFlow."""
DUMP_S = 10.0
"""How long a process may take to write where its threads stand."""
INTERRUPTED_S = 30.0
"""How long pytest may take to end after Ctrl-C."""


class Guard:
    """Runs a group.

    Args:
        name: stands in front of every line.
        path: the journal.
        arguments: pytest's.
    """

    def __init__(self, name: str, path: Path, arguments: list[str]) -> None:
        self.name = name
        self.journal = journal.Journal(path)
        self.arguments = arguments

    def run(self) -> int:
        """Run pytest until every test had its turn; the exit code."""
        codes = [self._run_once()]
        while not self.journal.has_ended and self.journal.test:
            journal.write(self.journal.path, "finish", test=self.journal.test)
            self.say(f"==> pytest is started again for the tests after {self.journal.test}")
            code = self._run_once()
            codes.append(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)
        return next((code for code in codes if code), 0)

    def say(self, text: str) -> None:
        """Print lines with the name in front, each in one write: two groups share the terminal."""
        for line in text.split("\n"):
            os.write(sys.stdout.fileno(), f"{self.name:8} | {line}\n".encode(errors="replace"))

    def _fail(self, test: str, reason: str) -> None:
        self.say(f"==> FAILED {test}: {reason}")
        journal.write(self.journal.path, "report", test=test, result="failed", reason=reason)

    def _run_once(self) -> int:
        """One pytest process and all that it starts, to the end; its exit code, 1 for what pytest did not notice."""
        program, path = str(TOOLS / "journalled_pytest.py"), str(self.journal.path)
        command = [sys.executable, program, path, "--color=no", *self.arguments]
        self.journal.starts()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        )  # fmt: skip
        reader = threading.Thread(target=self._show, args=(process,), name="reader", daemon=True)
        reader.start()
        try:
            failure = self._watch(process)
            num_left = 0 if failure else self._fail_what_is_left()
        except KeyboardInterrupt:
            process.wait(INTERRUPTED_S)  # the terminal interrupts pytest too, which then tells what it has
            raise
        finally:
            process_tree.kill_all()
            reader.join()
        code = process.wait()
        if failure:
            self._fail(self.journal.test or f"({self.name}, {self.journal.doing})", failure)
        return code or int(bool(failure or num_left))

    def _show(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.say(line.rstrip("\n"))

    def _watch(self, process: subprocess.Popen[str]) -> str:
        """Wait for pytest's end and say what it waits for; why it did not end by itself, "" if it did."""
        num_told, since_s = 0, self.journal.since_s
        while process.poll() is None:
            time.sleep(LOOK_S)
            process_tree.bury(but=process.pid)
            self.journal.read()
            if self.journal.since_s != since_s:
                num_told, since_s = 0, self.journal.since_s
            took_s = time.monotonic() - since_s
            if took_s > self.journal.limit_s:
                self._end_hanging(process)
                return f"did not end within {took_s:.0f} s, twice its limit; pytest's process was killed"
            if took_s > (num_told + 1) * TELL_S:
                num_told += 1
                self.say(f"... {took_s:.0f} s: {self.journal.doing} (at most {self.journal.limit_s:.0f} s)")
        self.journal.read()
        return "" if self.journal.has_ended else f"pytest's process died: {_ending(process.wait())}"

    def _end_hanging(self, process: subprocess.Popen[str]) -> None:
        """Show where everything stands, and end pytest's process."""
        self.say(f"==> {self.journal.doing} hangs")
        for running in process_tree.living():
            if tail := process_tree.output_tail(running.pid):
                self.say(f"==> the end of what {process_tree.describe(running)} wrote:\n{tail}")
        # Pytest has faulthandler write the stack of every thread at this signal, also of one that is in C code.
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(DUMP_S)

    def _fail_what_is_left(self) -> int:
        """Fail the tests that left processes behind; how many there are."""
        left = process_tree.wait_for_all(GOING_S)
        for running in left:
            what = process_tree.describe(running)
            if tail := process_tree.output_tail(running.pid):
                self.say(f"==> the end of what {what} wrote:\n{tail}")
            self._fail(process_tree.started_by(running) or f"({self.name})", f"left behind and killed: {what}")
        return len(left)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(name: str, path: str, arguments: list[str]) -> int:
    """Run a group; its exit code."""
    process_tree.adopt_orphans()
    process_tree.end_with_parent(signal.SIGTERM)
    # Said anew: a shell starts background commands with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _stop)
    try:
        return Guard(name, Path(path), arguments).run()
    except KeyboardInterrupt:
        return int(pytest.ExitCode.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
