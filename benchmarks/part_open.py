"""All servers under the same arrivals: requests that come at random times of fixed rates, answered or not."""

from __future__ import annotations

import contenders
import open_loop
import wrk
from bench import Bench, rotated, say
from contenders import Contender
from part_servers import WARM_S, is_chosen
from server_process import NoServer, started

RATES = (100, 400, 1600, 4000)
"""Requests per second. A server that cannot do one is not asked for the next."""
HOPELESS_MS = 1000


def measure(bench: Bench) -> None:
    """Measure every contender with the MLP."""
    print(f"  Poisson arrivals with seed {bench.seed}")
    able = [
        one
        for one in (*contenders.ours(), *contenders.peers())
        if not one.problem and is_chosen(bench, one.name)
    ]  # fmt: skip
    for number in range(bench.rounds):
        for one in rotated(able, number):
            measure_contender(bench, one, number)


def measure_contender(bench: Bench, one: Contender, number: int) -> None:
    """Rising rates, until the server can no longer follow."""
    say(f"open loop, round {number + 1} of {bench.rounds}: {one.name}")
    try:
        with started(one, bench.models["mlp"]) as server:
            wrk.run(server.target(), 8, WARM_S)
            for rate in RATES:
                load = open_loop.run(server.target(), rate, bench.seconds, bench.seed + number)
                word = "" if load.is_valid else "  NOT VALID"
                print(
                    f"  {one.name:28} {rate:6} wanted  p50 {load.p50_ms:8.2f} ms  p99 {load.p99_ms:8.2f} ms  "
                    f"generator late by {load.lag_p99_ms:.2f} ms, {load.failed} failed{word}",
                    flush=True,
                )
                if load.is_valid:
                    values = {f"p50@{rate}": load.p50_ms, f"p99@{rate}": load.p99_ms, f"lag@{rate}": load.lag_p99_ms}
                    bench.results.add("open loop", one.name, number, **values)
                if load.failed or load.p99_ms > HOPELESS_MS:
                    break
    except (NoServer, wrk.LoadFailed) as error:
        bench.results.problem("open loop", one.name, str(error))
