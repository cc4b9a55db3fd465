"""What a thousand requests cost as the load grows: measured with one server here, simulated with many replicas.

Usage: python benchmarks/scaling.py measure RESULTS.json [--rounds N] [--seconds S]
       python benchmarks/scaling.py figure RESULTS.json [docs/figures/scaling.svg]

Measured is the processor time of a request in all processes of `tfserve-nb serve`, the client not counted, with more
and more connections that ask as fast as they are answered. It falls because requests that wait are answered in one
turn: with N connections a request costs what is paid for each request, and an Nth of what is paid for each turn. A line
through these costs gives both numbers, and they are all that `replica_queue.py` is told of a server.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import contenders
import machine
import numpy as np
import wrk
from bench import rotated
from replica_queue import Cost, latencies, needed
from saved_models import make_all
from server_process import NoServer, Server, started

CONNECTIONS = (1, 4, 16, 64, 256)
CASES = (("mlp", 0), ("mlp", 2), ("cnn", 0), ("cnn", 2), ("transformer", 0))
"""Model and workers."""

LIMIT_S = 0.1
"""What 99 % of the requests may take."""

MOST_REPLICAS = 64
SHOWN_REPLICAS = (1, 2, 4, 8, 16, 32, 64)
COLORS = {"mlp": "#2a91d8", "cnn": "#b8480c", "transformer": "#12807a"}
"""Those of the models that are measured."""

NAMES = {"mlp": "MLP", "cnn": "CNN", "transformer": "transformer"}


def measure(path: Path, rounds: int, seconds: float) -> None:
    """Load the servers in turns, and write what a request cost."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        models = make_all(Path(folder), COLORS)
        for number in range(rounds):
            for name, workers in rotated(CASES, number):
                case = found.setdefault(f"{name}, {workers} workers", {})
                try:
                    with started(contenders.serve(num_workers=workers), models[name]) as server:
                        _add_costs(case, server, seconds, f"round {number + 1}: {name}, {workers} workers")
                except NoServer as error:  # a busy machine; the other rounds count
                    print(f"round {number + 1}: {name}, {workers} workers: {error}")
                path.write_text(json.dumps({"conditions": machine.describe(), "costs": found}, indent=1))


def _add_costs(case: dict[str, list[dict[str, float]]], server: Server, seconds: float, called: str) -> None:
    """One more measurement for each number of connections, but for those whose requests were not all answered."""
    for connections in CONNECTIONS:
        try:
            cost = _cost(server, connections, seconds)
        except wrk.LoadFailed as error:
            print(f"{called}, {connections} connections: {error}")
            continue
        case.setdefault(str(connections), []).append(cost)
        print(f"{called}, {connections} connections: {cost}")


def _cost(server: Server, connections: int, seconds: float) -> dict[str, float]:
    """Requests per second, and processor milliseconds of a request."""
    target = server.target()
    wrk.run(target, connections, 1)
    before_s = server.processor_s()
    load = wrk.run(target, connections, seconds)
    return {"rate": load.rate, "ms": 1e3 * (server.processor_s() - before_s) / load.requests}


def fitted(costs: dict[str, list[dict[str, float]]]) -> Cost:
    """What is paid for a turn and for a request: a line through the medians of the costs, by relative errors."""
    connections = np.array([int(number) for number in costs])
    ms = np.array([np.median([one["ms"] for one in measured]) for measured in costs.values()])
    columns = np.stack([1 / connections, np.ones(len(ms))], axis=1)
    (turn_ms, request_ms), *_ = np.linalg.lstsq(columns / ms[:, None], np.ones(len(ms)), rcond=None)
    return Cost(max(float(turn_ms), 0.0) * 1e-3, float(request_ms) * 1e-3)


def simulated(cost: Cost) -> list[tuple[float, int]]:
    """Rates, and the replicas that they need; rates grow until `MOST_REPLICAS` are not enough."""
    found, replicas, rate = [], 1, 0.01 * cost.most
    while (more := needed(rate, cost, LIMIT_S, at_least=replicas, at_most=MOST_REPLICAS)) is not None:
        replicas = more
        found.append((rate, replicas))
        rate *= 1.15
    return found


def draw(results: dict[str, Any], target: Path) -> None:
    """What was measured on the left, what was simulated on the right."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({
        "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
        "svg.hashsalt": "scaling", "axes.titleweight": "bold", "axes.titlelocation": "left",
    })  # fmt: skip
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for case, costs in results["costs"].items():
        _measured_line(left, case, costs)
    _finish(left, "Measured: one server, two cores", "connections that ask as fast as they are answered",
            "processor seconds of a thousand requests")  # fmt: skip
    left.set_xticks(CONNECTIONS, [str(number) for number in CONNECTIONS])
    for name in COLORS:
        cost = fitted(results["costs"][f"{name}, 0 workers"])
        _simulated_line(right, name, cost)
        print(f"{name}: {1e6 * cost.turn_s:.0f} µs a turn, {1e6 * cost.request_s:.0f} µs a request")
        _tell(cost)
    _finish(right, f"SIMULATED: 1 to {MOST_REPLICAS} replicas of one core", "requests per second",
            "core seconds paid for a thousand requests")  # fmt: skip
    figure.savefig(target)
    print(target)


def _measured_line(axes: Any, case: str, costs: dict[str, list[dict[str, float]]]) -> None:
    name, workers = case.split(", ")
    is_plain = workers.startswith("0")
    connections = sorted(map(int, costs))
    values = [[one["ms"] for one in costs[str(number)]] for number in connections]
    middle = [float(np.median(one)) for one in values]
    style = {"marker": "o"} if is_plain else {"marker": "s", "linestyle": ":"}
    label = NAMES[name] + ("" if is_plain else f", {workers}")
    axes.plot(connections, middle, color=COLORS[name], label=label, **style)
    axes.vlines(
        connections, [min(one) for one in values], [max(one) for one in values], color=COLORS[name], linewidth=1
    )


def _simulated_line(axes: Any, name: str, cost: Cost) -> None:
    points = simulated(cost)
    axes.plot([rate for rate, _ in points], [1e3 * count / rate for rate, count in points], color=COLORS[name],
              label=NAMES[name])  # fmt: skip
    for number in SHOWN_REPLICAS:
        rates = [rate for rate, count in points if count <= number]
        if rates:
            axes.plot(rates[-1], 1e3 * number / rates[-1], marker="o", color=COLORS[name], markersize=4)
            axes.annotate(str(number), (rates[-1], 1e3 * number / rates[-1]), textcoords="offset points", xytext=(0, 6),
                          ha="center", fontsize=8, color=COLORS[name])  # fmt: skip


def _tell(cost: Cost) -> None:
    """The largest load that some numbers of replicas take, for the text."""
    points = simulated(cost)
    for number in SHOWN_REPLICAS:
        rates = [rate for rate, count in points if count <= number]
        p99_ms = 1e3 * np.percentile(latencies(rates[-1], number, cost), 99)
        paid_s = 1e3 * number / rates[-1]
        print(f"  {number} replicas: {rates[-1]:,.0f} requests/s, {paid_s:.3g} core seconds, p99 {p99_ms:.0f} ms")


def _finish(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9.5)


def main() -> int:
    """Measure, or draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("measure", "figure"))
    parser.add_argument("results", type=Path)
    parser.add_argument("target", type=Path, nargs="?", default=Path("docs/figures/scaling.svg"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.results, options.rounds, options.seconds)
    else:
        draw(json.loads(options.results.read_text()), options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
