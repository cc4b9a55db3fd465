"""Measure the main job on this machine: loading the extension, deploying, rolling back, and what HTTP costs.

Usage: python tools/bench_main_job.py [--rounds N]

Every number is repeated and printed with its spread. Throughputs are given beside each other and as ratios of the same
round, because a shared machine changes its speed from minute to minute. The client of the HTTP measurements is another
process without TensorFlow; it shares the cores with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
WINDOW_S = 1.5
"""Length of one throughput measurement."""


def main() -> int:
    """Measure, or be the client of a measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each measurement is repeated")
    parser.add_argument("--client", nargs=3, metavar=("URL", "CONNECTIONS", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        url, connections, seconds = options.client
        request = sys.stdin.buffer.read()
        print(json.dumps(asyncio.run(load(url, request, int(connections), float(seconds)))))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    describe_machine()
    measure_load_ext(options.rounds)
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        os.chdir(folder)
        measure_deployment(options.rounds)
    return 0


def describe_machine() -> None:
    """Print what the numbers belong to."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"machine: {os.cpu_count()} cores ({cpu}), {memory_gb:.0f} GiB, {platform.platform()}")
    print(f"load before: {os.getloadavg()[0]:.2f} runnable processes in the last minute")
    packages = ("tfserve_nb", "tensorflow", "keras", "numpy", "tornado", "ipykernel", "ipython")
    print(
        "versions: Python", platform.python_version() + ",", ", ".join(f"{name} {version(name)}" for name in packages)
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"commit: {commit.stdout.strip() or 'unknown'}\n")


def show(what: str, samples: list[float], unit: str) -> None:
    """Print the median and the spread of some samples."""
    print(
        f"{what:52} median {statistics.median(samples):9.4g} {unit}  "
        f"(min {min(samples):.4g}, max {max(samples):.4g}, n={len(samples)})",
        flush=True,
    )


def measure_load_ext(rounds: int) -> None:
    """Time `%load_ext tfserve_nb` as the first cell of fresh kernels."""
    from jupyter_client.manager import start_new_kernel

    code = "import time; t = time.perf_counter()\n%load_ext tfserve_nb\nprint(time.perf_counter() - t)"
    took_ms = []
    for _ in range(rounds):
        manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
        printed: list[str] = []
        try:
            client.execute_interactive(
                code, timeout=60, output_hook=lambda message, to=printed: to.append(message["content"].get("text", ""))
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
        took_ms.append(1e3 * float("".join(printed)))
    show("%load_ext tfserve_nb in a fresh kernel", took_ms, "ms")


def measure_deployment(rounds: int) -> None:
    """Time deploys, rollbacks and requests of a small network for 8 x 8 digits."""
    import keras
    import numpy as np
    import requests

    import tfserve_nb

    keras.utils.set_random_seed(7)
    image = np.random.default_rng(7).random((1, 8, 8), dtype=np.float32)
    session = requests.Session()

    def ask(deployment: Any) -> Any:
        session.headers["Authorization"] = f"Bearer {deployment.token}"
        reply = session.post(deployment.rest_url + ":predict", json={"instances": image.tolist()}, timeout=30)
        reply.raise_for_status()
        return np.array(reply.json()["predictions"])

    took_s = []
    for number in range(rounds):
        model = make_model()
        started_s = time.perf_counter()
        deployment = tfserve_nb.deploy(model, name=f"digits_{number}")
        ask(deployment)
        took_s.append(time.perf_counter() - started_s)
    show("deploy() of a new model to its first HTTP answer", took_s, "s")

    model = make_model()
    deployment = tfserve_nb.deploy(model, name=deployment.name)
    measure_rollback(deployment, ask)
    measure_throughput(deployment, model, image, rounds)
    session.close()
    tfserve_nb.shutdown()


def make_model() -> Any:
    """The better network of the quickstart, untrained."""
    import keras

    return keras.Sequential(
        [
            keras.Input((8, 8), name="image"),
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )


def measure_rollback(deployment: Any, ask: Callable[[Any], Any]) -> None:
    """Time from calling `rollback()` to the first HTTP answer of the version before."""
    import numpy as np

    newest = deployment.version
    returned_ms, answered_ms = [], []
    for _ in range(50):
        deployment.promote(newest)
        of_newest = ask(deployment)
        started_s = time.perf_counter()
        deployment.rollback()
        returned_ms.append(1e3 * (time.perf_counter() - started_s))
        while np.allclose(ask(deployment), of_newest):
            pass
        answered_ms.append(1e3 * (time.perf_counter() - started_s))
    show("rollback() returns after", returned_ms, "ms")
    show("rollback() to the first answer of the old version", answered_ms, "ms")


def measure_throughput(deployment: Any, model: Any, image: Any, rounds: int) -> None:
    """Compare calls per second: the model itself, `predict`, and HTTP with one and with 32 connections."""
    import tensorflow as tf

    body = json.dumps({"instances": image.tolist()}).encode()
    path = urlsplit(deployment.rest_url).path + ":predict"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {deployment.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    compiled = tf.function(lambda x: model(x, training=False))
    ways: dict[str, Callable[[], float]] = {
        "tf.function of the model, called directly": lambda: calls_per_s(lambda: compiled(image).numpy()),
        "model(x), as one types it": lambda: calls_per_s(lambda: model(image, training=False).numpy()),
        "d.predict(x)": lambda: calls_per_s(lambda: deployment.predict(image)),
        "HTTP, 1 connection": lambda: requests_per_s(deployment.rest_url, request, 1),
        "HTTP, 32 connections": lambda: requests_per_s(deployment.rest_url, request, 32),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    print("\none row per call; ratios are to the compiled function of the same round")
    base = next(iter(rates.values()))
    for name, samples in rates.items():
        show(name, samples, "calls/s")
        show("", [rate / other for rate, other in zip(samples, base, strict=True)], "x     ")


def calls_per_s(call: Callable[[], object]) -> float:
    """Calls per second of something, one after the other on this thread."""
    for _ in range(20):
        call()
    num_calls, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < WINDOW_S:
        call()
        num_calls += 1
    return num_calls / elapsed_s


def requests_per_s(url: str, request: bytes, connections: int) -> float:
    """Answered requests per second, asked for by another process."""
    command = [sys.executable, __file__, "--client", url, str(connections), str(WINDOW_S)]
    done = subprocess.run(command, input=request, capture_output=True, check=True, timeout=60)
    return float(json.loads(done.stdout))


async def load(url: str, request: bytes, connections: int, seconds: float) -> float:
    """Send the same request over some connections, each waiting for its answer, and return answers per second.

    Raises:
        RuntimeError: if an answer is anything but 200.
    """
    parts = urlsplit(url)
    stop_s = time.perf_counter() + seconds
    counts = await asyncio.gather(
        *(ask_until(stop_s, parts.hostname or "", parts.port or 0, request) for _ in range(connections))
    )
    return sum(counts) / seconds


async def ask_until(stop_s: float, host: str, port: int, request: bytes) -> int:
    """Send requests over one connection until a time; the number of answers."""
    reader, writer = await asyncio.open_connection(host, port)
    num_answers = 0
    while time.perf_counter() < stop_s:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        await reader.readexactly(int(fields[b"content-length"]))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode(errors="replace"))
        num_answers += 1
    writer.close()
    return num_answers


if __name__ == "__main__":
    sys.exit(main())
