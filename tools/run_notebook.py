"""Run notebooks without a browser, and show their headings, printed results and errors in the terminal as they come.

Usage: python tools/run_notebook.py NOTEBOOK... [--keep FOLDER] [--save FOLDER]

Each notebook runs in a kernel of its own. It works in a temporary folder, so that the models which it exports and the
state beside them leave nothing behind; `--keep FOLDER` names a folder that stays. `--save FOLDER` writes the executed
notebook there. The exit code is 1 as soon as a cell fails.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).parents[1]
CELL_TIMEOUT_S = 300
MAX_STDERR_CHARS = 4000
HEADING = re.compile(r"^#{1,3} +(.+)$", re.MULTILINE)
TAG = re.compile(r"<[^>]*>")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
START_UP_NOISE = re.compile(
    r"^([IWE]0000 .*|WARNING: All log messages before absl::InitializeLog.*|To enable the following instructions.*)\n?",
    re.MULTILINE,
)
"""What TensorFlow writes before its logging can be configured: no environment variable keeps it silent."""

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONWARNINGS": "ignore"}
"""Environment of the kernel: what TensorFlow and the debugger say at their start is no result of the notebook."""


class Terminal:
    """Shows the progress of one notebook; nbclient calls the `on_*` methods."""

    def __init__(self, num_code_cells: int) -> None:
        self.num_code_cells = num_code_cells
        self.num_started = 0
        self.started_s = time.perf_counter()

    def on_cell_start(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Show the headings of a text cell, or that a code cell starts."""
        if cell.cell_type == "markdown":
            for heading in HEADING.findall(cell.source):
                print(f"\n── {heading}", flush=True)
        elif cell.cell_type == "code":
            self.num_started += 1
            elapsed_s = time.perf_counter() - self.started_s
            first_line = next((line for line in cell.source.splitlines() if line.strip()), "")
            print(f"[{self.num_started}/{self.num_code_cells}, {elapsed_s:4.1f} s] {first_line[:90]}", flush=True)

    def on_cell_executed(self, cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        """Show the text outputs of a code cell."""
        for output in cell.outputs:
            for line in text_of(output).splitlines():
                print(f"    {line}", flush=True)


def text_of(output: nbformat.NotebookNode) -> str:
    """The text that a terminal shows for one output; figures and widgets have none of interest."""
    if output.output_type == "stream":
        # A carriage return begins the line anew: what was before it is not seen any more.
        text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n"))
        return START_UP_NOISE.sub("", ESCAPES.sub("", text)).rstrip()
    if output.output_type == "error":
        return ESCAPES.sub("", "\n".join(output.traceback))
    if "image/png" in output.data:
        return "(a figure; see it with: make lab)"
    plain = str(output.data.get("text/plain", ""))
    if plain.startswith("<IPython.core.display."):
        # What a browser shows is HTML; its text is what the terminal can show of it.
        return html.unescape(TAG.sub("", str(output.data.get("text/html", ""))))
    return plain


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run one notebook in `folder` and return it with its outputs.

    Raises:
        CellExecutionError: if a cell fails.
        CellTimeoutError: if a cell takes longer than `CELL_TIMEOUT_S`.
        DeadKernelError: if the kernel dies.
    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    terminal = Terminal(sum(cell.cell_type == "code" for cell in notebook.cells))
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        on_cell_start=terminal.on_cell_start,
        on_cell_executed=terminal.on_cell_executed,
    )
    # The kernel repeats on its own stderr what it sends as outputs; it is wanted only when the kernel dies.
    with tempfile.TemporaryFile("w+", errors="replace") as kernel_stderr:
        try:
            client.execute(env=os.environ | QUIET, stderr=kernel_stderr)
        except DeadKernelError:
            kernel_stderr.seek(0)
            print(kernel_stderr.read()[-MAX_STDERR_CHARS:], file=sys.stderr)
            raise
    print(f"\n{path.name}: all {terminal.num_code_cells} cells ran in {time.perf_counter() - terminal.started_s:.1f} s")
    return notebook


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run there and leave the exported models")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the notebooks with their outputs there")
    options = parser.parse_args()
    for path in options.notebooks:
        print(f"Running {path} (a fresh kernel; importing TensorFlow takes some seconds)", flush=True)
        with tempfile.TemporaryDirectory(prefix="tfserve-nb-") as temporary:
            folder = options.keep or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                notebook = run(path, folder.resolve())
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                print(f"\n{path}: stopped: {error.__class__.__name__}", file=sys.stderr)
                return 1
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, options.save / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
