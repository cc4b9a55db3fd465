"""A notebook kernel that serves: a real ipykernel whose first cell deploys, and which does other work on command.

Usage: python kernel_server.py PORT MODEL INFO [--isolate] [--grpc-port N] [--max-batch-size N] [--engine E]

INFO is a file that gets the server's token and the kernel's process number as JSON. Commands come line by line over
standard input, each is answered with `ok`: `spin` runs a cell of pure Python without end, `fit` trains a network
without end, `versions` splits traffic between six versions, `dashboard` shows the dashboard's charts, five times a
second, and `idle` interrupts the running cell.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

DEPLOY = """
import json, os, tfserve_nb
d = tfserve_nb.deploy(
    {model!r}, "bench", port={port}, grpc_port={grpc_port}, isolate={isolate}, base_path="served",
    max_batch_size={max_batch_size}, engine={engine!r},
)
with open({info!r} + ".part", "w") as file:
    json.dump({{"token": d.token, "pid": os.getpid()}}, file)
os.replace({info!r} + ".part", {info!r})
"""
SPIN = "while True:\n    pass"
FIT = """
import keras, numpy as np
net = keras.Sequential([keras.Input((784,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])
net.compile("adam", "mse")
x = np.zeros((8192, 784), "float32")
while True:
    net.fit(x, x[:, :10], batch_size=64, verbose=0)
"""
DASHBOARD = """
%load_ext tfserve_nb
from IPython.display import display
from tfserve_nb.dashboards import dashboard_for, updater
assert updater.PERIOD_S <= 0.2
board = dashboard_for(d)
board.open("Latency")
display(board)
"""


VERSIONS = """
for _ in range(5):
    tfserve_nb.deploy({model!r}, "bench", stage=True, keep=6, base_path="served")
d.set_traffic({{version: 100 / 6 for version in d.versions}})
"""


def main() -> int:
    """Start the kernel, deploy, and carry out commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("info")
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--max-batch-size", type=int, default=64)
    parser.add_argument("--engine", default="tensorflow")
    options = parser.parse_args()
    from jupyter_client.manager import start_new_kernel

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    manager, client = start_new_kernel(kernel_name="python3", extra_arguments=["--log-level=ERROR"])
    try:
        run(client, DEPLOY.format_map(vars(options)))
        obey(manager, client, {"dashboard": DASHBOARD, "versions": VERSIONS.format_map(vars(options))})
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    return 0


def obey(manager: Any, client: Any, cells: dict[str, str]) -> None:
    """Carry out the commands on standard input; `cells` run to their end."""
    for line in sys.stdin:
        command = line.strip()
        if command in ("spin", "fit"):
            client.execute({"spin": SPIN, "fit": FIT}[command], store_history=False)
        elif command in cells:
            run(client, cells[command])
        elif command == "idle":
            manager.interrupt_kernel()
            client.get_shell_msg(timeout=30)
        print("ok", flush=True)


def run(client: Any, code: str) -> None:
    """Run a cell to its end."""
    client.execute(code, store_history=False)
    content = client.get_shell_msg(timeout=120)["content"]
    if content["status"] != "ok":
        sys.exit("\n".join(content.get("traceback", [str(content)])))


if __name__ == "__main__":
    Path("served").mkdir(exist_ok=True)
    sys.exit(main())
