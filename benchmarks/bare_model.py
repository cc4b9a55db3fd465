"""The cost of the model itself, without any server: one row at a time, and the best loop over batches.

Usage: python benchmarks/bare_model.py MODEL SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from open_loop import percentile

BATCH_SIZES = (16, 32, 64, 128, 256)


def rows_per_s(function: Any, rows: np.ndarray, seconds: float) -> float:
    """Rows per second of a loop over the same batch."""
    import tensorflow as tf

    def call() -> None:
        for output in function(x=tf.constant(rows)).values():
            output.numpy()

    for _ in range(3):
        call()
    num_calls, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        call()
        num_calls += 1
    return num_calls * len(rows) / elapsed_s


def call_ms(function: Any, rows: np.ndarray, seconds: float) -> float:
    """The median time of a call from NumPy to NumPy."""
    import tensorflow as tf

    return median_ms(lambda: [output.numpy() for output in function(x=tf.constant(rows)).values()], seconds)


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call that is repeated for some seconds."""
    took_s = []
    until_s = time.perf_counter() + seconds
    while (started_s := time.perf_counter()) < until_s:
        call()
        took_s.append(time.perf_counter() - started_s)
    return 1e3 * percentile(sorted(took_s), 0.5)


def our_run_us(model: Path, rows: np.ndarray, seconds: float) -> dict[str, float]:
    """The median time of our runner's own way to call the same model, in microseconds by rows."""
    from tfserve_nb.serving.engines.saved_model.session import load_saved_model

    servable = load_saved_model(model)
    found = {}
    for size in (1, 64):
        inputs = {"x": np.resize(rows, (size, *rows.shape[1:]))}
        run = partial(servable.run, "serving_default", inputs)
        found[f"our_run_us_{size}"] = 1e3 * median_ms(run, seconds)
    servable.close()
    return found


def main() -> int:
    """Load, measure, print."""
    import tensorflow as tf

    model, seconds = Path(sys.argv[1]), float(sys.argv[2])
    rows = np.load(model.parent.with_suffix(".x.npy"))
    loaded = tf.saved_model.load(str(model))
    function = loaded.signatures["serving_default"]
    rates = {size: rows_per_s(function, np.resize(rows, (size, *rows.shape[1:])), seconds / 2) for size in BATCH_SIZES}
    best = max(rates, key=lambda size: rates[size])
    p50_ms = call_ms(function, rows[:1], seconds)
    found = {"p50_ms": p50_ms, "best_rows_per_s": rates[best], "best_batch": best}
    print(json.dumps(found | our_run_us(model, rows, seconds / 2)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
