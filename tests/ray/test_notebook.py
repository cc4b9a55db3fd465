"""The notebook that goes beyond one process: it runs here, where no other Ray starts at the same time."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import psutil
import pytest
from helpers.eventually import eventually
from helpers.notebook_runs import check_page, run, text_of
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_beyond_the_notebook.ipynb"
MARK = "STARTED_BY_A_TEST"
"""A variable that every process of the notebook has in its environment."""
FAILING = f"""
import psutil
running = psutil.process_iter(["name", "environ"])
names = [one.info["name"] for one in running if "{MARK}" in (one.info["environ"] or ())]
raise RuntimeError(f"a cell fails, and these run: {{names}}")
"""


def left_over(mark: str) -> list[str]:
    """The processes with this mark."""
    found = psutil.process_iter(["name", "environ"])
    return [one.info["name"] for one in found if (one.info["environ"] or {}).get(MARK) == mark]


def run_to_the_failing_cell(tmp_path: Path) -> tuple[nbformat.NotebookNode, str]:
    """The notebook with a cell that fails in place of the last one, which stops everything; and the error."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.source.splitlines() == ["r.stop()", "d.undeploy()"]
    last.source = FAILING
    with pytest.raises(CellExecutionError) as error:
        run(notebook, tmp_path, **{MARK: str(tmp_path)})
    return notebook, str(error.value)


def test_the_notebook_is_right_to_the_end_and_leaves_nothing_when_a_cell_fails(tmp_path: Path) -> None:
    """Its own cells check the answers."""
    notebook, error = run_to_the_failing_cell(tmp_path)
    if "ServerFailed" in error:  # after its own tries: Ray's limits are short for a busy machine, and cannot be set
        notebook, error = run_to_the_failing_cell(tmp_path)

    assert re.search("a cell fails, and these run: .*raylet", error), error
    eventually(lambda: not left_over(str(tmp_path)))
    shown = text_of(notebook)
    assert "0 answers wrong, 0 lost" in shown
    assert "the same: " in shown
    page, _ = HTMLExporter().from_notebook_node(notebook)
    check_page(page, NOTEBOOK.read_text())
    assert "Replicas on Ray: " in page
