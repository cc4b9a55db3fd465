"""Every notebook in notebooks/ runs from top to bottom, and is committed without results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from helpers.notebook_runs import FAST, TOKEN, check_page, run, text_of
from nbconvert import HTMLExporter

BEYOND = "06_beyond_the_notebook"
"""Starts Ray, which fails beside other tests: the ray ring runs it."""
ALL = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [path for path in ALL if path.stem != BEYOND]
each_notebook = pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])


def run_by_papermill(path: Path, folder: Path) -> nbformat.NotebookNode:
    import papermill

    written = folder / f"papermill-{path.name}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FAST.items():
            patch.setenv(name, value)
        papermill.execute_notebook(str(path), str(written), cwd=str(folder), progress_bar=False, kernel_name="python3")
    return nbformat.read(written, as_version=4)


BY_PAPERMILL = "02_versions_and_rollback"
"""The notebook that papermill runs, in nbclient's place."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs of all notebooks, as on a person's machine: what an earlier run left does not disturb."""
    return tmp_path_factory.mktemp("notebooks")


@dataclass(frozen=True)
class Executed:
    """A notebook that was run from top to bottom."""

    path: Path
    notebook: nbformat.NotebookNode


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def executed(request: pytest.FixtureRequest, folder: Path) -> Executed:
    """Each notebook, run once for all tests."""
    if request.param.stem == BY_PAPERMILL:
        return Executed(request.param, run_by_papermill(request.param, folder))
    return Executed(request.param, run(nbformat.read(request.param, as_version=4), folder))


def test_there_are_notebooks() -> None:
    names = [path.stem for path in ALL]
    assert names[:3] == ["01_quickstart", BY_PAPERMILL, "03_benchmark"]
    assert BEYOND in names


def test_the_notebook_runs_without_error(executed: Executed) -> None:
    code_cells = [cell for cell in executed.notebook.cells if cell.cell_type == "code"]

    assert all(cell.execution_count for cell in code_cells)
    # A figure stays in the saved notebook, and so does a dashboard that needs no kernel to be read.
    kinds = {kind for cell in code_cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert TOKEN.findall(text_of(executed.notebook)) == []


def test_the_html_of_a_notebook_can_be_read(executed: Executed) -> None:
    page, _ = HTMLExporter().from_notebook_node(executed.notebook)

    check_page(page, executed.path.read_text())


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


def test_nbconvert_runs_a_notebook_again(folder: Path) -> None:
    path = NOTEBOOKS[0]
    shutil.copy(path, folder)
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--to", "html", path.name]

    done = subprocess.run(
        command, cwd=folder, env=os.environ | FAST, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    check_page((folder / path.with_suffix(".html").name).read_text(), path.read_text())
