"""How often verdicts of A/B tests are wrong: simulations on the real batch queues, with pictures.

Usage: python benchmarks/experiments.py [--runs N] [--quick] [--only identical|slower|tail]... [--out docs/figures]

First, identical versions are compared many times, with repeated looks: how often is a difference reported that does not
exist? Then B is made slower: how many requests are needed to find this? The numbers are printed as Markdown
(`docs/experiments.md` has them), the pictures saved as experiments-aa.svg and experiments-power.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import matplotlib as mpl
import numpy as np
from helpers.traffic_world import Traffic, World, plan_for
from scipy.stats import mannwhitneyu

from tfserve_nb.experiment.engine.evaluate import evaluate

mpl.use("svg")
import matplotlib.pyplot as plt

EVERY = 100
"""Requests between two looks; at 400 a second, the server itself looks half as often."""
NAIVE_EVERY = 200
ALPHA = 0.05
DARK, LIGHT, ACCENT, WARN = "#263238", "#90a4ae", "#00796b", "#c62828"
NEVER = math.inf

WORLDS = {
    "half and half": World(),
    "a quiet machine": World(wave=0.0, drift=0.0, outliers=0.0),
    "a restless machine": World(wave=0.3, drift=0.3, outliers=0.02),
    "B gets 10 %": World(percent=10),
    "B gets 90 %": World(percent=90),
    "B gets 2 %": World(percent=2),
    "large batches": World(rate=1200),
    "idle device": World(rate=60),
    "200 clients, each kept with its version": World(clients=200),
    "3 % of requests fail": World(fails_a=0.03, fails_b=0.03),
}
PARTS = ("slower", "tail", "identical")
EFFECTS = (0.05, 0.1, 0.2)


@dataclass
class Watch:
    """When each method first found a difference, in requests of both arms; infinite for never."""

    latency: float = NEVER
    rollback: float = NEVER
    srm: float = NEVER
    tail: float = NEVER
    errors: float = NEVER
    per_arm: float = NEVER
    mann_whitney: float = NEVER
    mann_whitney_once: bool = False
    z_test: float = NEVER


def watch(world: World, seed: int, num_requests: int, *, metric: str = "latency", every: int = EVERY) -> Watch:
    """Watch one comparison."""
    traffic = Traffic(world, plan_for(world, metric), seed)
    seen = Watch()
    for requests in traffic.looks(num_requests, every):
        reading = evaluate(traffic.observations, traffic.now_s)
        for name, estimate in (("latency", reading.latency), ("tail", reading.tail), ("errors", reading.errors)):
            if estimate is not None and (estimate.low > 0 or estimate.high < 0):
                setattr(seen, name, min(getattr(seen, name), requests))
        if reading.verdict.decision == "rollback" and seen.rollback == NEVER:
            seen.rollback = requests
            seen.per_arm = min(len(traffic.latencies["a"]), len(traffic.latencies["b"]))
        if reading.srm.is_mismatch:
            seen.srm = min(seen.srm, requests)
        if requests % NAIVE_EVERY < every:
            look_naively(traffic, seen, requests)
        if world.effect and seen.rollback < NEVER:
            break
    return seen


def look_naively(traffic: Traffic, seen: Watch, requests: int) -> None:
    """The results of tests that treat requests as independent, or batches without a correction for repeated looks."""
    a, b = (traffic.latencies[arm] for arm in ("a", "b"))
    if min(len(a), len(b)) >= 20:
        p = float(mannwhitneyu(a, b).pvalue)
        seen.mann_whitney_once = p < ALPHA
        if p < ALPHA:
            seen.mann_whitney = min(seen.mann_whitney, requests)
    times = [np.log([run_s for name, _, run_s in traffic.batches if name == arm]) for arm in ("a", "b")]
    if min(map(len, times)) >= 20:
        error = math.sqrt(sum(one.var(ddof=1) / len(one) for one in times))
        if abs(times[1].mean() - times[0].mean()) > 1.96 * error:
            seen.z_test = min(seen.z_test, requests)


def repeat(what: str, runs: int, one: Callable[[int], Watch]) -> list[Watch]:
    """Run it with other random numbers each time."""
    started_s = time.perf_counter()
    found = [one(seed) for seed in range(runs)]
    print(f"{what}: {runs} runs in {time.perf_counter() - started_s:.0f} s", file=sys.stderr, flush=True)
    return found


def share(found: list[Watch], name: str) -> float:
    """Share of runs in which a method found a difference."""
    return float(np.mean([getattr(one, name) < NEVER for one in found]))


def identical(runs: int, more_runs: int, num_requests: int) -> list[Watch]:
    """The table of false alarms; the first world's runs."""
    print(f"\n{num_requests} requests, looked at every {EVERY}\n")
    print("| identical versions | runs | rolled back | difference of run times | of errors | split called wrong "
          "| Mann-Whitney on requests, one look | looked at again and again |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    first: list[Watch] = []
    for name, world in WORLDS.items():
        number = more_runs if first else runs
        found = repeat(name, number, lambda seed, world=world: watch(world, seed, num_requests))  # type: ignore[misc]
        first = first or found
        cells = [f"{100 * share(found, what):.1f} %" for what in ("rollback", "latency", "errors", "srm")]
        once = float(np.mean([one.mann_whitney_once for one in found]))
        cells += [f"{100 * one:.0f} %" for one in (once, share(found, "mann_whitney"))]
        print(f"| {name} | {number} | {' | '.join(cells)} |", flush=True)
    return first


def slower(runs: int, num_requests: int) -> dict[float, list[Watch]]:
    """The table of power."""
    print("\n| B takes longer by | runs | rolled back | requests of each version until then: median | 90 % of runs |")
    print("|---|---|---|---|---|")
    found = {}
    for effect in EFFECTS:
        world = replace(World(), effect=effect)
        found[effect] = repeat(f"+{effect:.0%}", runs, lambda seed, world=world: watch(world, seed, num_requests))  # type: ignore[misc]
        needed = np.sort([one.per_arm for one in found[effect]])
        median, most = (needed[min(len(needed) - 1, int(q * len(needed)))] for q in (0.5, 0.9))
        print(f"| {100 * effect:.0f} % | {runs} | {100 * share(found[effect], 'rollback'):.0f} % | {_number(median)} "
              f"| {_number(most)} |", flush=True)  # fmt: skip
    return found


def tails(runs: int) -> None:
    """The table of the tail, which needs more time."""
    print("\n| p95, one minute | runs | difference seen at any look | rolled back |")
    print("|---|---|---|---|")
    for name, world in (
        ("identical, half and half", World()),
        ("identical, restless machine", World(wave=0.3, drift=0.3, outliers=0.02)),
        ("identical, B gets 10 %", World(percent=10)),
        ("B has 5 % more slow runs", World(outliers_b=0.05)),
    ):
        found = repeat(name, runs, lambda seed, world=world: watch(world, seed, 24_000, metric="p95", every=800))  # type: ignore[misc]
        print(f"| {name} | {runs} | {100 * share(found, 'tail'):.1f} % | {100 * share(found, 'rollback'):.1f} % |",
              flush=True)  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "more than were sent"


def draw_alarms(found: list[Watch], num_requests: int, path: Path) -> None:
    """Share of false alarms over the number of requests, for each method."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, label, colour in (
        ("mann_whitney", "Mann-Whitney on requests", WARN),
        ("z_test", "z-test on batches", LIGHT),
        ("latency", "always-valid interval (ours)", ACCENT),
        ("rollback", "rolled back (all metrics)", DARK),
    ):
        at = np.sort([getattr(one, name) for one in found])
        at = at[np.isfinite(at)]
        shares = np.arange(1, len(at) + 1) / len(found)
        axes.step([0, *at, num_requests], [0, *(100 * shares), 100 * len(at) / len(found)], where="post", color=colour)
        above = {"latency": 9, "rollback": -5}.get(name, 0)
        axes.annotate(label, (num_requests * 1.06, 100 * len(at) / len(found)), xytext=(4, above),
                      textcoords="offset points", color=colour, va="center", fontsize=9)  # fmt: skip
    axes.axhline(100 * ALPHA, color=DARK, linewidth=0.7, linestyle=":")
    axes.set_xlim(0, num_requests * 1.45)
    axes.set_xlabel("requests so far, looked at all the time")
    axes.set_ylabel("% of comparisons alarmed")
    axes.set_title(f"Two identical versions, {len(found)} comparisons", loc="left", fontsize=10)
    _plain(figure, axes, path)


def draw_power(found: dict[float, list[Watch]], path: Path) -> None:
    """Share of rollbacks over the number of requests of each version."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for (effect, runs), colour in zip(found.items(), (LIGHT, ACCENT, DARK), strict=True):
        at = np.sort([one.per_arm for one in runs])
        at = at[np.isfinite(at)]
        axes.step([0, *at], [0, *(100 * np.arange(1, len(at) + 1) / len(runs))], where="post", color=colour,
                  label=f"B takes {100 * effect:.0f} % longer")  # fmt: skip
    axes.axhline(50, color=DARK, linewidth=0.7, linestyle=":")
    axes.axvline(600, color=DARK, linewidth=0.7, linestyle=":")
    axes.set_xlim(0, 1500)
    axes.set_xlabel("requests of each version")
    axes.set_ylabel("% of comparisons that rolled B back")
    axes.legend(frameon=False)
    _plain(figure, axes, path)


def _plain(figure: Any, axes: Any, path: Path) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Simulate, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000, help="comparisons of identical versions (2000)")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part, instead of all")
    parser.add_argument("--quick", action="store_true", help="a twentieth of it")
    parser.add_argument("--json", action="store_true", help="the main numbers as JSON in the last line")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="where pictures go")
    options = parser.parse_args()
    runs = max(20, options.runs // (20 if options.quick else 1))
    num_requests = 2000
    parts = options.only or PARTS
    numbers: dict[str, dict[str, float]] = {}
    if "slower" in parts:
        by_effect = slower(max(20, runs // 10), 6000)
        draw_power(by_effect, options.out / "experiments-power.svg")
        numbers["B takes 10 % longer"] = {"requests_per_arm": float(np.median([one.per_arm for one in by_effect[0.1]]))}
    if "tail" in parts:
        tails(max(10, runs // 40))
    if "identical" in parts:
        found = identical(runs, max(20, runs // 20), num_requests)
        draw_alarms(found, num_requests, options.out / "experiments-aa.svg")
        numbers["identical versions"] = {
            "rolled_back_pct": 100 * share(found, "rollback"),
            "alarmed_pct": 100 * share(found, "latency"),
            "naive_pct": 100 * share(found, "mann_whitney"),
        }
    if options.json:
        print(json.dumps(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
