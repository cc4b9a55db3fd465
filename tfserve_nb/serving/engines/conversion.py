"""Convert signatures of a version for engines, in a process of its own.

Converters take time and memory, print what they like, and may crash.

Thread: the caller's, which waits and may be interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...export.layout import folder_bytes
from ...temporary import TemporaryFolder

LIMIT_S = 480.0
"""How long the conversions of a version may take, in seconds: less than loading one, which they may be part of."""

LOOK_S = 0.1
"""How often it is looked how much memory they take."""

BASE_BYTES = 900 << 20
"""What a converter takes with a graph of no size: TensorFlow, mostly."""

TIMES_WEIGHTS = 6
"""How often a converter holds the weights at the same time."""

SHARE = 0.9
"""Of the free memory, at most."""

_WHO = {"convert": "the converter", "run": "the process that ran it"}
"""What a process does -> what it is called."""


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion.

    Attributes:
        engine: for which engine; "" to run a version that is a single file.
        path: the version's folder.
        tags: of the graph in it.
        signature: the signature's name.
        file: what is written.
    """

    engine: str
    path: str
    tags: tuple[str, ...]
    signature: str
    file: str


def convert(jobs: Sequence[Job], *, limit_s: float = LIMIT_S, free_bytes: int | None = None) -> list[str]:
    """Carry out conversions.

    Args:
        jobs: what to convert, all of one version.
        limit_s: how long all may take together.
        free_bytes: memory that may be taken; what is free by default.

    Returns:
        For each job why it failed, in words; "" when its file is there.
    """
    if not jobs:
        return []
    free = free_memory() if free_bytes is None else free_bytes
    needed = BASE_BYTES + TIMES_WEIGHTS * folder_bytes(Path(jobs[0].path) / "variables")
    if needed > free:
        short = f"converting may take {needed >> 20} MiB of memory, and {free >> 20} MiB are free"
        return [short] * len(jobs)
    found: list[str] = []
    until_s = time.perf_counter() + limit_s
    with TemporaryFolder("tfserve-convert") as folder:
        while len(found) < len(jobs):
            left = jobs[len(found) :]
            results, why = _run(left, folder.path, until_s, int(SHARE * free))
            # Without a result of its own, the job that was on its way is the one that ended the process.
            found += results if len(results) == len(left) else [*results, why]
            if time.perf_counter() > until_s:
                found += [why] * (len(jobs) - len(found))
    return found


def try_out(path: Path, *, limit_s: float = LIMIT_S) -> str:
    """Load a version that is a single file, and run it on made-up rows: a file may end the process that runs it.

    Args:
        path: the version's folder.
        limit_s: how long that may take.

    Returns:
        What ended it, in words; "" when nothing did. Errors in good order are left to whoever loads it.
    """
    job = Job("", str(path), (), "", "")
    with TemporaryFolder("tfserve-convert") as folder:
        results, why = _run([job], folder.path, time.perf_counter() + limit_s, int(SHARE * free_memory()), "run")
    return "" if results else why


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of the container that it runs in."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    free = int(fields["MemAvailable"].split()[0]) << 10
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text("ascii") for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def _run(
    jobs: Sequence[Job], folder: Path, until_s: float, most_bytes: int, work: str = "convert"
) -> tuple[list[str], str]:
    """The results of the jobs that one process finished, and why it did not finish the others."""
    todo, results, errors = folder / "jobs.json", folder / "results.jsonl", folder / "errors.txt"
    results.write_bytes(b"")
    todo.write_text(json.dumps([asdict(job) for job in jobs]), "utf-8")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with errors.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
            [sys.executable, "-m", f"{__package__}.convert", str(todo), str(results)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
        )
        try:
            why = _wait(process, until_s, most_bytes, work)
        finally:
            process.kill()
            process.wait()
    whole = results.read_text("utf-8").split("\n")[:-1]  # behind the last line break is what was being written
    return [json.loads(line) for line in whole], why or _last_line(errors, _WHO[work])


def _wait(process: subprocess.Popen[bytes], until_s: float, most_bytes: int, work: str) -> str:
    """Wait until a process ends; why it had to be ended, or "" when it ended by itself."""
    while True:
        try:
            process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            if time.perf_counter() > until_s:
                return f"it took too long to {work}"
            if _memory(process.pid) > most_bytes:
                return f"it took more than {most_bytes >> 20} MiB of memory to {work}"
        else:
            return f"{_WHO[work]} was ended by signal {-process.returncode}" if process.returncode < 0 else ""


def _memory(pid: int) -> int:
    """Bytes that a process holds; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)


def _last_line(file: Path, who: str) -> str:
    lines = [line.strip() for line in file.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return f"{who} ended: {lines[-1][:200]}" if lines else f"{who} ended without a word"
