"""Take the pictures of the documents from a real run: two versions of the digits model under load, in JupyterLab.

Usage: python tools/screenshots.py [FOLDER]

The dashboard's tabs in the light theme, some of them dark and in a narrow column, while an experiment goes on; the web
page of `tfserve-nb serve --dashboard`; the figure of a benchmark. FOLDER is docs/pictures by default. Needs Chromium,
as the browser tests.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.lab import Lab, chromium_page, jupyter_lab  # noqa: E402 - from the tests' folder

SETUP = """
import threading, time
import keras, numpy as np
from sklearn.datasets import load_digits
%load_ext tfserve_nb
digits = load_digits()
images = (digits.images / 16).astype("float32")
def make(*hidden):
    layers = [keras.Input((8, 8), name="image"), keras.layers.Flatten()]
    layers += [keras.layers.Dense(units, "relu") for units in hidden]
    made = keras.Sequential([*layers, keras.layers.Dense(10, "softmax", name="digit")])
    made.compile("adam", "sparse_categorical_crossentropy")
    made.fit(images, digits.target, epochs=8, verbose=0)
    return made
small, large = make(), make(1024, 512)
%deploy small --name digits --label stable --engine auto --check images --quiet --out d
%deploy large --name digits --stage --label canary --quiet --out d
_ = d.sample_requests()
t = d.ab_test("stable", "canary", split=30, shadow=50, max_disagreement=0.2, auto_rollback=False)
"""
LOAD = """
def ask(seconds, pause_s):
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        d.predict(images[np.random.randint(len(images))][None])
        time.sleep(pause_s * (1 + 0.8 * np.sin(time.perf_counter() / 5)))
def load(seconds, pause_s=0.012):
    threads = [threading.Thread(target=ask, args=(seconds, pause_s)) for _ in range(4)]
    for thread in threads: thread.start()
    return threads
for thread in load(45): thread.join()
"""
BACKGROUND = "background = load(60)"
BENCHMARK = """
%%benchmark digits --rate 200 --seconds 6 --slo-ms 10
for thread in background: thread.join()
images
"""
TABS = {"Versions": "versions", "Latency": "latency", "Resources": "resources", "A/B": "ab", "Requests": "requests"}
VIEWS = (
    ("JupyterLab Light", 1280, tuple(TABS), "light"),
    ("JupyterLab Dark", 1280, ("Versions", "Latency", "A/B", "Requests"), "dark"),
    ("JupyterLab Light", 700, ("Versions", "Latency", "A/B"), "narrow"),
)
HEIGHT, AB_HEIGHT = 1500, 3400
TAB = ".jp-OutputArea-output:has(.jupyter-widget-tab), .jp-OutputArea-output:has(.widget-tab)"


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, view in enumerate(VIEWS):
            root = Path(scratch) / str(number) / "root"
            root.mkdir(parents=True)
            take_lab(folder, root, *view)
        take_web(folder, Path(scratch) / "0" / "root" / "tfserve_models" / "digits")


def take_lab(folder: Path, root: Path, theme: str, width: int, tabs: tuple[str, ...], name: str) -> None:
    """The dashboard in JupyterLab; with the light theme a benchmark too."""
    import nbformat

    settings = root.parent / "jupyter/jupyter_config_dir/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    # The question whether to fetch news would cover a corner.
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    cells = [SETUP, LOAD, "%dashboard digits", BACKGROUND]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "dashboard.ipynb")
    with jupyter_lab(root, TF_CPP_MIN_LOG_LEVEL="3") as url, chromium_page() as page:
        lab = Lab(page, url, "dashboard.ipynb")
        lab.run_all()
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.wait_for_timeout(3000)
        for tab in tabs:
            page.set_viewport_size({"width": width, "height": AB_HEIGHT if tab == "A/B" else HEIGHT})
            page.get_by_role("tab", name=tab, exact=True).last.click()
            page.wait_for_timeout(3500 if tab == "Resources" else 2500)
            shoot(page.locator(TAB).last, folder / f"dashboard-{TABS[tab]}-{name}.png")
        if name == "light":
            lab.add_and_run(BENCHMARK.strip())
            page.get_by_text("requests of the warm-up are not counted").last.wait_for(timeout=120_000)
            page.wait_for_timeout(1500)
            shoot(page.locator(".jp-OutputArea:has(table)").last, folder / "benchmark.png")
        print("page errors:", lab.errors or "none")


def take_web(folder: Path, model: Path) -> None:
    """The web page of a server that serves the same files."""
    port = free_port()
    code = "import sys; from tfserve_nb.cli import main; sys.exit(main())"
    flags = [f"--port={free_port()}", f"--rest_api_port={port}", "--model_name=digits", f"--model_base_path={model}"]
    with subprocess.Popen(
        [sys.executable, "-c", code, "serve", *flags, "--dashboard", "--enable_batching"],
        stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        found = next(filter(None, (re.search(r"Open the link in (\S+),", line) for line in server.stderr or ())))
        drain = threading.Thread(target=server.stderr.read if server.stderr else print, daemon=True)
        drain.start()
        asker = threading.Thread(target=ask_for, args=(port, 15.0), daemon=True)
        asker.start()
        with chromium_page() as page:
            page.set_viewport_size({"width": 1000, "height": 820})
            page.goto(Path(found.group(1)).read_text().strip())
            page.wait_for_timeout(12_000)
            page.get_by_role("tab", name="Latency").click()
            page.wait_for_timeout(2500)
            shoot(page, folder / "web-latency.png")
        server.terminate()
        server.wait(20)
        drain.join(5)


def ask_for(port: int, seconds: float) -> None:
    """Send requests to the server."""
    body = json.dumps({"instances": [[[0.5] * 8] * 8]}).encode()
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/models/digits:predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - our own server
            reply.read()
        time.sleep(0.003)


def shoot(what: Any, path: Path) -> None:
    """One picture."""
    what.screenshot(path=str(path))
    print(path)


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
