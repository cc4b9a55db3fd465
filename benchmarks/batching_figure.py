"""Draw how batches form: requests that arrive at three rates, and the runs of the model that answered them.

Usage: python benchmarks/batching_figure.py [docs/figures/batching.svg]

The picture shows a real measurement: a small network is served without HTTP, a thread sends rows, and the core's
observer records when each batch started, how long it took and how many rows it had.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib as mpl
import numpy as np

from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import BatchRecord
from tfserve_nb.serving.versions.source import VersionSource

mpl.use("svg")
import matplotlib.pyplot as plt

PHASES = (("a request each 4 ms", 4e-3, 6), ("each 0.4 ms", 0.4e-3, 60), ("as fast as they can be sent", 0.0, 400))
DARK, LIGHT, ACCENT = "#263238", "#90a4ae", "#00796b"


class Notes(Observer):
    """An observer that keeps the batches."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, float, int, str]] = []

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run, just now."""
        done_s = time.perf_counter()
        self.runs.append((done_s - record.run_s, record.run_s, sum(record.task_rows), record.reason))


def make_core(folder: Path, notes: Notes) -> ServingCore:
    """A core that serves an MLP of 784 inputs."""
    import keras

    layers = [keras.Input((784,)), keras.layers.Dense(1024, activation="relu"), keras.layers.Dense(10)]
    path = folder / "mlp" / "1"
    keras.Sequential(layers).export(str(path), verbose=False)
    core = ServingCore()
    core.observers.add(notes)
    core.start()
    core.deploy("mlp", 1, VersionSource(path, BatchingOptions(64)), folder, Placement())
    return core


def send(core: ServingCore, gap_s: float, number: int) -> list[float]:
    """Send rows at a constant rate; returns when each was sent."""
    handle = core.acquire(ModelSpec("mlp"))
    (name,) = handle.signatures["serving_default"].inputs
    row = {name: np.random.default_rng(0).random((1, 784)).astype(np.float32)}
    left = threading.Semaphore(0)
    sent = []
    next_s = time.perf_counter()
    for _ in range(number):
        while time.perf_counter() < next_s:
            time.sleep(0)
        next_s += gap_s
        sent.append(time.perf_counter())
        handle.submit("serving_default", row, deadline_s=sent[-1] + 60, on_done=lambda _: left.release())
    for _ in range(number):
        left.acquire()
    handle.release()
    return sent


def draw(axes: Any, title: str, sent: list[float], runs: list[tuple[float, float, int, str]]) -> None:
    """One phase: ticks for requests, bars for runs with their number of rows."""
    origin = sent[0]
    axes.vlines([1e3 * (at - origin) for at in sent], 1.0, 1.35, color=ACCENT, linewidth=0.7)
    for start_s, took_s, rows, reason in runs:
        left, width = 1e3 * (start_s - origin), 1e3 * took_s
        axes.barh(0.3, width, left=left, height=0.55, color=DARK if reason == "full" else LIGHT)
        axes.text(left + width / 2, 0.3, str(rows), ha="center", va="center", fontsize=7,
                  color="white" if reason == "full" else DARK)  # fmt: skip
    axes.set_ylim(-0.1, 1.5)
    axes.set_yticks([0.3, 1.17], ["runs, with their rows", "requests"])
    axes.set_xlabel("milliseconds")
    axes.set_title(title, loc="left", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def main() -> int:
    """Run the three phases and save the picture."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures/batching.svg")
    notes = Notes()
    sys.setswitchinterval(0.0001)
    with tempfile.TemporaryDirectory() as folder:
        core = make_core(Path(folder), notes)
        send(core, 0.0, 500)
        figure, all_axes = plt.subplots(len(PHASES), 1, figsize=(9, 5.4), layout="constrained")
        for axes, (title, gap_s, number) in zip(all_axes, PHASES, strict=True):
            time.sleep(0.05)
            notes.runs.clear()
            sent = send(core, gap_s, number)
            draw(axes, title, sent, list(notes.runs))
        core.stop()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
