"""A test that fails shows what its servers wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROJECT = """
import pytest
from helpers.server_logs import shown_on_failure

@pytest.fixture
def server(tmp_path):
    log = tmp_path / "log"
    log.write_text("server: a line of the log")
    with shown_on_failure("server 12", log):
        yield

@pytest.fixture
def server_that_does_not_start(server):
    raise OSError("did not start")

def test_passes(server):
    pass

def test_fails(server):
    assert not "wrong"

def test_cannot_begin(server_that_does_not_start):
    pass

def test_fails_without_a_server():
    assert not "wrong"
"""


def report_of(folder: Path, test: str) -> str:
    """What pytest prints of one test, with the hooks of these tests."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_project.py").write_text(PROJECT)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", f"test_project.py::{test}"]
    program = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import pytest; sys.exit(pytest.main({command[3:]!r}))"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    ).stdout


def test_the_log_stands_in_the_report_of_a_test_that_fails_and_of_one_whose_server_fails(tmp_path: Path) -> None:
    for test in ("test_fails", "test_cannot_begin"):
        text = report_of(tmp_path, test)
        assert "log of server 12" in text
        assert "server: a line of the log" in text


def test_it_does_not_stand_where_it_has_no_part(tmp_path: Path) -> None:
    assert "1 passed" in report_of(tmp_path, "test_passes")
    text = report_of(tmp_path, "test_fails_without_a_server")
    assert "1 failed" in text
    assert "server" not in text.partition("short test summary")[0].replace("test_fails_without_a_server", "").replace(
        str(tmp_path), ""
    )
