"""What the magics tell a version about itself, and `%serving --diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any  # the shell of conftest.py

import pytest
from IPython.core.error import UsageError

from tfserve_nb.diff.result import VersionDiff
from tfserve_nb.errors import VersionNotFound


def run_in_history(shell: Any, cell: str) -> Any:
    """Run a cell as a person does, with a number of its own."""
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result.result


def test_the_cell_is_stored_as_it_was_typed_with_its_number_and_without_secrets(modeller) -> None:
    run_in_history(modeller, "word = 'net'")
    cell = "%%deploy --name $word --out d --quiet  # as typed\ntoken = 'hunter2'\nmodel = make(3.0)\nmodel"
    run_in_history(modeller, cell)

    code = modeller.user_ns["d"].provenance(1).code

    assert code.source == cell.replace("hunter2", "[redacted]")
    assert (code.kind, code.execution_count, code.cell_id, code.num_redacted) == ("cell", 2, "", 1)


def test_the_line_magic_stores_the_cell_that_it_stands_in(modeller) -> None:
    run_in_history(modeller, "x = 1\n%deploy model --name net --out d --quiet")

    assert modeller.user_ns["d"].provenance(1).code.source == "x = 1\n%deploy model --name net --out d --quiet"


def test_cells_without_history_are_known_to_the_cell_magic(modeller) -> None:
    modeller.run("%%deploy --name net --out d -q\nmake(3.0)")

    assert modeller.user_ns["d"].provenance(1).code.source == "%%deploy --name net --out d -q\nmake(3.0)"


def test_data_metrics_and_seed_are_variables_and_numbers(modeller) -> None:
    modeller.run("x = np.ones((6, 2), np.float32); found = {'acc': 0.9}")
    modeller.run("%deploy model --name net --data x --metrics found --seed 7 --out d -q")

    told = modeller.user_ns["d"].provenance(1)

    assert (told.data.shape, told.metrics, told.seed) == ((6, 2), {"acc": 0.9}, 7)


def test_no_provenance_stores_nothing(modeller) -> None:
    modeller.run("%deploy model --name net --no-provenance -q")

    assert not Path("tfserve_models/net/1/assets.extra").exists()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("%deploy model --data nothing", "--data 'nothing': there is no variable"),
        ("%deploy model --metrics model", "metrics is a Sequential, not a dict of numbers"),
        ("%deploy model --seed x", "invalid int value"),
        ("%serving net --diff 1", "expected 2 arguments"),
        ("%serving net --diff 1 2 --values nothing", "--values 'nothing': there is no variable"),
    ],
)
def test_wrong_options_are_usage_errors(modeller, line: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        modeller.run(line)


def test_diff_shows_what_two_versions_differ_in(modeller, capsys) -> None:
    modeller.run("%%deploy --name net --out d -q --label stable\nmake(2.0)")
    modeller.run("%%deploy --name net -q\nmake(5.0)")
    modeller.run("rows = np.ones((4, 2), np.float32)")

    diff = modeller.run("%serving net --diff stable 2 --values rows")

    assert isinstance(diff, VersionDiff)
    assert (diff.a, diff.b, diff.agreement["output_0"].largest_difference) == (1, 2, 3.0)
    shown, _ = modeller.display_formatter.format(diff)
    assert "-make(2.0)\n" in shown["text/plain"]
    assert "+make(5.0)\n" in shown["text/plain"]
    assert "<table" in shown["text/html"]
    json.dumps(shown)
    with pytest.raises(VersionNotFound, match="version 9"):
        modeller.run("%serving net --diff 1 9")
