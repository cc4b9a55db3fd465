"""Memory of `tfserve-nb serve` with one model and the time to its first answer, by engine, in turns.

Each engine starts once before, unmeasured: it converts, and notes in the version what later starts need not find out.

Usage: python benchmarks/server_start.py [--rounds N] [--models mlp,cnn] [--engines tensorflow,onnx] [--workers N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import contenders
from bench import rotated
from saved_models import BenchModel, make_all
from server_process import started


def measure(engine: str, model: BenchModel, num_workers: int) -> tuple[float, float]:
    """Seconds to the first answer, and MiB of all its processes after it."""
    started_s = time.perf_counter()
    with started(contenders.serve(engine=engine, num_workers=num_workers), model) as server:
        return time.perf_counter() - started_s, server.memory_mib()


def line(engine: str, found: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]) -> str:
    """The medians of an engine, their ranges, and their ratios to those of the first engine."""
    cells = []
    for number, unit in enumerate(("s", "MiB")):
        values, others = [one[number] for one in found], [one[number] for one in base]
        middle = statistics.median(values)
        ratio = middle / statistics.median(others)
        cells.append(f"{middle:.3g} {unit} ({min(values):.3g} to {max(values):.3g}), {ratio:.2f} ×")
    return f"| {engine} | {' | '.join(cells)} |"


def main() -> int:
    """Measure in turns and print a table for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="mlp")
    parser.add_argument("--engines", default="tensorflow,onnx")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    engines = options.engines.split(",")
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        names = options.models.split(",")
        models = make_all(Path(folder), names)
        for name in names:
            found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
            for engine in engines:
                measure(engine, models[name], options.workers)
            for number in range(options.rounds):
                for engine in rotated(engines, number):
                    found[engine].append(measure(engine, models[name], options.workers))
            print(f"{name}, {options.workers} workers: to the first answer, and memory after it")
            for engine in engines:
                print(line(engine, found[engine], found[engines[0]]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
