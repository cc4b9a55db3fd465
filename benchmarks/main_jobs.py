"""The jobs of a notebook, once: loading the extension, deploying to the first answer, rolling back.

Usage: python benchmarks/main_jobs.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

LOAD_EXT = "import time; t = time.perf_counter()\n%load_ext tfserve_nb\nprint(time.perf_counter() - t)"


def load_ext_ms() -> float:
    """`%load_ext tfserve_nb` as the first cell of a fresh kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    printed: list[str] = []
    try:
        client.execute_interactive(
            LOAD_EXT, timeout=60, output_hook=lambda message: printed.append(message["content"].get("text", ""))
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    return 1e3 * float("".join(printed))


def make_model() -> Any:
    """The better network of the quickstart, untrained."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((8, 8), name="image"),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )


def deploy_and_roll_back() -> dict[str, float]:
    """Times to the first answers over HTTP."""
    import requests

    import tfserve_nb

    image = np.random.default_rng(7).random((1, 8, 8), dtype=np.float32)
    session = requests.Session()

    def ask() -> Any:
        session.headers["Authorization"] = f"Bearer {deployment.token}"
        reply = session.post(deployment.rest_url + ":predict", json={"instances": image.tolist()}, timeout=30)
        reply.raise_for_status()
        return np.array(reply.json()["predictions"])

    tfserve_nb.deploy(make_model(), "warm")  # TensorFlow's first use is not ours
    model = make_model()
    started_s = time.perf_counter()
    deployment = tfserve_nb.deploy(model, "digits")
    ask()
    found = {"deploy() to the first answer": 1e3 * (time.perf_counter() - started_s)}
    newest = tfserve_nb.deploy(make_model(), "digits").version
    returned_ms, answered_ms = [], []
    for _ in range(20):
        deployment.promote(newest)
        of_newest = ask()
        started_s = time.perf_counter()
        deployment.rollback()
        returned_ms.append(1e3 * (time.perf_counter() - started_s))
        while np.allclose(ask(), of_newest):
            pass
        answered_ms.append(1e3 * (time.perf_counter() - started_s))
    found["rollback() returns"] = statistics.median(returned_ms)
    found["rollback() to the first answer of the old version"] = statistics.median(answered_ms)
    session.close()
    tfserve_nb.shutdown()
    return found


def main() -> int:
    """Measure each job once."""
    found = {"%load_ext in a fresh kernel": load_ext_ms()}
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-bench-") as folder:
        os.chdir(folder)
        found |= deploy_and_roll_back()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
