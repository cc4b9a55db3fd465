"""What a version takes on disk, in memory and in time, as it is written here and as Keras' own export writes it.

Usage: python benchmarks/version_size.py [--copies N] [--rounds N]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import saved_models
from version_swaps import resident_mib

WRITERS = ("keras", "tfserve_nb")
WARM = 2
"""Copies that are loaded before the memory of further ones is measured."""


MODELS: dict[str, Callable[[], Any]] = {
    "mlp": saved_models.mlp,
    "cnn": saved_models.cnn,
    "transformer": saved_models.transformer,
    "mobilenet": saved_models.mobilenet,
}


def write(model: str, writer: str, folder: Path) -> dict[str, float]:
    """Write a version; its size, and the seconds that it took."""
    from tfserve_nb.export.layout import folder_bytes
    from tfserve_nb.export.saved_model import export_version

    live = MODELS[model]()
    started_s = time.perf_counter()
    if writer == "keras":
        live.export(str(folder / "model" / "1"), verbose=False)
    else:
        export_version(live, folder, "model")
    seconds = time.perf_counter() - started_s
    return {
        "disk_mib": folder_bytes(folder / "model" / "1") / 2**20,
        "weights_mib": weights_mib(live),
        "write_s": seconds,
    }


def weights_mib(model: Any) -> float:
    """The weights of a Keras model, each once."""
    return float(sum(weight.numpy().nbytes for weight in model.weights) / 2**20)


def load(folder: Path, copies: int) -> dict[str, float]:
    """Load a version many times and run each on a row: the memory and the seconds of one."""
    import numpy as np

    from tfserve_nb.serving.engines.saved_model.session import SavedModelServable

    held = []

    def one_more() -> float:
        started_s = time.perf_counter()
        servable = SavedModelServable(folder / "model" / "1")
        seconds = time.perf_counter() - started_s
        (spec,) = servable.signatures["serving_default"].inputs.values()
        servable.run("serving_default", {spec.name: np.zeros((1, *(spec.shape or ())[1:]), spec.dtype)})
        held.append(servable)
        return seconds

    for _ in range(WARM):
        one_more()
    before = held_mib()
    times = [one_more() for _ in range(copies)]
    return {"memory_mib": (held_mib() - before) / copies, "load_s": statistics.median(times)}


def held_mib() -> float:
    """Memory of this process without what the C library keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident_mib()


def in_child(*arguments: object) -> dict[str, float]:
    """One of the steps in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure in turns and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    parser.add_argument("step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, *rest = options.step
        found = write(rest[0], rest[1], Path(folder)) if step == "write" else load(Path(folder), options.copies)
        print(json.dumps(found))
        return 0
    found_all: dict[str, dict[str, float]] = {}
    for model in MODELS:
        rounds: dict[str, list[dict[str, float]]] = {writer: [] for writer in WRITERS}
        for _ in range(options.rounds):
            for writer in WRITERS:
                with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as base:
                    written = in_child("write", base, model, writer)
                    rounds[writer].append(written | in_child("load", base, "--copies", options.copies))
        for writer, runs in rounds.items():
            medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            found_all[f"{model}, {writer}"] = medians
            print(
                f"{model}, {writer}:", ", ".join(f"{name} {value:.3f}" for name, value in medians.items()), flush=True
            )
    if options.json:
        print(json.dumps(found_all))
    return 0


if __name__ == "__main__":
    sys.exit(main())
