"""Serving from a kernel that is busy (cells that spin or train, a dashboard), and gRPC from a kernel."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import contenders
import wrk
from bench import HERE, Bench, ask_script, rotated, say
from part_servers import WARM_S
from server_process import NoServer, Server, free_port, started, stop

CONNECTIONS = (1, 64)


def measure_busy(bench: Bench) -> None:
    """In the kernel and isolated; the kernel waits, spins in Python, or trains."""
    homes = (contenders.in_kernel(), contenders.in_kernel(is_isolated=True))
    for number in range(bench.rounds):
        for one in rotated(homes, number):
            say(f"busy, round {number + 1} of {bench.rounds}: {one.name}")
            try:
                with started(one, bench.models["mlp"]) as server:
                    for state in rotated(("idle", "spin", "fit"), number):
                        _load_while(bench, server, state, number)
            except (NoServer, wrk.LoadFailed) as error:
                bench.results.problem("busy", one.name, str(error))


def _load_while(bench: Bench, server: Server, state: str, number: int) -> None:
    if state != "idle":
        server.tell(state)
        time.sleep(2 if state == "fit" else 0.2)  # Keras traces first
    target = server.target()
    for connections in CONNECTIONS:
        wrk.run(target, connections, WARM_S)
        load = wrk.run(target, connections, bench.seconds)
        bench.results.add("busy", f"{server.contender.name}, {state}", number, **load.at(connections))
    if state != "idle":
        server.tell("idle")


def measure_dashboard(bench: Bench) -> None:
    """Throughput with and without a dashboard of six versions that all answer, and its processor time."""
    for number in range(bench.rounds):
        say(f"dashboard, round {number + 1} of {bench.rounds}")
        try:
            with started(contenders.in_kernel(), bench.models["mlp"]) as server:
                server.tell("versions")
                wrk.run(server.target(), 64, WARM_S)
                without = _load_and_idle(bench, server)
                server.tell("dashboard")
                time.sleep(1)
                with_it = _load_and_idle(bench, server)
        except (NoServer, wrk.LoadFailed) as error:
            bench.results.problem("dashboard", "ours, in kernel", str(error))
            continue
        bench.results.add("dashboard", "without", number, rate=without[0], core=without[1])
        bench.results.add("dashboard", "with", number, rate=with_it[0], core=with_it[1])


def _load_and_idle(bench: Bench, server: Server) -> tuple[float, float]:
    """Requests per second, and the share of a core that the kernel takes without requests."""
    rate = wrk.run(server.target(), 64, bench.seconds).rate
    pid = int(str(server.info["pid"]))
    time.sleep(0.5)
    before_s, started_s = _cpu_s(pid), time.perf_counter()
    time.sleep(bench.seconds)
    return rate, (_cpu_s(pid) - before_s) / (time.perf_counter() - started_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_grpc(bench: Bench) -> None:
    """64 Predicts in flight to a kernel, and to the same gRPC server with an empty handler."""
    model = bench.models["mlp"]
    for number in range(bench.rounds):
        say(f"grpc, round {number + 1} of {bench.rounds}")
        try:
            with _empty_server() as port:
                found = ask_script("grpc_load.py", "client", port, "empty", model.version, bench.seconds)
                bench.results.add("grpc", "empty handler", number, **found)
            one = contenders.in_kernel()
            one = dataclasses.replace(one, command=(*one.command, "--grpc-port={grpc_port}"))
            with started(one, model) as server:
                token = server.info["token"]
                found = ask_script("grpc_load.py", "client", server.port + 1, token, model.version, bench.seconds)
                bench.results.add("grpc", "ours, in kernel", number, **found)
        except (NoServer, RuntimeError) as error:
            bench.results.problem("grpc", "Predict", str(error))


class _empty_server:  # noqa: N801 - used like a function
    """The gRPC server that does nothing."""

    def __enter__(self) -> int:
        port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "grpc_load.py"), "empty", str(port)], stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        return port

    def __exit__(self, *_: object) -> None:
        stop(self._process)
