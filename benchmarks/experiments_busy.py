"""Identical versions on a busy machine: how often a comparison finds a difference although there is none.

Usage: python benchmarks/experiments_busy.py [--minutes 8] [--window 15] [--every 5]

One network is deployed twice and compared with copies of every request, while clients in processes of their own ask for
it and for another model of the same server. The batches are recorded, and each stretch of `--window` seconds, one every
`--every` seconds, is read as a comparison of its own, looked at twice a second. To see a busy machine, run something
else beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from unittest import mock
from urllib.parse import urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfserve_nb
from tfserve_nb.api.servers import server_of
from tfserve_nb.experiment.engine import running
from tfserve_nb.experiment.statistics import latency
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import BatchRecord

LOOK_S = 0.5
ALPHA = 0.05
CLIENTS = {"cnn": 3, "other": 3}
"""Model -> clients, of which each sends one request after the other."""

CLIENT = """
import http.client, sys
host, port, path, token, body = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
connection = http.client.HTTPConnection(host, port)
while True:
    connection.request("POST", path, body, {"Authorization": "Bearer " + token})
    connection.getresponse().read()
"""


class Recorder(Observer):
    """Keeps when a batch of clients was done, by which version, its size and its run time in seconds."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, str, int, float]] = []

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run."""
        if record.model == "cnn" and not record.is_background:
            self.runs.append((record.done_s, "ab"[record.version - 1], record.execution_rows, record.run_s))


def record(seconds: float) -> list[tuple[float, str, int, float]]:
    """Serve the same network twice under load, and return what was run."""
    from saved_models import cnn

    network, recorder = cnn(), Recorder()
    row = np.random.default_rng(0).random((1, 28, 28, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cnn", "cnn", "other"):
            tfserve_nb.deploy(network, name=name, base_path=folder)
        deployment = tfserve_nb.deployment("cnn")
        server = server_of("cnn")
        assert server is not None  # noqa: S101 - it was just started
        assert isinstance(server.models, ServingCore)  # noqa: S101
        server.models.observers.add(recorder)
        deployment.promote(1)
        url, body = urlsplit(deployment.rest_url), json.dumps({"instances": row.tolist()})
        address = (str(url.hostname), str(url.port))
        # The comparison must go on whatever it finds.
        with mock.patch.object(running, "move", return_value="stay"):
            deployment.ab_test(1, 2, shadow=100)
            clients = [
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        CLIENT,
                        *address,
                        f"/v1/models/{name}:predict",
                        deployment.token or "",
                        body,
                    ],
                    stderr=subprocess.DEVNULL,
                )
                for name, number in CLIENTS.items()
                for _ in range(number)
            ]
            try:
                time.sleep(seconds)
            finally:
                for client in clients:
                    client.kill()
        for name in ("cnn", "other"):
            tfserve_nb.deployment(name).undeploy()
    return recorder.runs


def comparisons(
    runs: list[tuple[float, str, int, float]], window_s: float, every_s: float
) -> Iterator[tuple[float, bool, bool]]:
    """For each stretch: the effect at its end, and whether B ever seemed slower, or faster."""
    times = np.array([at_s for at_s, *_ in runs])
    start_s = times[0]
    while start_s + window_s <= times[-1]:
        strata, look_s, value, is_slower, is_faster = latency.Strata(), start_s + LOOK_S, 0.0, False, False
        first, last = np.searchsorted(times, [start_s, start_s + window_s])
        for at_s, arm, size, run_s in runs[first:last]:
            if at_s > look_s:
                look_s += LOOK_S
                effect = latency.effect(strata.sums().values(), ALPHA)
                if effect is not None:
                    value = effect.value
                    is_slower |= effect.low > 0
                    is_faster |= effect.high < 0
            strata.add(arm, at_s - start_s, size, run_s)
        yield value, is_slower, is_faster
        start_s += every_s


def main() -> int:
    """Record, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="how long batches are recorded (8)")
    parser.add_argument("--window", type=float, default=15.0, help="length of a comparison in seconds (15)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds from one to the next (5)")
    options = parser.parse_args()
    runs = record(options.minutes * 60)
    found = list(comparisons(runs, options.window, options.every))
    values = [100 * value for value, *_ in found]
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores, {len(runs) / options.minutes / 60:.0f} batches/s")
    print("| comparisons | slower at any look | faster at any look | B compared with A |\n|---|---|---|---|")
    print(
        f"| {len(found)} | {sum(slower for _, slower, _ in found)} | {sum(faster for *_, faster in found)} "
        f"| {min(values):+.0f} % to {max(values):+.0f} % |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
