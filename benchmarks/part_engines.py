"""What engines change beside rates: the distance to their own best, several inputs, size, start, and agreement."""

from __future__ import annotations

import contextlib
import time

import contenders
import wrk
from bench import Bench, ask_script, rotated, say
from part_servers import WARM_S
from server_process import NoServer, started
from wire_formats import V1

TABULAR = ("tabular_one", "tabular", "tabular_scalars")
TABULAR_ROWS = (1, 32)
STARTS = ("tensorflow", "onnx")


def measure_tabular(bench: Bench) -> None:
    """Ten named inputs as JSON objects beside one input of the same ten numbers, in the kernel, in turns."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(started(contenders.in_kernel(), bench.models[name])) for name in TABULAR]
        for number in range(bench.rounds):
            say(f"tabular, round {number + 1} of {bench.rounds}")
            for num_rows in TABULAR_ROWS:
                for server in rotated(servers, number):
                    target = server.target(num_rows, V1)
                    wrk.run(target, 64, WARM_S)
                    rate = wrk.run(target, 64, bench.seconds).rate
                    bench.results.add("tabular", server.model.name, number, **{f"rows@{num_rows}": rate * num_rows})


def measure_start(bench: Bench) -> None:
    """Memory of `tfserve-nb serve` with one small model, and the time to its first answer."""
    model = bench.models["mlp"]
    ask_script("engine_call.py", model.version, 0.1, "--calls")
    for number in range(bench.rounds):
        say(f"start, round {number + 1} of {bench.rounds}")
        for engine in rotated(STARTS, number):
            one = contenders.serve(engine=engine)
            started_s = time.perf_counter()
            try:
                with started(one, model) as server:
                    seconds = time.perf_counter() - started_s
                    bench.results.add("start", one.name, number, mib=server.memory_mib(), first_answer_s=seconds)
            except NoServer as error:
                bench.results.problem("start", one.name, str(error))


def measure_size(bench: Bench) -> None:
    """Disk and memory of a version beside what Keras' own export writes."""
    for number in range(bench.rounds if bench.is_quick else min(bench.rounds, 3)):
        say(f"size, round {number + 1}")
        for case, values in ask_script("version_size.py", "--rounds", 1, "--json").items():
            bench.results.add("size", case, number, **values)


def measure_agreement(bench: Bench) -> None:
    """Predictions of the chosen engine for real rows beside TensorFlow's."""
    say("agreement")
    for name, values in ask_script("digits_agreement.py").items():
        engine = values.pop("engine")
        bench.results.add("agreement", f"{name}, {engine}", 0, **values)
