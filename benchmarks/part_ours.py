"""Our server compared with its limits: the bare model, the offline batch loop, the cost of our own Python code."""

from __future__ import annotations

import contenders
import wrk
from bench import Bench, ask_script, say
from part_servers import WARM_S
from server_process import NoServer, started
from wire_formats import BINARY, V1

CNN_LOADS = (
    ("requests of 1, JSON", 1, V1, 512),
    ("requests of 32, JSON", 32, V1, 24),
    ("requests of 32, binary", 32, BINARY, 24),
)
"""Name, rows of a request, body format, connections: 512 rows or more are always on their way."""


def measure_call(bench: Bench) -> None:
    """One connection, and the bare call of the same model in the same round."""
    model = bench.models["mlp"]
    for number in range(bench.rounds):
        say(f"call, round {number + 1} of {bench.rounds}")
        bare = ask_script("bare_model.py", model.version, bench.seconds / 2)
        bench.results.add("call", "bare model", number, **bare)
        for one in (contenders.in_kernel(), contenders.serve(1)):
            try:
                with started(one, model) as server:
                    wrk.run(server.target(), 1, WARM_S)
                    load = wrk.run(server.target(), 1, bench.seconds)
            except (NoServer, wrk.LoadFailed) as error:
                bench.results.problem("call", one.name, str(error))
            else:
                bench.results.add("call", one.name, number, p50_ms=load.p50_ms, over_ms=load.p50_ms - bare["p50_ms"])


def measure_cnn(bench: Bench) -> None:
    """Rows per second under load beside the best that a loop over batches gets from the same model.

    The server gets the loop's best batch as its `max_batch_size`.
    """
    model = bench.models["cnn"]
    for number in range(bench.rounds):
        say(f"cnn, round {number + 1} of {bench.rounds}")
        best = ask_script("bare_model.py", model.version, bench.seconds / 2)
        bench.results.add("cnn", "offline batch loop", number, rows_per_s=best["best_rows_per_s"])
        one = contenders.in_kernel(max_batch_size=int(best["best_batch"]))
        try:
            with started(one, model) as server:
                for name, num_rows, wire, connections in CNN_LOADS:
                    server.check(num_rows, wire)
                    target = server.target(num_rows, wire)
                    wrk.run(target, connections, WARM_S)
                    rate = num_rows * wrk.run(target, connections, bench.seconds).rate
                    bench.results.add("cnn", name, number, rows_per_s=rate)
        except (NoServer, wrk.LoadFailed) as error:
            bench.results.problem("cnn", one.name, str(error))


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
