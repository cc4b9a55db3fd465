"""What the chosen engine does without a server: the time of its call, and its best loop over batches.

Usage: python benchmarks/engine_call.py MODEL SECONDS

The first call for a model converts and measures it; what was found stays in the version's folder, where servers that
load the version find it. The best loop is the best of all batch sizes and numbers of threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


def main() -> int:
    """Choose, measure, print."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    model = BenchModel(folder.parent.name, folder.parent)
    servable = EngineServable(folder)
    accelerate(servable, AUTO, known_rows(servable), sizes_of(BatchingOptions()))
    one = batch_of(model, 1)
    found: dict[str, float | str] = {"engine": servable.engine_of(SIGNATURE)}
    found["call_ms"] = median_ms(lambda: servable.run(SIGNATURE, one), seconds)
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
