"""What a pytest process notes while it runs, one JSON line an event, for the runner that watches it from outside.

The process may die at any moment, and the file still says which tests ended, how, and which one was running.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLLECTING_S = 600.0
"""How long importing the test modules may take."""
BETWEEN_TESTS_S = 120.0
"""How long pytest may take from the end of a test to the start of the next."""
ENDING_S = 120.0
"""How long the process may take to end after its last test: TensorFlow closes its sessions then."""
PATIENCE = 2.0
"""The process is killed after this many times a test's limit. At its limit the test fails by itself, if it can."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended.

    Attributes:
        test: its id, as pytest writes it.
        result: `passed`, `failed`, `error`, `skipped` or `xfailed`.
        reason: one line, "" for a test that passed.
    """

    test: str
    result: str
    reason: str = ""


@dataclass(slots=True)
class Journal:
    """A journal as far as it was read.

    Attributes:
        path: the file.
        doing: what the process does now, as words.
        test: the test that is running, "" between tests.
        since_s: when that began, on the machine's monotonic clock.
        limit_s: how long it may take before the process is killed.
        has_ended: whether pytest came to the end of its session.
        finished: tests that had their turn, in order.
        outcomes: what they reported; a test whose body and clean-up both fail has two.
    """

    path: Path
    doing: str = "starting"
    test: str = ""
    since_s: float = field(default_factory=time.monotonic)
    limit_s: float = COLLECTING_S
    has_ended: bool = False
    finished: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    _offset: int = 0

    def starts(self) -> None:
        """A process that will write to it is started now."""
        self.doing, self.test, self.has_ended = "starting", "", False
        self.since_s, self.limit_s = time.monotonic(), COLLECTING_S

    def read(self) -> None:
        """Take in what was written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole, newline, _ = text.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "report":
            self.outcomes.append(Outcome(event["test"], event["result"], event["reason"]))
            return
        self.since_s, self.test, self.has_ended = event["at_s"], "", kind == "end"
        if kind == "begin":
            self.doing, self.limit_s = "collecting tests", COLLECTING_S
        elif kind == "start":
            self.doing = self.test = event["test"]
            self.limit_s = PATIENCE * event["limit_s"]
        elif kind == "finish":
            self.finished.append(event["test"])
            self.doing, self.limit_s = "between two tests", BETWEEN_TESTS_S
        else:
            self.doing, self.limit_s = "ending", ENDING_S

    def count(self, *results: str) -> int:
        """How many outcomes there are of some kinds."""
        return sum(outcome.result in results for outcome in self.outcomes)


def write(path: Path, event: str, **facts: object) -> None:
    """Append one event; a single write, so that it stands there whole or not at all."""
    line = json.dumps({"event": event, "at_s": time.monotonic(), **facts})
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
