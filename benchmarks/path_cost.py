"""What a request costs in Python: the core alone, and the way from bytes to bytes, without sockets and TensorFlow.

Usage: python benchmarks/path_cost.py [--rounds N] [--profile] [--json]

The model does nothing, and the transport drops what is written to it. 256 requests are always in flight: each response
sends the next request. What remains is the cost of our own code, on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import logging
import os
import pstats
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tornado import web

from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.server import interpreter
from tfserve_nb.server.calls import Calls
from tfserve_nb.server.http.connection import Connection
from tfserve_nb.server.http.server import HttpServer
from tfserve_nb.server.http.tornado_sink import sinks_of
from tfserve_nb.server.rest.fast_path import fast_path
from tfserve_nb.server.settings import ServerSettings
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.types import SignatureDefs, SignatureSpec, TensorSpec

NUM_FEATURES = 784
IN_FLIGHT = 256
SECONDS = 1.5
ANSWER = np.zeros((64, 10), np.float32)


class NoModel:
    """A servable that answers at once."""

    signature_defs = SignatureDefs(b"", {})
    effects = Effects()

    def __init__(self, shape: tuple[int, ...]) -> None:
        inputs = {"x": TensorSpec("x", "float32", (None, *shape))}
        outputs = {"y": TensorSpec("y", "float32", (None, 10))}
        self.signatures = {"serving_default": SignatureSpec("serving_default", inputs, outputs)}

    def run(self, signature: str, inputs: Any) -> Any:
        """The same numbers always."""
        del signature
        return {"y": ANSWER[: len(inputs["x"])]}

    def restore(self) -> None:
        """Runs change nothing."""

    def close(self) -> None:
        """Nothing to free."""


def make_core(folder: str, shape: tuple[int, ...] = (NUM_FEATURES,)) -> ServingCore:
    """A core that serves `bench` with a model that does nothing."""
    core = ServingCore(lambda path, device: NoModel(shape))
    core.start()
    path = Path(folder) / "bench" / "1"
    path.mkdir(parents=True)
    core.deploy("bench", 1, VersionSource(path, BatchingOptions()), Path(folder), Placement())
    return core


def requests_through_core(core: ServingCore) -> float:
    """Requests per second: acquire, submit, batch, scatter, answer, release."""
    spec, row = ModelSpec("bench"), {"x": np.zeros((1, NUM_FEATURES), np.float32)}
    handles: list[Any] = []
    is_over = threading.Event()
    num_left = 0

    def done(_: object) -> None:
        nonlocal num_left
        num_left -= 1
        if not num_left:
            is_over.set()

    started_s = time.perf_counter()
    num_done = 0
    while time.perf_counter() < started_s + SECONDS:
        is_over.clear()
        num_left = IN_FLIGHT
        deadline_s = time.perf_counter() + 60
        for _ in range(IN_FLIGHT):
            handle = core.acquire(spec)
            handles.append(handle)
            handle.submit("serving_default", row, deadline_s=deadline_s, on_done=done, wakes=False)
        core.wake()
        is_over.wait()
        for handle in handles:
            handle.release()
        handles.clear()
        num_done += IN_FLIGHT
    return num_done / (time.perf_counter() - started_s)


class Client(asyncio.Transport):
    """A transport whose client sends the next request as soon as it has an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes, count: Callable[[], bool]) -> None:
        super().__init__()
        self._loop = loop
        self._request = request
        self._count = count
        self.connection: Connection | None = None

    def write(self, data: Any) -> None:
        """An answer."""
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(data)
        if self._count():
            self.send()

    def send(self) -> None:
        """The next request."""
        self._loop.call_soon(self.connection.data_received, self._request)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def abort(self) -> None:
        """Nothing to cut off."""


def make_request() -> bytes:
    """The bytes of a predict request of one row."""
    rows = np.random.default_rng(0).random((1, NUM_FEATURES)).round(6)
    body = json.dumps({"instances": rows.tolist()}).encode()
    head = (
        "POST /v1/models/bench:predict HTTP/1.1\r\nHost: localhost:8501\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer secret\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def requests_through_server(core: ServingCore, request: bytes, num_open: int, seconds: float) -> float:
    """Requests per second from the bytes of a request to the bytes of its answer."""
    loop = asyncio.get_running_loop()
    log = logging.getLogger("bench")
    settings = ServerSettings(token="secret")  # noqa: S106
    fast = fast_path(Calls(core, loop), settings, log)
    server = HttpServer(sinks_of(web.Application(), log), settings, log, fast)
    server.date_line = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    until_s = time.perf_counter() + seconds
    num_done, num_clients = 0, num_open
    over = loop.create_future()

    def fail(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not over.done():
            over.set_exception(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(fail)

    def count() -> bool:
        nonlocal num_done, num_open
        num_done += 1
        if time.perf_counter() < until_s:
            return True
        num_open -= 1
        if not num_open:
            over.set_result(None)
        return False

    started_s = time.perf_counter()
    for _ in range(num_clients):
        client = Client(loop, request, count)
        client.connection = Connection(server)
        client.connection.connection_made(client)
        client.send()
    await over
    return num_done / (time.perf_counter() - started_s)


def run_loop(
    core: ServingCore, request: bytes | None = None, num_open: int = IN_FLIGHT, seconds: float = SECONDS
) -> float:
    """`requests_through_server` on the loop that a server uses."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(requests_through_server(core, request or make_request(), num_open, seconds))


def main() -> int:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where the loop's thread spends its time")
    parser.add_argument("--json", action="store_true", help="print medians for a program")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    interpreter.server_starts()
    with tempfile.TemporaryDirectory() as folder:
        core = make_core(folder)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(run_loop, core)
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        cases = {"core alone": requests_through_core, "bytes to bytes": run_loop}
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.rounds):
            for name, case in cases.items():
                found[name].append(case(core))
        core.stop()
        if options.json:
            print(json.dumps({name: statistics.median(rates) for name, rates in found.items()}))
            return 0
        for name, rates in found.items():
            middle = statistics.median(rates)
            print(
                f"{name:16} {middle:9,.0f} requests/s on one core = {1e6 / middle:6.2f} µs each"
                f"   ({min(rates):,.0f} to {max(rates):,.0f})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
