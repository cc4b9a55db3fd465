"""Run every ring of the tests, three pytest processes at a time; at the end, say what failed and what was skipped.

Usage: python tools/run_tests.py [pytest arguments]

The rings run in groups, each a process of its own. Three run side by side, for two cores: tests wait for servers,
kernels and browsers a good part of their time. When one ends, the next begins, and the longest come first, so that no
core is idle at the end. The browser ring has one other beside it: the browser, its server and a kernel that is kept
busy need most of both cores. The ray ring runs alone: its cluster does not start on a busy machine. Each group is
watched by guarded_pytest.py: a test that hangs fails alone, and no process outlives the group. The exit code is 0 only
if every group ended with 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import process_tree
from journal import Journal

FOLDER = Path(__file__).parents[1]
GUARD = Path(__file__).with_name("guarded_pytest.py")
LOOK_S = 0.2
STOPPING_S = 60.0

PLACES = 3

GROUPS = {
    "model": ("tests/tf",),
    "server": ("tests/server", "tests/serve"),
    "notebook": ("tests/notebooks",),
    "kernel": ("tests/kernel", "tests/bench", "tests/experiment"),
    "shell": ("tests/shell", "tests/tools"),
    "unit": ("--doctest-modules", "tfserve_nb", "tests/unit"),
    "browser": ("tests/browser",),
    "ray": ("tests/ray",),
}
"""Group -> pytest arguments, in the order in which they begin."""

TAKES = {"browser": 2, "ray": PLACES}
"""Group -> how many of the `PLACES` it takes; all others take one."""


@dataclass(slots=True)
class Group:
    """A group that runs or ran."""

    name: str
    journal: Journal
    process: subprocess.Popen[bytes]
    started_s: float
    took_s: float = 0.0

    def has_ended(self) -> bool:
        """Whether it ended; then its journal is read."""
        if self.process.poll() is None:
            return False
        self.took_s = time.monotonic() - self.started_s
        self.journal.read()
        return True

    @property
    def summary(self) -> str:
        """How many tests passed, failed and were skipped."""
        journal = self.journal
        counts = f"{journal.count('passed', 'xfailed')} passed, {journal.count('failed', 'error')} failed"
        return f"{counts}, {journal.count('skipped')} skipped"


def start(name: str, arguments: tuple[str, ...], folder: Path) -> Group:
    """Start a group."""
    path = folder / f"{name}.jsonl"
    command = [sys.executable, str(GUARD), name, str(path), *arguments]
    return Group(name, Journal(path), subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.DEVNULL), time.monotonic())


def run_groups(extra: list[str], folder: Path) -> list[Group]:
    """Run all groups, as many at the same time as there are places; an exception ends what runs."""
    groups: list[Group] = []
    waiting, running = list(GROUPS.items()), list[Group]()
    try:
        while waiting or running:
            free = PLACES - sum(_takes(group.name) for group in running)
            while waiting and _takes(waiting[0][0]) <= free:
                name, arguments = waiting.pop(0)
                free -= _takes(name)
                groups.append(start(name, (*arguments, *extra), folder))
                running.append(groups[-1])
            time.sleep(LOOK_S)
            running = [group for group in running if not group.has_ended()]
    except KeyboardInterrupt:
        _wait(groups)  # the terminal interrupts them too, and they tell what they have
        raise
    finally:
        for group in groups:
            group.process.terminate()
        _wait(groups)
        process_tree.kill_all()
    return groups


def _takes(name: str) -> int:
    return TAKES.get(name, 1)


def _wait(groups: list[Group]) -> None:
    with suppress(subprocess.TimeoutExpired):
        for group in groups:
            group.process.wait(STOPPING_S)


def report(groups: list[Group], took_s: float) -> None:
    """Print what failed, what was skipped and why, and the counts."""
    print("\n" + "=" * 30 + " all rings " + "=" * 30)
    for group in groups:
        for outcome in group.journal.outcomes:
            if outcome.result in {"failed", "error"}:
                print(f"{group.name:8} {outcome.result.upper()} {outcome.test} - {outcome.reason}")
    skipped = Counter((g.name, o.reason) for g in groups for o in g.journal.outcomes if o.result == "skipped")
    print("Skipped, and why:" if skipped else "Nothing was skipped.")
    for (name, reason), number in skipped.items():
        print(f"  {name:8} [{number}] {reason}")
    for group in groups:
        print(f"{group.name:8} {group.summary} (exit code {group.process.returncode}, {group.took_s:.0f} s)")
    total = Counter(outcome.result for group in groups for outcome in group.journal.outcomes)
    failed, passed = total["failed"] + total["error"], total["passed"] + total["xfailed"]
    print(f"In all {took_s:.0f} s: {passed} passed, {failed} failed, {total['skipped']} skipped")


def main(extra: list[str]) -> int:
    """Run everything; 0 if all groups ended well."""
    process_tree.adopt_orphans()
    # Images of containers set it, and then each of the several hundred processes compiles the package for itself.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tfserve-tests-run-") as folder:
        groups = run_groups(extra, Path(folder))
    report(groups, time.monotonic() - started_s)
    return 0 if all(group.process.returncode == 0 for group in groups) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
