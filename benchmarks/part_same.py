"""The same SavedModel in every server: rows per second with requests of one row, and of 32 rows as binary tensors.

All servers of a model are started first and stay; in each round they are loaded in turn, one directly after the other.
So a ratio within a round compares two measurements that are seconds apart, on a machine that others may use too.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from dataclasses import dataclass

import contenders
import numpy as np
import wrk
from bench import Bench, ask_script, rotated, say
from part_servers import WARM_S, is_chosen
from saved_models import BenchModel
from server_process import NoServer, Server, started
from wire_formats import BINARY

MODELS = ("mlp", "cnn", "lstm", "transformer", "mobilenet", "tabular")
QUICK_MODELS = ("mlp", "cnn")
QUICK_SERVERS = (contenders.KERNEL, contenders.KERNEL_AUTO, contenders.SERVE, "PyTriton")
SLOW_MODELS = ("mobilenet",)
"""They are asked over fewer connections and for longer: on a busy machine 32 rows take seconds. Warming them up takes
as long, because TensorFlow repeats the first runs of an engine to compare."""

SLOW_FACTOR, SLOWEST_FACTOR = 2, 6
"""By how much longer, with requests of one row and of many."""


@dataclass(frozen=True)
class SameLoad:
    """How all servers are loaded.

    Attributes:
        name: in names of samples.
        rows: of a request.
        connections: how many.
        is_binary: whether only servers that take binary tensors are loaded.
    """

    name: str
    rows: int
    connections: int
    is_binary: bool


ONE_ROW, MANY_ROWS = SameLoad("1", 1, 64, is_binary=False), SameLoad("32", 32, 8, is_binary=True)
ALONE = SameLoad("alone", 1, 1, is_binary=True)
"""For the time of a run: nothing else is under way."""


def part_of(model_name: str) -> str:
    """The name that samples of a model are kept under."""
    return f"same {model_name}"


def measure(bench: Bench) -> None:
    """Measure every server with every model."""
    for name in bench.server_models or (QUICK_MODELS if bench.is_quick else MODELS):
        measure_model(bench, bench.models[name])


def measure_model(bench: Bench, model: BenchModel) -> None:
    """Start every server, load them in turns, stop them."""
    part = part_of(model.name)
    say(f"{model.name}: converting for engines, once; calls without a server")
    found = ask_script("engine_call.py", model.version, bench.seconds, "--calls")
    for size, calls in found["in_turns"].items():
        for case, took in calls.items():
            bench.results.add(part, case, 0, **{f"{what}@{size}": value for what, value in took.items()})
    print(f"  {found['engine']} is chosen")
    peers = contenders.peers(makes_venvs=not bench.is_quick, engines=True)
    wanted = [one for one in (*contenders.with_engines(), *peers) if is_chosen(bench, one.name)]
    if bench.is_quick:
        wanted = [one for one in wanted if one.name in QUICK_SERVERS]
    with contextlib.ExitStack() as stack:
        servers: list[Server] = []
        for one in wanted:
            try:
                servers.append(stack.enter_context(started(one, model)))
                servers[-1].asleep()
                say(f"{model.name}: {one.name} answers")
            except NoServer as error:
                bench.results.problem(part, one.name, str(error))
        for number in range(bench.rounds):
            say(f"{model.name}, round {number + 1} of {bench.rounds}, load average {os.getloadavg()[0]:.1f}")
            bench.results.add("load", model.name, number, average=os.getloadavg()[0])
            for load in (ONE_ROW, MANY_ROWS, ALONE):
                for server in rotated(servers.copy(), number):
                    measure_server(bench, servers, server, load, number)


def measure_server(bench: Bench, servers: list[Server], server: Server, load: SameLoad, number: int) -> None:
    """One load of one server; one whose answers are wrong or missing is left out from then on."""
    one, name = server.contender, server.model.name
    if (load.is_binary and BINARY.name not in one.paths) or (load == ALONE and not server.info.get("token")):
        return
    is_image = name in SLOW_MODELS and BINARY.name in one.paths
    target = server.target(load.rows, BINARY if load.is_binary or is_image else None)
    connections, seconds = load.connections, bench.seconds
    if name in SLOW_MODELS:
        connections = min(connections, 8 if load.rows == 1 else 2)
        seconds *= SLOW_FACTOR if load.rows == 1 else SLOWEST_FACTOR
    try:
        with server.awake():
            if number == 0 or one.polls:
                server.check(load.rows, BINARY if load.is_binary or is_image else None)
                with contextlib.suppress(wrk.LoadFailed):  # a slow one may answer none in this time
                    wrk.run(target, connections, seconds if name in SLOW_MODELS else WARM_S)
            used_s = server.processor_s()
            found = wrk.run(target, connections, seconds)
            rows = found.requests * load.rows
            used_us = 1e6 * (server.processor_s() - used_s) / rows
    except (NoServer, wrk.LoadFailed) as error:
        bench.results.problem(part_of(name), one.name, f"{load.name} rows: {error}")
        servers.remove(server)
        return
    rate = found.rate * load.rows
    values = {f"rows@{load.name}": rate, f"p50@{load.name}": found.p50_ms, f"cpu@{load.name}": used_us}
    if load == ALONE:
        values["run@alone"] = run_ms(server, round(seconds))
    bench.results.add(part_of(name), one.name, number, **values)
    print(f"  {one.name:30} {load.name:>5}: {rate:10,.0f} rows/s, {used_us:9,.1f} µs of processor a row", flush=True)


def run_ms(server: Server, seconds: int) -> float:
    """The mean time of a run in the last full seconds, as the server's own metrics tell."""
    url = f"http://127.0.0.1:{server.port}/tfserve/v1/models/bench/metrics?span_s={seconds}&step_s=1"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {server.info['token']}"})
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own server
        (version,) = json.load(response)["versions"].values()
    known = [value for value in version["series"]["phases_ms"]["run"] if value is not None]
    return float(np.mean(known)) if known else float("nan")
