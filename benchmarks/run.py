"""Benchmark tfserve_nb beside peers on this machine.

Usage: python benchmarks/run.py [--quick] [--only PART]... [--contender NAME]... [--rounds N] [--seconds S]

Without options everything is measured, which takes an hour or more. What was measured is written to benchmarks/results/
while it runs, as JSON, and at the end as Markdown and pictures; Ctrl-C ends it early and keeps what there is.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import figures
import machine
import part_engines
import part_experiments
import part_generator
import part_kernel
import part_open
import part_ours
import part_same
import part_servers
import peer_venvs
import report
import wrk
from bench import Bench, say
from results import Results
from saved_models import MODELS, make_all

PARTS: dict[str, Callable[[Bench], None]] = {
    "same": part_same.measure,
    "cnn": part_ours.measure_cnn,
    "call": part_ours.measure_call,
    "tabular": part_engines.measure_tabular,
    "start": part_engines.measure_start,
    "size": part_engines.measure_size,
    "agreement": part_engines.measure_agreement,
    "servers": part_servers.measure,
    "open": part_open.measure,
    "core": part_ours.measure_core,
    "image": part_ours.measure_image,
    "grpc": part_kernel.measure_grpc,
    "busy": part_kernel.measure_busy,
    "dashboard": part_kernel.measure_dashboard,
    "generator": part_generator.measure,
    "experiments": part_experiments.measure,
    "memory": part_ours.measure_memory,
    "jobs": part_ours.measure_jobs,
}
GOALS = ("same", "cnn", "call", "tabular", "start", "size", "agreement")
"""The parts of the goals of engines."""
QUICK = ("same", "start")
QUICK_MODELS = part_same.QUICK_MODELS
RESULTS = Path(__file__).parent / "results"


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"less than 5 minutes: one round of {', '.join(QUICK)}")
    parser.add_argument("--goals", action="store_true", help=f"the goals of engines only: {', '.join(GOALS)}")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--contender", action="append", default=[], metavar="NAME", help="a part of its name")
    parser.add_argument(
        "--model", action="append", choices=MODELS, default=[], metavar="MODEL",
        help=f"of {', '.join(MODELS)}: measure the servers with these only",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often everything is measured (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (5; quick: 1.5)")
    parser.add_argument("--seed", type=int, default=20_240, help="of random arrivals")
    parser.add_argument("--models", type=Path, help="keep the models here instead of in a temporary folder")
    return parser.parse_args()


def main() -> int:
    """Measure, then report."""
    options = parse()
    if not wrk.is_here():
        print("wrk is missing: apt-get install wrk", file=sys.stderr)
        return 1
    RESULTS.mkdir(exist_ok=True)
    about = machine.describe() | {"peers": ", ".join(f"{name} {text}" for name, text in peer_venvs.versions().items())}
    about |= {"rounds": str(options.rounds or (1 if options.quick else 5)), "seed": str(options.seed)}
    results = Results(RESULTS / time.strftime("%Y-%m-%d-%H%M%S.json"), about)
    for name, text in about.items():
        print(f"{name}: {text}")
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        is_complete = measure(options, results, options.models or Path(folder))
    if not results.samples:
        print("nothing was measured")
        return 1
    print(report.goals_table(results))
    for path in (results.path, report.write(results), *figures.write(results)):
        print(f"written: {os.path.relpath(path)}")
    return 0 if is_complete else 130


def measure(options: argparse.Namespace, results: Results, folder: Path) -> bool:
    """Run the parts; returns whether all were completed."""
    started_s = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        say("making the models")
        bench = Bench(
            models=make_all(folder, QUICK_MODELS if options.quick and not options.only else MODELS),
            results=results,
            rounds=options.rounds or (1 if options.quick else 5),
            seconds=options.seconds or (1.5 if options.quick else 5.0),
            is_quick=options.quick,
            seed=options.seed,
            names=tuple(options.contender),
            server_models=tuple(options.model),
        )
        for part in options.only or (QUICK if options.quick else GOALS if options.goals else PARTS):
            try:
                PARTS[part](bench)
            except Exception as error:  # noqa: BLE001 - the other parts can still be measured
                results.problem(part, "all", f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured so far is kept", flush=True)
        return False
    say(f"done after {(time.perf_counter() - started_s) / 60:.1f} minutes")
    return True


if __name__ == "__main__":
    sys.exit(main())
