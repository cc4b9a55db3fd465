"""Notebooks run by nbclient in fast mode, and what their outputs and pages hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FAST = {"TFSERVE_NB_FAST": "1"}
"""What tells a notebook that a test runs it."""
TOKEN = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
"""What a token looks like: 32 random bytes in URL-safe base64."""


def text_of(notebook: nbformat.NotebookNode) -> str:
    """All text in the outputs; figures are left out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") for output in outputs]
    texts += [str(value) for output in outputs for kind, value in output.get("data", {}).items() if kind[:5] == "text/"]
    return "\n".join(texts)


def run(notebook: nbformat.NotebookNode, folder: Path, **environment: str) -> nbformat.NotebookNode:
    """Run a notebook from top to bottom in a folder; its outputs are in it then, also when a cell fails."""
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | FAST | environment)
    return notebook


def check_page(page: str, source: str) -> None:
    """What a notebook shows is in its page, which holds no token."""
    assert "data:image/png;base64," in page
    assert TOKEN.findall(re.sub(r"base64,[^\"]+|<(script|style).*?</\1>", "", page, flags=re.DOTALL)) == []
    if "%dashboard" in source:
        # The dashboard's last state is there without a kernel and without JavaScript.
        assert '<div class="tfs-still' in page
        assert "versions; percentiles over the last" in page
        assert page.count("<svg") >= 4
    if "%benchmark" in source:
        assert "requests of the warm-up are not counted" in page
    if "%abtest" in source:
        # What was taken back, by a test and by a limit, and what was promoted.
        assert "at equal batch sizes: rolled back" in page
        assert re.search("NaN or infinite, in 2 of the last [23] windows of 1 s: rolled back", page)
        assert "promoted by hand" in page
