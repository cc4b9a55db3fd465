"""Closed-loop load with wrk, a C program: each connection sends its next request when it has its answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from server_process import Target

SCRIPT = Path(__file__).with_name("post.lua")


class LoadFailed(Exception):
    """Not every request was answered with success."""


@dataclass(frozen=True)
class Load:
    """The results of a closed loop.

    Attributes:
        rate: answers per second.
        p50_ms: median latency.
        p99_ms: latency that 1 % exceeded.
        requests: answers altogether.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int

    def at(self, connections: int) -> dict[str, float]:
        """The same by the names of samples."""
        return {f"rate@{connections}": self.rate, f"p50@{connections}": self.p50_ms, f"p99@{connections}": self.p99_ms}


def is_here() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(target: Target, connections: int, seconds: float) -> Load:
    """Load a server.

    One thread of wrk sends more than any of the servers answers; a second one would only take their core away.

    Raises:
        LoadFailed: when one answer was not 2xx (wrk counts 4xx and 5xx; no server here redirects), or a socket failed.
    """
    seconds = max(1, round(seconds))
    with tempfile.NamedTemporaryFile() as body:
        body.write(target.request.body)
        body.flush()
        headers = "\n".join(f"{name}: {value}" for name, value in target.headers.items())
        environment = {**os.environ, "BENCH_BODY": body.name, "BENCH_HEADERS": headers}
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), target.url]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=seconds + 60
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise LoadFailed(f"wrk: {(done.stderr or done.stdout).strip()}")
    found = json.loads(lines[-1].removeprefix("RESULT "))
    if found["status"] or found["socket"] or not found["requests"]:
        raise LoadFailed(
            f"{found['status']} answers were not 2xx and {found['socket']} sockets failed "
            f"of {found['requests']} requests at {connections} connections"
        )
    rate = found["requests"] / (found["us"] * 1e-6)
    return Load(rate, found["p50_us"] * 1e-3, found["p99_us"] * 1e-3, found["requests"])
