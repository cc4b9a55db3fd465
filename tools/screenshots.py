"""Take pictures of the dashboard in JupyterLab, light, dark and narrow, from a real run of two models under load.

Usage: python tools/screenshots.py FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from lab import Lab, chromium_page, jupyter_lab  # noqa: E402 - from the tests' folder

SETUP = """
import threading, time
import keras, numpy as np
%load_ext tfserve_nb
def make(units):
    return keras.Sequential([keras.Input((64,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(units, "relu")])
small, large = make(32), make(2048)
%deploy small --name digits --label stable --quiet --out d
%deploy large --name digits --canary 30 --label canary --quiet --out d
"""
LOAD = """
x = np.random.rand(64).astype("float32")
def ask():
    until_s = time.perf_counter() + 20
    while time.perf_counter() < until_s:
        d.predict(x[None])
        time.sleep(0.004 + 0.003 * np.sin(time.perf_counter() / 4))
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("load done")
"""


def main(folder: Path) -> None:
    """Run a notebook once for each theme and keep the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme, width in (("JupyterLab Light", 1280), ("JupyterLab Dark", 1280), ("JupyterLab Light", 640)):
        with tempfile.TemporaryDirectory() as scratch:
            take(folder / f"dashboard-{theme.split()[1].lower()}-{width}.png", Path(scratch) / "root", theme, width)


def take(picture: Path, root: Path, theme: str, width: int) -> None:
    """One picture of the dashboard with two versions under load."""
    import nbformat

    root.mkdir(parents=True)
    settings = root.parent / "jupyter/jupyter_config_dir/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    # The question whether to fetch news would cover a corner.
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    cells = [SETUP, LOAD, "%dashboard digits"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "dashboard.ipynb")
    with jupyter_lab(root, TF_CPP_MIN_LOG_LEVEL="3") as url, chromium_page() as page:
        lab = Lab(page, url, "dashboard.ipynb")
        lab.run_all()
        page.set_viewport_size({"width": width, "height": 1000})
        caption = page.locator("caption", has_text="digits: versions").last
        caption.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        page.locator(".jp-OutputArea-output:has(caption)").last.screenshot(path=str(picture))
        print(picture, "page errors:", lab.errors or "none")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
