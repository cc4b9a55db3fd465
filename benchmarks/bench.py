"""What every part of the benchmark gets: models, results, and how long to measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from results import Results
from saved_models import BenchModel

HERE = Path(__file__).parent
T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """A run of the benchmark.

    Attributes:
        models: name -> model on disk.
        results: where samples go.
        rounds: how often everything is measured.
        seconds: length of one measurement.
        is_quick: whether to leave out what takes long.
        seed: of random arrivals.
        server_models: models that the servers are measured with; all (quick: the MLP) when empty.
        names: contenders to measure, as parts of their names; all when empty.
    """

    models: dict[str, BenchModel]
    results: Results
    rounds: int
    seconds: float
    is_quick: bool
    seed: int
    names: tuple[str, ...] = ()
    server_models: tuple[str, ...] = ()


def rotated(things: Sequence[T], round_number: int) -> list[T]:
    """The order of a round: everything is first once, so that being first favours nothing."""
    start = round_number % len(things) if things else 0
    return [*things[start:], *things[:start]]


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def ask_script(name: str, *arguments: object) -> dict[str, Any]:
    """Run one of our scripts in a process of its own; its last line is JSON.

    Raises:
        RuntimeError: if it fails; the text ends with its output.
    """
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
