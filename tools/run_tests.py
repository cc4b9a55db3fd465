"""Run every ring of the tests, two pytest processes at a time, and say at the end what was skipped and why.

Usage: python tools/run_tests.py [pytest arguments]

The rings run in stages. Within a stage the groups run side by side, one process each: the rings without TensorFlow
beside those with it, which mostly wait for kernels. The browser ring runs alone, because it watches how fast a click
takes effect. The output of each process is shown line by line with its name in front; the closing summaries come
again at the end, plain. The exit code is 0 only if every process ended with 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

STAGES = (
    {
        "quick": (
            "--doctest-modules",
            "tfserve_nb",
            "tests/unit",
            "tests/server",
            "tests/serve",
        ),
        "model": ("tests/tf", "tests/shell"),
    },
    {
        "kernel": ("tests/kernel", "tests/bench", "tests/experiment"),
        "notebook": ("tests/notebooks",),
    },
    {
        "browser": ("tests/browser",),
    },
)
"""Stages one after the other; in each, groups side by side: name -> pytest arguments."""

CLOSING_LINE = re.compile(r"^=+ (?P<counts>.*\b(passed|failed|error|errors|skipped|no tests ran)\b.*) in [\d.]+s.*=+$")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed)")


@dataclass(slots=True)
class Group:
    """One pytest process and what it said."""

    name: str
    arguments: tuple[str, ...]
    lines: list[str] = field(default_factory=list)
    exit_code: int | None = None
    took_s: float = 0.0

    def run(self, extra: list[str]) -> None:
        """Run to the end, showing each line with the group's name in front."""
        started_s = time.perf_counter()
        command = [sys.executable, "-m", "pytest", "--color=no", *self.arguments, *extra]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            for line in process.stdout or ():
                self.lines.append(line.rstrip("\n"))
                print(f"{self.name:8} | {self.lines[-1]}", flush=True)
        self.exit_code = process.returncode
        self.took_s = time.perf_counter() - started_s

    @property
    def closing_line(self) -> str:
        """Pytest's last line, or what happened instead of it."""
        found = [line for line in self.lines if CLOSING_LINE.match(line)]
        return found[-1] if found else f"(no closing line: the process ended with exit code {self.exit_code})"

    def count(self, word: str) -> int:
        """How many tests the closing line gives for `passed`, `failed`, `error` or `skipped`."""
        return sum(int(number) for number, what in COUNT.findall(self.closing_line) if what.startswith(word))

    def summary(self, word: str) -> list[str]:
        """The lines of pytest's short summary that begin with `word`."""
        return [line for line in self.lines if line.startswith(f"{word} ")]


def run_stages(extra: list[str]) -> list[Group]:
    """Run all stages, the groups of each at the same time."""
    groups = []
    for stage in STAGES:
        running = [Group(name, arguments) for name, arguments in stage.items()]
        threads = [threading.Thread(target=group.run, args=(extra,)) for group in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        groups += running
    return groups


def report(groups: list[Group], took_s: float) -> None:
    """Print what failed, what was skipped and why, and the closing lines."""
    print("\n" + "=" * 30 + " all rings " + "=" * 30)
    for group in groups:
        for line in (*group.summary("FAILED"), *group.summary("ERROR")):
            print(f"{group.name:8} {line}")
    skipped = [(group.name, line) for group in groups for line in group.summary("SKIPPED")]
    print("Skipped, and why:" if skipped else "Nothing was skipped.")
    for name, line in skipped:
        print(f"  {name:8} {line.removeprefix('SKIPPED ')}")
    for group in groups:
        print(f"{group.name} (exit code {group.exit_code}, {group.took_s:.0f} s):")
        print(group.closing_line)
    print(f"In all {took_s:.0f} s:")
    failed = sum(group.count("failed") + group.count("error") for group in groups)
    counts = f"{sum(group.count('passed') for group in groups)} passed, {failed} failed"
    print(f"{counts}, {sum(group.count('skipped') for group in groups)} skipped")


def main(extra: list[str]) -> int:
    """Run everything; 0 if all groups ended well."""
    started_s = time.perf_counter()
    groups = run_stages(extra)
    report(groups, time.perf_counter() - started_s)
    return 0 if all(group.exit_code == 0 for group in groups) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
