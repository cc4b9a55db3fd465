"""A closed loop over `d.predict`: threads of the process that deployed, without HTTP.

Usage: python benchmarks/in_process.py MODEL SECONDS THREADS...
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from open_loop import percentile


def closed_loop(deployment: Any, row: np.ndarray, num_threads: int, seconds: float) -> dict[str, float]:
    """Calls per second and latencies."""
    took_s: list[list[float]] = [[] for _ in range(num_threads)]
    begun_s = time.perf_counter()
    until_s = begun_s + seconds

    def work(own: list[float]) -> None:
        while (started_s := time.perf_counter()) < until_s:
            deployment.predict(row)
            own.append(time.perf_counter() - started_s)

    threads = [threading.Thread(target=work, args=(own,)) for own in took_s]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - begun_s  # the last calls end later
    ordered = sorted(one for own in took_s for one in own)
    return {
        f"rate@{num_threads}": len(ordered) / elapsed_s,
        f"p50@{num_threads}": 1e3 * percentile(ordered, 0.5),
        f"p99@{num_threads}": 1e3 * percentile(ordered, 0.99),
    }


def main() -> int:
    """Deploy, check, measure."""
    import tfserve_nb

    model, seconds = Path(sys.argv[1]), float(sys.argv[2])
    rows, answers = (np.load(model.parent.with_suffix(suffix)) for suffix in (".x.npy", ".y.npy"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        deployment = tfserve_nb.deploy(str(model), "bench")
        if not np.allclose(deployment.predict(rows[:1]), answers[:1], atol=1e-4):
            sys.exit("answers differently from the model")
        values: dict[str, float] = {}
        for num_threads in map(int, sys.argv[3:]):
            closed_loop(deployment, rows[:1], num_threads, 0.5)
            values |= closed_loop(deployment, rows[:1], num_threads, seconds)
        tfserve_nb.shutdown()
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
