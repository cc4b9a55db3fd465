"""Every notebook in notebooks/ runs from top to bottom, and is committed without results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"TFSERVE_NB_FAST": "1"})
    return notebook


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs of all notebooks, as on a person's machine: what an earlier run left does not disturb."""
    return tmp_path_factory.mktemp("notebooks")


def test_there_are_notebooks() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names[:3] == ["01_quickstart.ipynb", "02_versions_and_rollback.ipynb", "03_benchmark.ipynb"]


@each_notebook
def test_the_notebook_runs_without_error(path: Path, folder: Path) -> None:
    notebook = run(path, folder)

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


class GrowingList(list[tuple[float, str]]):
    """A list that clients in other threads add to all the time."""

    def __iter__(self) -> Iterator[tuple[float, str]]:
        self.append((float(len(self)), "1"))
        return super().__iter__()


def test_the_figure_of_which_version_answered_can_be_drawn_while_clients_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    notebook = nbformat.read(NOTEBOOKS[1], as_version=4)
    cell = next(cell.source for cell in notebook.cells if "which version answered:" in cell.source)

    exec(compile(cell, NOTEBOOKS[1].name, "exec"), {"responses": GrowingList([(0.0, "2")]), "plt": plt})  # noqa: S102

    plt.close("all")


@each_notebook
def test_papermill_runs_the_notebook(path: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill

    monkeypatch.setenv("TFSERVE_NB_FAST", "1")

    papermill.execute_notebook(
        str(path), str(tmp_path / path.name), cwd=str(folder), progress_bar=False, kernel_name="python3"
    )

    done = nbformat.read(tmp_path / path.name, as_version=4)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")


@each_notebook
def test_nbconvert_runs_the_notebook_and_its_html_can_be_read(path: Path, folder: Path) -> None:
    shutil.copy(path, folder)
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--to", "html", path.name]

    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"TFSERVE_NB_FAST": "1"}, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    page = (folder / path.with_suffix(".html").name).read_text()
    assert "data:image/png;base64," in page
    assert TOKEN.findall(re.sub(r"base64,[^\"]+|<(script|style).*?</\1>", "", page, flags=re.DOTALL)) == []
    if "%dashboard" in path.read_text():
        # The dashboard's last state is there without a kernel and without JavaScript.
        assert '<div class="tfs-still' in page
        assert "versions; percentiles over the last" in page
        assert page.count("<svg") >= 4
    if "%benchmark" in path.read_text():
        assert "requests of the warm-up are not counted" in page
    if "%abtest" in path.read_text():
        # What was taken back, by a test and by a limit, and what was promoted.
        assert "at equal batch sizes: rolled back" in page
        assert re.search("NaN or infinite, in 2 of the last [23] windows of 1 s: rolled back", page)
        assert "promoted by hand" in page
