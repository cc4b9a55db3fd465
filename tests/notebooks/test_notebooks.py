"""Every notebook in notebooks/ runs from top to bottom, and is committed without results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

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


def run_by_nbclient(path: Path, folder: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"TFSERVE_NB_FAST": "1"})
    return notebook


def run_by_papermill(path: Path, folder: Path) -> nbformat.NotebookNode:
    import papermill

    written = folder / f"papermill-{path.name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFSERVE_NB_FAST", "1")
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
    run = run_by_papermill if request.param.stem == BY_PAPERMILL else run_by_nbclient
    return Executed(request.param, run(request.param, folder))


def test_there_are_notebooks() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names[:3] == ["01_quickstart.ipynb", f"{BY_PAPERMILL}.ipynb", "03_benchmark.ipynb"]


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
        command, cwd=folder, env=os.environ | {"TFSERVE_NB_FAST": "1"}, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    check_page((folder / path.with_suffix(".html").name).read_text(), path.read_text())


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
