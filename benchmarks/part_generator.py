"""Our own load generator beside wrk, a C program: in a closed loop both must find the same throughput."""

from __future__ import annotations

import contenders
import wrk
from bench import Bench, say
from part_servers import WARM_S
from server_process import NoServer, Server, started

from tfserve_nb.bench.load.schedule import Load, Target
from tfserve_nb.bench.run import Subject, run_load

CLIENTS = 64


def measure(bench: Bench) -> None:
    """Wrk and ours in turns, against the same server."""
    for number in range(bench.rounds):
        say(f"generator, round {number + 1} of {bench.rounds}")
        try:
            with started(contenders.in_kernel(), bench.models["mlp"]) as server:
                wrk.run(server.target(), CLIENTS, WARM_S)
                for _ in range(2):  # A B A B: a machine that drifts affects both
                    bench.results.add("generator", "wrk", number, **_of_wrk(bench, server))
                    bench.results.add("generator", "tfserve-nb bench", number, **_of_ours(bench, server))
        except (NoServer, wrk.LoadFailed) as error:
            bench.results.problem("generator", "ours, in kernel", str(error))


def _of_wrk(bench: Bench, server: Server) -> dict[str, float]:
    return wrk.run(server.target(), CLIENTS, bench.seconds).at(CLIENTS)


def _of_ours(bench: Bench, server: Server) -> dict[str, float]:
    wrk_target = server.target()
    target = Target("json", wrk_target.url, (wrk_target.request.body,), 1, tuple(wrk_target.headers.items()))
    summary = run_load(Subject("mlp", target=target), Load(concurrency=CLIENTS, seconds=bench.seconds)).summary
    p50, p99 = (summary.percentile(quantile) for quantile in (0.5, 0.99))
    return {
        f"rate@{CLIENTS}": summary.rate,
        f"p50@{CLIENTS}": p50.ms if p50 is not None else float("nan"),
        f"p99@{CLIENTS}": p99.ms if p99 is not None else float("nan"),
    }
