"""What a person does: open the notebook in JupyterLab, run it, click while a cell is busy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.lab import RECORDED, Lab, chromium_page, copy_helpers, jupyter_lab, missing_tool, output, write_notebook

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(bool(missing_tool()), reason=missing_tool() or "-"),
    pytest.mark.timeout(400),  # a browser on a busy machine
]

BUSY = """
import time
print("busy", "now")
before, started_s, until_s = {version}, time.perf_counter(), time.perf_counter() + 600
while {version} == before and time.perf_counter() < until_s:
    pass
print("saw version", {version}, "while busy for", round(time.perf_counter() - started_s, 2), "s")
"""


def click_while_busy(lab: Lab, version: str, button: str) -> None:
    """Start a busy loop, click a button of the dashboard, and wait until the loop saw the change."""
    lab.add_and_run(BUSY.format(version=version))
    output(lab, "busy now").wait_for()
    lab.page.get_by_role("button", name=button, exact=True).last.click()
    output(lab, "saw version").wait_for()


def test_click_is_handled_while_a_cell_runs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_notebook(root / "fake.ipynb", RECORDED)
    copy_helpers(root, "recorded", "recorded_experiment")
    with jupyter_lab(root) as url, chromium_page() as page:
        lab = Lab(page, url, "fake.ipynb")
        lab.run_all()
        page.get_by_role("button", name="Roll back", exact=True).wait_for()

        click_while_busy(lab, "fake.version", "Roll back")

        assert "saw version 1 while busy" in output(lab, "saw version").inner_text()
        page.get_by_text("version 1 answers now").wait_for()
        assert lab.errors == []


def test_quickstart_runs_and_rolls_back_while_a_cell_is_busy(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", root)
    with jupyter_lab(root, TFSERVE_NB_FAST="1") as url, chromium_page() as page:
        lab = Lab(page, url, "01_quickstart.ipynb")
        lab.run_all()
        assert lab.output_errors() == []
        page.locator("caption:visible", has_text="digits: versions").last.scroll_into_view_if_needed()

        click_while_busy(lab, "d.version", "Roll back")

        assert "saw version 1 while busy" in output(lab, "saw version").inner_text()
        assert lab.errors == []
