"""Two copies of one network, compared on a real device: how large a difference is reported although there is none.

Usage: python benchmarks/experiments_real.py [--runs 5] [--seconds 7] [--rate 600]

This is not a simulation: a core serves both versions without HTTP, single rows come at random, and the observations are
looked at four times a second. The split is 50, 40, 33 and 10 percent for B.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfserve_nb.experiment.engine.evaluate import evaluate
from tfserve_nb.experiment.engine.observations import Observations
from tfserve_nb.experiment.plan import Plan
from tfserve_nb.experiment.state import Reading
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import BatchRecord
from tfserve_nb.serving.versions.source import VersionSource

SPLITS = (50, 40, 33, 10)
LOOK_S = 0.25
ARMS = {1: "a", 2: "b"}


class Batches(Observer):
    """An observer that keeps what was run."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, str, int, float]] = []

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run, just now."""
        self.runs.append((time.perf_counter(), ARMS[record.version], record.execution_rows, record.run_s))


def make_core(folder: Path, batches: Batches) -> ServingCore:
    """A core that serves the same network twice."""
    import keras

    dense = keras.layers.Dense
    layers = [keras.Input((784,), name="x"), dense(1024, activation="relu"), dense(1024, activation="relu"), dense(10)]
    network = keras.Sequential(layers)
    core = ServingCore()
    core.observers.add(batches)
    core.start()
    for version in ARMS:
        path = folder / "mlp" / str(version)
        network.export(str(path), verbose=False)
        core.deploy("mlp", version, VersionSource(path, BatchingOptions(64)), folder, Placement())
    return core


def compare(core: ServingCore, batches: Batches, split: float, rate: float, seconds: float) -> tuple[Reading, bool]:
    """One comparison; the last reading, and whether B would have been rolled back at any look."""
    rng = np.random.default_rng()
    row = {"x": rng.random((1, 784)).astype(np.float32)}
    handles = [core.acquire(ModelSpec("mlp", version=version)) for version in ARMS]
    observations = Observations(Plan("mlp", 1, 2, split=split))
    answered: list[tuple[float, str, float]] = []
    batches.runs.clear()
    zero_s = due_s = time.perf_counter()
    look_s, is_back = zero_s + LOOK_S, False
    while due_s < zero_s + seconds:
        while time.perf_counter() < due_s:
            time.sleep(0)
        came_s, is_b = time.perf_counter(), bool(rng.random() < split / 100)

        def done(_: Any, arm: str = "ab"[is_b], came_s: float = came_s) -> None:
            answered.append((time.perf_counter(), arm, came_s))

        handles[is_b].submit("serving_default", row, deadline_s=came_s + 60, on_done=done)
        due_s += rng.exponential() / rate
        if came_s > look_s:
            look_s += LOOK_S
            take(observations, batches.runs, answered, zero_s)
            is_back |= evaluate(observations, came_s - zero_s).verdict.decision == "rollback"
    take(observations, batches.runs, answered, zero_s)
    for handle in handles:
        handle.release()
    return evaluate(observations, seconds), is_back


def take(
    observations: Observations,
    runs: list[tuple[float, str, int, float]],
    answered: list[tuple[float, str, float]],
    zero_s: float,
) -> None:
    """Return the batches since the last look."""
    for at_s, arm, size, run_s in [runs.pop(0) for _ in range(len(runs))]:
        observations.add_batch(arm, at_s - zero_s, size, run_s, is_background=False)
    for at_s, arm, came_s in [answered.pop(0) for _ in range(len(answered))]:
        observations.add_request(arm, at_s - zero_s, at_s - came_s, "OK", "", is_assigned=True)


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="comparisons of each split (5)")
    parser.add_argument("--seconds", type=float, default=7.0, help="length of each (7)")
    parser.add_argument("--rate", type=float, default=600.0, help="requests a second (600)")
    options = parser.parse_args()
    sys.setswitchinterval(1e-4)
    batches = Batches()
    print(
        "| B gets | comparisons | B against A | rolled back at any look | decisions at the end |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        core = make_core(Path(folder), batches)
        for split in SPLITS:
            found = [compare(core, batches, split, options.rate, options.seconds) for _ in range(options.runs)]
            values = [reading.latency.value for reading, _ in found if reading.latency is not None]
            ends = f"{100 * min(values):+.0f} % to {100 * max(values):+.0f} %" if values else "too little"
            decisions = [str(reading.verdict.decision) for reading, _ in found]
            said = ", ".join(f"{decisions.count(one)} {one}" for one in sorted(set(decisions)))
            print(f"| {split} % | {len(found)} | {ends} | {sum(back for _, back in found)} | {said} |", flush=True)
        core.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
