"""All servers under the same closed-loop load, in rounds whose order rotates."""

from __future__ import annotations

import contenders
import wrk
from bench import Bench, ask_script, rotated, say
from contenders import Contender
from saved_models import BenchModel
from server_process import NoServer, Server, started
from wire_formats import BINARY, WireFormat

CONNECTIONS = (1, 8, 64, 256)
QUICK_CONNECTIONS = (1, 64)
FEW_CONNECTIONS = (1, 64)
"""For the models whose own time rules."""
WARM_S = 1
IN_PROCESS = "ours, d.predict"
NUM_CALLS_AT_ONCE = (1, 8, 64)


def part_of(model_name: str) -> str:
    """The name that samples of a model are kept under."""
    return f"servers {model_name}"


def measure(bench: Bench) -> None:
    """Measure every contender with every model."""
    for name in bench.server_models or (("mlp",) if bench.is_quick else bench.models):
        measure_model(bench, name)


def measure_model(bench: Bench, name: str) -> None:
    """Measure every contender with one model."""
    model, part = bench.models[name], part_of(name)
    peers = contenders.peers(makes_venvs=not bench.is_quick)
    all_of_them = [one for one in (*contenders.ours(), *peers) if is_chosen(bench, one.name)]
    for one in all_of_them:
        if one.problem:
            bench.results.problem(part, one.name, one.problem)
    able = [one for one in all_of_them if not one.problem]
    for number in range(bench.rounds):
        for one in rotated(able, number):
            measure_contender(bench, one, model, number)
        if is_chosen(bench, IN_PROCESS):
            measure_in_process(bench, model, number)


def is_chosen(bench: Bench, name: str) -> bool:
    """Whether a contender is to be measured."""
    return not bench.names or any(part.lower() in name.lower() for part in bench.names)


def measure_contender(bench: Bench, one: Contender, model: BenchModel, number: int) -> None:
    """Start it, load it with more and more connections, stop it."""
    say(f"{model.name}, round {number + 1} of {bench.rounds}: {one.name}")
    part = part_of(model.name)
    try:
        with started(one, model) as server:
            load_all(bench, server, part, one.name, number, one.wire)
            if BINARY.name in one.paths and model.name in ("image", "mobilenet", "mlp"):
                load_binary(bench, server, part, number)
    except (NoServer, wrk.LoadFailed) as error:
        bench.results.problem(part, one.name, str(error))


def load_binary(bench: Bench, server: Server, part: str, number: int) -> None:
    """The same with binary bodies, for servers that take them."""
    case = f"{server.contender.name}, binary"
    try:
        server.check(wire=BINARY)
    except NoServer as error:
        bench.results.problem(part, case, str(error))
        return
    load_all(bench, server, part, case, number, BINARY)


def load_all(bench: Bench, server: Server, part: str, case: str, number: int, wire: WireFormat) -> None:
    """Every number of connections."""
    target = server.target(wire=wire)
    few = server.model.name not in ("mlp", "identity")
    wanted = QUICK_CONNECTIONS if bench.is_quick else FEW_CONNECTIONS if few else CONNECTIONS
    for connections in wanted:
        wrk.run(target, connections, WARM_S)
        load = wrk.run(target, connections, bench.seconds)
        bench.results.add(part, case, number, **load.at(connections))
        print(
            f"  {case:28} {connections:4} connections {load.rate:10,.0f}/s  p50 {load.p50_ms:8.2f} ms  "
            f"p99 {load.p99_ms:8.2f} ms",
            flush=True,
        )


def measure_in_process(bench: Bench, model: BenchModel, number: int) -> None:
    """`d.predict` from threads: our server without HTTP."""
    say(f"{model.name}, round {number + 1} of {bench.rounds}: {IN_PROCESS}")
    wanted = QUICK_CONNECTIONS if bench.is_quick else NUM_CALLS_AT_ONCE
    try:
        values = ask_script("in_process.py", model.version, bench.seconds, *wanted)
    except RuntimeError as error:
        bench.results.problem(part_of(model.name), IN_PROCESS, str(error))
    else:
        bench.results.add(part_of(model.name), IN_PROCESS, number, **values)
