"""Run a module of this package in a process of its own, which gets so much time and memory and no more.

Converters take time and memory, print what they like, and may crash.

Thread: the caller's, which waits and may be interrupted; the process is gone afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LOOK_S = 0.1
"""How often it is looked how much memory it takes, in seconds."""

SHARE = 0.9
"""Of the free memory, at most."""

BASE_BYTES = 900 << 20
"""What a converter takes with a graph of no size: TensorFlow, mostly."""

TIMES_WEIGHTS = 6
"""How often a converter holds the weights at the same time."""

_MOST_WORDS = 200


def run_limited(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    until_s: float,
    most_bytes: int,
    who: str = "the converter",
    work: str = "convert",
) -> str:
    """Run a module, without a GPU, and wait until it ends or has to be ended.

    Args:
        module: its dotted name.
        arguments: what `sys.argv` holds after the program's name.
        folder: where its standard error is kept, in `errors.txt`.
        until_s: `perf_counter` time in seconds at which it is ended.
        most_bytes: it is ended when it holds more memory.
        who: what it is called in the reason.
        work: what it does, as a verb.

    Returns:
        Why it did not end well, in words; "" when it did.
    """
    errors = folder / "errors.txt"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with errors.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment,
        )
        try:
            why = _wait(process, until_s, most_bytes, work)
        finally:
            process.kill()
            process.wait()
    if why or process.returncode == 0:
        return why
    if process.returncode < 0:
        return f"{who} was ended by signal {-process.returncode}"
    lines = [line.strip() for line in errors.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return f"{who} ended: {lines[-1][:_MOST_WORDS]}" if lines else f"{who} ended without a word"


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of the container that it runs in."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    free = int(fields["MemAvailable"].split()[0]) << 10
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text("ascii") for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def too_little_memory(weights_bytes: int, free_bytes: int) -> str:
    """Why a conversion should not begin, in words; "" when there is room for it.

    Args:
        weights_bytes: size of the weights on disk.
        free_bytes: memory that may be taken.
    """
    needed = BASE_BYTES + TIMES_WEIGHTS * weights_bytes
    if needed <= free_bytes:
        return ""
    return f"converting may take {needed >> 20} MiB of memory, and {free_bytes >> 20} MiB are free"


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
            return ""


def _memory(pid: int) -> int:
    """Bytes that a process holds; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)
