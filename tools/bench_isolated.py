"""Measure what a busy kernel costs: the server in the kernel beside the server in a child process.

Usage: python tools/bench_isolated.py [--rounds N]

This process plays the kernel: it deploys the same model twice, in itself and isolated, and then either waits or runs
`while True: pass` while another process sends requests, one after the other, and notes each one's latency. The four
cases are measured by turns, round after round. A spinning kernel keeps one core busy in any case; on a machine with few
cores that alone slows everything else down.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

from bench_main_job import describe_machine, make_model

SECONDS = 2.0


def main() -> int:
    """Measure, or be the client of a measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is measured")
    parser.add_argument("--client", nargs=2, metavar=("URL", "TOKEN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(ask(*options.client)))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    describe_machine()
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        os.chdir(folder)
        measure(options.rounds)
    return 0


def measure(rounds: int) -> None:
    """Deploy twice and print the latencies of the four cases."""
    import tfserve_nb

    handles = {
        "in the kernel": tfserve_nb.deploy(make_model(), "inside"),
        "isolated": tfserve_nb.deploy(make_model(), "outside", isolate=True),
    }
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for home, handle in handles.items():
            for state in ("idle", "spinning"):
                found.setdefault((home, state), []).append(latencies(handle, spins=state == "spinning"))
    print(f"{'':32} {'p50 ms':>16} {'p99 ms':>18} {'requests/s':>16}   (median of {rounds}, min to max)")
    for (home, state), rows in found.items():
        cells = [f"{statistics.median(one):7.3g} ({min(one):.3g}-{max(one):.3g})" for one in zip(*rows, strict=True)]
        print(f"{home + ', kernel ' + state:32} {cells[0]:>18} {cells[1]:>18} {cells[2]:>18}")
    for home in handles:
        pairs = zip(found[home, "idle"], found[home, "spinning"], strict=True)
        ratios = [tuple(busy / idle for idle, busy in zip(*pair, strict=True)) for pair in pairs]
        medians = [statistics.median(one) for one in zip(*ratios, strict=True)]
        print(f"{home}: spinning over idle: p50 x{medians[0]:.2f}, p99 x{medians[1]:.2f}, requests/s x{medians[2]:.2f}")
    tfserve_nb.shutdown()


def latencies(handle: Any, *, spins: bool) -> tuple[float, float, float]:
    """p50 and p99 in milliseconds, and requests per second, while this process waits or spins."""
    command = [sys.executable, __file__, "--client", handle.rest_url, handle.token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        while spins and client.poll() is None:
            for _ in range(1_000_000):
                pass
        text, _ = client.communicate()
    p50, p99, rate = json.loads(text)
    return p50, p99, rate


def ask(url: str, token: str) -> tuple[float, float, float]:
    """One connection, one request after the other."""
    parts = urlsplit(url)
    body = json.dumps({"instances": [[[0.5] * 8] * 8]}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    took_ms = []
    for until_s in (time.perf_counter() + 0.3, time.perf_counter() + 0.3 + SECONDS):
        took_ms.clear()
        while (started_s := time.perf_counter()) < until_s:
            connection.request("POST", parts.path + ":predict", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(response.status)
            took_ms.append(1e3 * (time.perf_counter() - started_s))
    connection.close()
    cuts = statistics.quantiles(took_ms, n=100)
    return cuts[49], cuts[98], len(took_ms) / SECONDS


if __name__ == "__main__":
    sys.exit(main())
