"""What several named inputs cost: ten numbers a row as ten inputs, relative to one input of ten numbers.

Usage: python benchmarks/tabular.py [--rounds N] [--seconds S]

Both models are the same small network, served by the core in this process; the way goes from the bytes of a request to
the bytes of its answer, without sockets (`path_cost.py`). The cases run in turns. Processor time counts all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from path_cost import run_loop
from saved_models import COLUMNS, tabular

from tfserve_nb.server import interpreter
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource

IN_FLIGHT = 64
ROWS = (1, 32)


def write_models(folder: Path) -> None:
    """A network on ten numbers, which come as one input, as ten, or as ten with a dimension of their own."""
    for name, shape in {"one": None, "scalars": (), "columns": (1,)}.items():
        tabular(shape).export(str(folder / name / "1"), verbose=False)


def bodies(rows: np.ndarray) -> dict[str, tuple[str, Any]]:
    """Case -> its model and the JSON of a request with these rows."""
    values = rows.tolist()
    tensors = [
        {"name": name, "shape": [len(rows), 1], "datatype": "FP32", "data": column}
        for name, column in zip(COLUMNS, rows.T.tolist(), strict=True)
    ]
    whole = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.reshape(-1).tolist()}
    named = [dict(zip(COLUMNS, row, strict=True)) for row in values]
    nested = [{name: [value] for name, value in row.items()} for row in named]
    return {
        "one input": ("one", {"instances": values}),
        "objects": ("scalars", {"instances": named}),
        "objects of lists": ("columns", {"instances": nested}),
        "named columns": ("scalars", {"inputs": dict(zip(COLUMNS, rows.T.tolist(), strict=True))}),
        "V2, one input": ("one", {"inputs": [whole]}),
        "V2, ten inputs": ("columns", {"inputs": tensors}),
    }


def request_of(model: str, value: Any) -> bytes:
    """The bytes of a request."""
    body = json.dumps(value).encode()
    uri = f"/v1/models/{model}:predict" if "inputs" not in value or isinstance(value["inputs"], dict) else ""
    head = (
        f"POST {uri or f'/v2/models/{model}/infer'} HTTP/1.1\r\nHost: localhost:8501\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer secret\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> int:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        code = "import sys, pathlib, tabular; tabular.write_models(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, folder], check=True, env=environment, cwd=Path(__file__).parent)
        interpreter.server_starts()
        core = ServingCore()
        core.start()
        for path in sorted(Path(folder).iterdir()):
            core.deploy(path.name, 1, VersionSource(path / "1", BatchingOptions()), Path(folder), Placement())
        measure(core, options.rounds, options.seconds)
        core.stop()
    return 0


def measure(core: ServingCore, rounds: int, seconds: float) -> None:
    """Print what each case costs, and its rate and processor time relative to one input by the same protocol."""
    rng = np.random.default_rng(0)
    for num_rows in ROWS:
        cases = bodies(rng.random((num_rows, len(COLUMNS))).round(4))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (model, value) in cases.items():
                request = request_of(model, value)
                started_s, wall_s = time.process_time(), time.perf_counter()
                rate = run_loop(core, request, IN_FLIGHT, seconds)
                used_s, took_s = time.process_time() - started_s, time.perf_counter() - wall_s
                found[name].append((rate, 1e6 * used_s / (rate * took_s)))
        for name, samples in found.items():
            base = found["V2, one input" if name.startswith("V2") else "one input"]
            rates, used = zip(*samples, strict=True)
            ratios = [mine[0] / theirs[0] for mine, theirs in zip(samples, base, strict=True)]
            costs = [theirs[1] / mine[1] for mine, theirs in zip(samples, base, strict=True)]
            print(
                f"{num_rows:2} rows, {name:16} {statistics.median(rates):8,.0f}/s {statistics.median(used):7.1f} µs; "
                f"rate {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}), "
                f"processor time {statistics.median(costs):.2f} ({min(costs):.2f}-{max(costs):.2f}) of one input",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
