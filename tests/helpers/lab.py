"""JupyterLab in Chromium: start the server, open a notebook, run cells, look and click."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from .eventually import PATIENCE_S

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_LIMIT_S = 120.0

RECORDED = """
from helpers.recorded import Recorded
from tfserve_nb.dashboards import dashboard_for
%load_ext tfserve_nb
fake = Recorded()
dashboard_for(fake)
"""
"""A dashboard on recorded data; `copy_helpers` puts its modules beside the notebook."""


def missing_tool() -> str:
    """What this ring needs and does not find, or ""."""
    if not Path(CHROMIUM).exists():
        return f"{CHROMIUM} is not installed (apt-get install chromium)"
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        return "jupyter-lab is not installed beside Python"
    return ""


def copy_helpers(root: Path, *names: str) -> None:
    """Put some of this package's modules into a folder of notebooks, which import them as the tests do."""
    (root / "helpers").mkdir()
    for name in names:
        shutil.copy(Path(__file__).with_name(f"{name}.py"), root / "helpers")


@contextmanager
def jupyter_lab(root: Path, **environment: str) -> Iterator[str]:
    """A JupyterLab server over a folder; yields its URL with a token."""
    token = secrets.token_hex(16)
    runtime = root.parent / "jupyter"
    settings = {name: str(runtime / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    settings |= {name: str(runtime / name.lower()) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")}
    for folder in settings.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    log = (root.parent / "lab.log").open("w")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
            "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
            "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
            "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **settings, **environment},
    )  # fmt: skip
    try:
        yield f"{_wait_for_server(Path(settings['JUPYTER_RUNTIME_DIR']), process)}?token={token}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        log.close()


def _wait_for_server(runtime: Path, process: subprocess.Popen[bytes]) -> str:
    """The base URL, once the server answers."""
    until_s = time.perf_counter() + START_LIMIT_S
    while time.perf_counter() < until_s and process.poll() is None:
        for info in runtime.glob("jpserver-*.json"):
            try:
                url: str = json.loads(info.read_text())["url"]
                with urllib.request.urlopen(f"{url}api", timeout=5):
                    return url
            except (OSError, ValueError, KeyError):
                pass  # not written to the end, or not listening yet
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start (exit code {process.poll()})")


class Lab:
    """One notebook in one page.

    Args:
        page: Playwright's.
        url: the server's, with token.
        notebook: its name in the server's root folder.
        view: `lab/tree` for JupyterLab, `notebooks` for Notebook 7.
    """

    def __init__(self, page: Any, url: str, notebook: str, view: str = "lab/tree") -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        base, token = url.split("?")
        page.goto(f"{base}{view}/{notebook}?{token}{'&reset' if view.startswith('lab') else ''}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        # Run before the kernel is connected, cells would open a dialog that asks for one.
        page.wait_for_function(
            """() => {
                const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
                return context?.isReady && context.session?.kernel?.status === 'idle';
            }""",
            timeout=120_000,
        )
        self.wait_until_idle()

    def wait_until_idle(self, limit_s: float = 120) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status='idle']", state="attached", timeout=limit_s * 1000
        )

    def run_all(self, limit_s: float = 300) -> None:
        """Run every cell and wait for the last one."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self._wait_for_results(limit_s)

    def add_and_run(self, source: str) -> None:
        """Append a cell at the end and start it."""
        page = self.page
        page.locator(".jp-Notebook .jp-Cell").last.click()
        page.keyboard.press("Escape")
        page.keyboard.press("b")
        page.keyboard.press("Enter")
        page.keyboard.insert_text(source)
        page.keyboard.press("Shift+Enter")

    def _wait_for_results(self, limit_s: float) -> None:
        """Every code cell has a number, none has a star."""
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);
                return prompts.length > 0 && prompts.every(text => /\\[\\d+\\]/.test(text) || /\\[ \\]/.test(text))
                    && prompts.some(text => /\\[\\d+\\]/.test(text));
            }""",
            timeout=limit_s * 1000,
        )
        self.wait_until_idle(limit_s)

    def output_errors(self) -> list[str]:
        """Tracebacks in the notebook."""
        return [one.inner_text() for one in self.page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all()
                if "Traceback" in one.inner_text()]  # fmt: skip


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def output(lab: Lab, text: str) -> Any:
    """The printed output that holds a text (not the source of the cell)."""
    return lab.page.locator(".jp-OutputArea-output pre", has_text=text)


@contextmanager
def chromium_page(**options: Any) -> Iterator[Any]:
    """A page in a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1100}, **options)
            page.set_default_timeout(1000 * PATIENCE_S)
            yield page
        finally:
            browser.close()
