"""Every notebook in notebooks/ runs from top to bottom, and is committed without results."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
TOKEN = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
"""What a token looks like: 32 random bytes in URL-safe base64."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def text_of(notebook: nbformat.NotebookNode) -> str:
    """All text in the outputs; figures are left out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") for output in outputs]
    texts += [str(value) for output in outputs for kind, value in output.get("data", {}).items() if kind[:5] == "text/"]
    return "\n".join(texts)


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"TFSERVE_NB_FAST": "1"})
    return notebook


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS][:1] == ["01_quickstart.ipynb"]


@pytest.mark.timeout(300)
@each_notebook
def test_the_notebook_runs_without_error(path: Path, tmp_path: Path) -> None:
    notebook = run(path, tmp_path)

    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code_cells)
    # A figure stays in the saved notebook, and so does a dashboard that needs no kernel to be read.
    kinds = {kind for cell in code_cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert TOKEN.findall(text_of(notebook)) == []


@each_notebook
def test_the_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)

    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id
