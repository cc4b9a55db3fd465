"""Convert signatures of a version for engines, in a process of its own.

Converters take time and memory, print what they like, and may crash.

Thread: the caller's, which waits and may be interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...export.layout import folder_bytes
from ...limited_process import SHARE, free_memory, run_limited, too_little_memory
from ...temporary import TemporaryFolder

LIMIT_S = 480.0
"""How long the conversions of a version may take, in seconds: less than loading one, which they may be part of."""


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
    short = too_little_memory(folder_bytes(Path(jobs[0].path) / "variables"), free)
    if short:
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
    until_s, most_bytes = time.perf_counter() + limit_s, int(SHARE * free_memory())
    with TemporaryFolder("tfserve-convert") as folder:
        results, why = _run([job], folder.path, until_s, most_bytes, who="the process that ran it", work="run")
    return "" if results else why


def _run(
    jobs: Sequence[Job],
    folder: Path,
    until_s: float,
    most_bytes: int,
    *,
    who: str = "the converter",
    work: str = "convert",
) -> tuple[list[str], str]:
    """The results of the jobs that one process finished, and why it did not finish the others."""
    todo, results = folder / "jobs.json", folder / "results.jsonl"
    results.write_bytes(b"")
    todo.write_text(json.dumps([asdict(job) for job in jobs]), "utf-8")
    arguments = (str(todo), str(results))
    module = f"{__package__}.convert"
    why = run_limited(module, arguments, folder, until_s=until_s, most_bytes=most_bytes, who=who, work=work)
    whole = results.read_text("utf-8").split("\n")[:-1]  # behind the last line break is what was being written
    return [json.loads(line) for line in whole], why or f"{who} ended without a word"
