"""What the chosen engine does without a server: the time of its call, and its best loop over batches.

Usage: python benchmarks/engine_call.py MODEL SECONDS [--calls]

The first call for a model converts and measures it; what was found stays in the version's folder, where servers that
load the version find it. TensorFlow's session and the engine are called in turns. The best loop is that of the
best batch size and number of threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bare_model import BATCH_SIZES, median_ms
from saved_models import BenchModel

from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.engines.accelerated import EngineServable
from tfserve_nb.serving.engines.compare import Run
from tfserve_nb.serving.engines.engine import AUTO, TENSORFLOW, num_threads
from tfserve_nb.serving.engines.kinds import KINDS
from tfserve_nb.serving.engines.selection import accelerate
from tfserve_nb.serving.versions.acceleration import known_rows, sizes_of

SIGNATURE = "serving_default"
SIZES = (1, 32)
CALLS_IN_TURN = 4


def rows_per_s(run: Run, inputs: dict[str, np.ndarray], seconds: float) -> float:
    """Rows per second of a loop over the same batch."""
    for _ in range(3):
        run(inputs)
    num_calls, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        run(inputs)
        num_calls += 1
    return num_calls * len(next(iter(inputs.values()))) / elapsed_s


def runs(servable: EngineServable) -> Iterator[Run]:
    """The chosen engine with each number of threads that it may be given; TensorFlow's session as it is."""
    name = servable.engine_of(SIGNATURE)
    record = servable.engine_folder.read()
    if name == TENSORFLOW or record is None:
        yield lambda inputs: servable.run(SIGNATURE, inputs)
        return
    file = servable.engine_folder.file_of(name, record.artefacts[name][SIGNATURE])
    for threads in {1, num_threads()}:
        yield KINDS[name].load(file, servable.signatures[SIGNATURE], threads).run


def batch_of(model: BenchModel, size: int) -> dict[str, np.ndarray]:
    """Example rows, again and again."""
    return {name: np.resize(rows, (size, *rows.shape[1:])) for name, rows in model.inputs().items()}


def in_turns(servable: EngineServable, inputs: dict[str, np.ndarray], seconds: float) -> dict[str, dict[str, float]]:
    """The medians of wall and processor time of a call, in milliseconds, of TensorFlow's session and of the engine."""
    session = servable.session()
    calls = {"TensorFlow alone": session.run, "engine alone": servable.run}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s or not all(took.values()):
        for name, run in calls.items():
            run(SIGNATURE, inputs)  # its caches are cold
            for _ in range(CALLS_IN_TURN):
                used_s, started_s = time.process_time(), time.perf_counter()
                run(SIGNATURE, inputs)
                took[name].append((time.perf_counter() - started_s, time.process_time() - used_s))
    return {
        name: {"wall_ms": 1e3 * median(wall for wall, _ in pairs), "cpu_ms": 1e3 * median(cpu for _, cpu in pairs)}
        for name, pairs in took.items()
    }


def main() -> int:
    """Choose, measure, print."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    model = BenchModel(folder.parent.name, folder.parent)
    servable = EngineServable(folder)
    accelerate(servable, AUTO, known_rows(servable), sizes_of(BatchingOptions()))
    one = batch_of(model, 1)
    found: dict[str, Any] = {"engine": servable.engine_of(SIGNATURE)}
    found["call_ms"] = median_ms(lambda: servable.run(SIGNATURE, one), seconds)
    found["in_turns"] = {str(size): in_turns(servable, batch_of(model, size), seconds) for size in SIZES}
    if "--calls" in sys.argv:
        print(json.dumps(found))
        return 0
    best = {
        size: max(rows_per_s(run, batch_of(model, size), seconds / 4) for run in runs(servable)) for size in BATCH_SIZES
    }
    found["best_batch"] = max(best, key=lambda size: best[size])
    found["best_rows_per_s"] = best[found["best_batch"]]
    servable.close()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
