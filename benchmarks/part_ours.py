"""Our server compared with its limits: the bare model, the offline batch loop, the cost of our own Python code."""

from __future__ import annotations

import contextlib

import contenders
import wrk
from bench import Bench, ask_script, rotated, say
from part_servers import WARM_S
from server_process import NoServer, Server, started
from wire_formats import BINARY, V1

CNN_LOADS = (
    ("requests of 1, JSON", 1, V1, 512),
    ("requests of 32, JSON", 32, V1, 24),
    ("requests of 32, binary", 32, BINARY, 24),
)
"""Name, rows of a request, body format, connections: 512 rows or more are always on their way."""


def measure_call(bench: Bench) -> None:
    """One connection to servers that stay, and the bare call of the same model in the same round."""
    model = bench.models["mlp"]
    with contextlib.ExitStack() as stack:
        servers = []
        ask_script("engine_call.py", model.version, 0.1, "--calls")
        for one in contenders.with_engines():
            try:
                servers.append(stack.enter_context(started(one, model)))
            except NoServer as error:
                bench.results.problem("call", one.name, str(error))
        for number in range(bench.rounds):
            say(f"call, round {number + 1} of {bench.rounds}")
            bare = ask_script("bare_model.py", model.version, bench.seconds / 4)
            bench.results.add("call", "bare model", number, **bare)
            engine = ask_script("engine_call.py", model.version, bench.seconds / 4)
            bench.results.add("call", "engine", number, call_ms=engine["call_ms"])
            for server in rotated(servers, number):
                wrk.run(server.target(), 1, WARM_S)
                p50_ms = wrk.run(server.target(), 1, bench.seconds).p50_ms
                bench.results.add("call", server.contender.name, number, p50_ms=p50_ms, over_ms=p50_ms - bare["p50_ms"])


def measure_cnn(bench: Bench) -> None:
    """Rows per second under load beside the best that a loop over batches gets from the same model and engine.

    The server gets the loop's best batch as its `max_batch_size`.
    """
    model = bench.models["cnn"]
    for engine, script in (("tensorflow", "bare_model.py"), ("auto", "engine_call.py")):
        best = ask_script(script, model.version, bench.seconds / 4)
        one = contenders.in_kernel(max_batch_size=int(best["best_batch"]), engine=engine)
        try:
            with started(one, model) as server:
                for number in range(bench.rounds):
                    say(f"cnn, {engine}, round {number + 1} of {bench.rounds}")
                    _load_cnn(bench, server, number, engine, script)
        except (NoServer, wrk.LoadFailed) as error:
            bench.results.problem("cnn", one.name, str(error))


def _load_cnn(bench: Bench, server: Server, number: int, engine: str, script: str) -> None:
    best = ask_script(script, server.model.version, bench.seconds / 4)
    bench.results.add("cnn", f"{engine}, offline batch loop", number, rows_per_s=best["best_rows_per_s"])
    for name, num_rows, wire, connections in CNN_LOADS:
        server.check(num_rows, wire)
        target = server.target(num_rows, wire)
        wrk.run(target, connections, WARM_S)
        rate = num_rows * wrk.run(target, connections, bench.seconds).rate
        bench.results.add("cnn", f"{engine}, {name}", number, rows_per_s=rate)


def measure_core(bench: Bench) -> None:
    """The core alone and the way from bytes to bytes, without sockets and TensorFlow, on one core."""
    say("core")
    for number in range(bench.rounds):
        found = ask_script("path_cost.py", "--rounds", 1, "--json")
        for case, rate in found.items():
            bench.results.add("core", case, number, rate=rate)


def measure_image(bench: Bench) -> None:
    """An image of 224×224×3 from its text to an array."""
    say("image")
    for number in range(bench.rounds):
        found = ask_script("image_parse.py", bench.seconds)
        for case, took_ms in found.items():
            bench.results.add("image", case, number, ms=took_ms)


def measure_memory(bench: Bench) -> None:
    """Memory of a process over many deploys of new versions."""
    say(f"memory: {20 if bench.is_quick else 200} version swaps")
    found = ask_script("version_swaps.py", bench.models["mlp"].version, 20 if bench.is_quick else 200)
    bench.results.add("memory", "version swaps", 0, **found)


def measure_jobs(bench: Bench) -> None:
    """Loading the extension, deploying, rolling back."""
    for number in range(bench.rounds):
        say(f"jobs, round {number + 1} of {bench.rounds}")
        for case, took_ms in ask_script("main_jobs.py").items():
            bench.results.add("jobs", case, number, ms=took_ms)
