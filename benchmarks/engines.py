"""What a run takes in each engine, as `--engine auto` measures it: a table of milliseconds by batch size.

Usage: python benchmarks/engines.py [--rounds N] [--models mlp,cnn,lstm,transformer,mobilenet] [--sizes 1,8,32]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import saved_models

from tfserve_nb.export.saved_model import export_version
from tfserve_nb.serving.engines.accelerated import EngineServable
from tfserve_nb.serving.engines.artefacts import this_machine
from tfserve_nb.serving.engines.engine import AUTO, versions_of
from tfserve_nb.serving.engines.kinds import KINDS
from tfserve_nb.serving.engines.selection import BatchSizes, accelerate
from tfserve_nb.serving.versions.acceleration import known_rows

MODELS: dict[str, Callable[[], Any]] = {
    "mlp": saved_models.mlp,
    "cnn": saved_models.cnn,
    "lstm": saved_models.lstm,
    "transformer": saved_models.transformer,
    "mobilenet": saved_models.mobilenet,
}


def rows_of(model: str, sizes: tuple[int, ...], rounds: int) -> list[str]:
    """The lines of a model's table: the median of several measurements, and how often each engine was chosen."""
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    chosen: dict[str, int] = defaultdict(int)
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        servable = EngineServable(export_version(MODELS[model](), Path(folder), "model").path)
        for _ in range(rounds):
            accelerate(servable, AUTO, known_rows(servable), BatchSizes(sizes), measures_all=True)
            chosen[servable.engine_of("serving_default")] += 1
            for row in servable.measurements:
                if row.ms is not None:
                    took[row.engine, row.batch_size].append(row.ms)
                elif not row.agrees:
                    reasons[row.engine] = row.reason
        servable.close()
    lines = []
    for engine in ("tensorflow", *KINDS):
        if engine in reasons:
            lines.append(f"| {model} | {engine} |{' |' * len(sizes)} {reasons[engine]} |")
            continue
        cells = [f"{statistics.median(took[engine, size]):.3g}" if took[engine, size] else "" for size in sizes]
        lines.append(f"| {model} | {engine} | {' | '.join(cells)} | chosen {chosen[engine]} of {rounds} times |")
    return lines


def main() -> None:
    """Print the tables of all models."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="mlp,cnn,lstm,transformer")
    parser.add_argument("--sizes", default="1,8,32")
    chosen = parser.parse_args()
    sizes = tuple(int(size) for size in chosen.sizes.split(","))
    print(f"{this_machine()}; Python {sys.version.split()[0]}; {versions_of(KINDS.values())}")
    headings = " | ".join(f"{size} rows, ms" for size in sizes)
    print(f"| model | engine | {headings} | |\n|---|---|{'---|' * (len(sizes) + 1)}")
    for model in chosen.models.split(","):
        print("\n".join(rows_of(model, sizes, chosen.rounds)), flush=True)


if __name__ == "__main__":
    main()
