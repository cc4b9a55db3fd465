"""Processor time of a request by process, with 0, 1 and 2 workers, from which the limit with more cores follows.

Usage: python benchmarks/process_cost.py [--rounds N] [--seconds S] [--connections C]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import contenders
import psutil
import wrk
from saved_models import BenchModel, make_all
from server_process import started


def spent_s(pid: int) -> dict[str, float]:
    """Processor seconds so far of the serving process and of its workers together."""
    core = psutil.Process(pid)
    front = [child.cpu_times() for child in core.children(recursive=True)]
    times = core.cpu_times()
    return {"core": times.user + times.system, "workers": sum(one.user + one.system for one in front)}


def measure(num_workers: int, model: BenchModel, connections: int, seconds: float) -> tuple[float, dict[str, float]]:
    """Requests per second, and microseconds of a request by process."""
    with started(contenders.serve(num_workers), model) as server:
        target = server.target()
        wrk.run(target, connections, 1)
        before = spent_s(server.process.pid)
        load = wrk.run(target, connections, seconds)
        after = spent_s(server.process.pid)
    num_requests = load.rate * max(1, round(seconds))
    return load.rate, {name: 1e6 * (after[name] - before[name]) / num_requests for name in after}


def main() -> int:
    """Measure in turns and print every round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        model = make_all(Path(folder))["mlp"]
        for number in range(options.rounds):
            for num_workers in (0, 1, 2):
                rate, cost_us = measure(num_workers, model, options.connections, options.seconds)
                costs = ", ".join(f"{name} {value:.1f} µs" for name, value in cost_us.items())
                print(f"round {number + 1}, {num_workers} workers: {rate:,.0f} requests/s, {costs}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
