"""A process that loads a version with one engine, answers for it and times it.

So its memory and load time are nothing else's, and a runtime that crashes ends that process only.

Thread: the caller's, which waits and may be interrupted; the process is gone when the body of `probing` ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any  # answers by their question

from ..temporary import TemporaryFolder
from ..types import Tensors

LIMIT_S = 300.0
"""How long a version may take to load, or to answer; XLA compiles in that time."""

LOOK_S = 0.1
"""How often it is looked whether the process still lives."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is loaded.

    Attributes:
        path: the version's folder.
        engine: what runs it.
        signature: the signature that is run.
        batches: number of rows -> the batch that is timed.
    """

    path: Path
    engine: str
    signature: str
    batches: Mapping[int, Tensors]


@dataclass(frozen=True, slots=True)
class Loaded:
    """How loading went.

    Attributes:
        load_s: until the first row was answered, in seconds; the runtime itself was imported before.
        memory_bytes: what the process holds more, after a run of every batch.
    """

    load_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Asks for the outputs of some rows, which are `Tensors`."""

    inputs: Tensors


@dataclass(frozen=True, slots=True)
class Turn:
    """Asks how long a few runs of a batch take, which is a list of seconds."""

    num_rows: int


@dataclass(frozen=True, slots=True)
class Problem:
    """The answer in place of any other: what went wrong."""

    reason: str


class ProbeFailed(Exception):
    """What was loaded does not answer; the text says why."""


class Probe:
    """A process of its own, and the version that it has loaded.

    Args:
        link: leads to the process.
        process: holds it.
        errors: the file that the process writes what it has to say into.

    Attributes:
        loaded: how loading it went; not there before `load`.
    """

    loaded: Loaded

    def __init__(self, link: Connection, process: subprocess.Popen[bytes], errors: Path) -> None:
        self._link = link
        self._process = process
        self._errors = errors
        self._is_ready = False

    def wait(self) -> None:
        """Wait until it has imported what runs a version.

        Raises:
            ProbeFailed: if it cannot.
        """
        if not self._is_ready:
            self._answer()
            self._is_ready = True

    def load(self, subject: Subject) -> None:
        """Load it.

        Raises:
            ProbeFailed: if it cannot be loaded, or cannot run its batches.
        """
        self.wait()
        self.loaded = self._ask(subject)

    def run(self, inputs: Tensors) -> Tensors:
        """The outputs for some rows.

        Raises:
            ProbeFailed: if they cannot be run.
        """
        outputs: Tensors = self._ask(Rows(inputs))
        return outputs

    def turn(self, num_rows: int) -> list[float]:
        """How long a few runs of a batch take, in seconds.

        Raises:
            ProbeFailed: if one fails.
        """
        seconds: list[float] = self._ask(Turn(num_rows))
        return seconds

    def _ask(self, question: Subject | Rows | Turn) -> Any:
        try:
            self._link.send(question)
        except OSError as error:
            raise ProbeFailed(self._last_words()) from error
        return self._answer()

    def _answer(self) -> Any:
        until_s = time.perf_counter() + LIMIT_S
        try:
            while not self._link.poll(LOOK_S):
                if time.perf_counter() > until_s:
                    raise ProbeFailed(f"it took longer than {LIMIT_S:g} s")
            answer = self._link.recv()
        except (EOFError, OSError) as error:
            raise ProbeFailed(self._last_words()) from error
        if isinstance(answer, Problem):
            raise ProbeFailed(answer.reason)
        return answer

    def _last_words(self) -> str:
        """Why the process ended."""
        code = self._process.wait()
        if code < 0:
            return f"its process was ended by signal {-code}"
        lines = [line.strip() for line in self._errors.read_text("utf-8", errors="replace").splitlines()]
        return f"its process ended: {next((line[:200] for line in reversed(lines) if line), 'without a word')}"


@contextlib.contextmanager
def probing(engine: str) -> Iterator[Probe]:
    """A process in which a version can be loaded, for as long as the body runs.

    Args:
        engine: what will run it; the process imports that meanwhile.
    """
    own, others = socket.socketpair()
    with contextlib.closing(Connection(own.detach())) as link, TemporaryFolder("tfserve-probe") as folder:
        errors = folder.path / "errors.txt"
        with others, errors.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
                [sys.executable, "-m", f"{__package__}.probe", engine, str(others.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=[others.fileno()],
                start_new_session=True,  # Ctrl-C is for the notebook: it ends this process in its own way
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        try:
            yield Probe(link, process, errors)
        finally:
            process.kill()
            process.wait()
