"""Replicas on Ray and a notebook's server: the same through every protocol, and a weight that was changed is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.saved_models import write_half_plus_two
from helpers.second_server import second_server

from tfserve_nb.api.deployment import Deployment

ROWS = [[1.0], [2.0], [5.0]]
"""Of the input `x`; halved, and 3 more in version 2."""


@pytest.mark.parametrize("offset", [3.0, 3.01])
def test_replicas_answer_as_the_notebook_does(
    deployed: Deployment, model_folder: Path, tmp_path: Path, offset: float
) -> None:
    second = model_folder / "2" if offset == 3.0 else write_half_plus_two(tmp_path / "hpt" / "2", offset=offset)

    with second_server(tmp_path, "hpt", {1: model_folder / "1", 2: second}, stable=1) as notebook:
        result = notebook.parity(deployed, rows=ROWS, requests=0)

    if offset == 3.0:
        assert result.is_same, str(result)
        assert all(one.num_rows == len(ROWS) for one in result.predictions if one.where.signature == "serving_default")
        return
    assert result.exit_code == 1
    rows = [row for one in result.predictions for row in one.rows_that_differ if one.num_rows == len(ROWS)]
    assert {(row.where.version, row.where.signature, row.output) for row in rows} == {(2, "serving_default", "y[0]")}
    assert {row.where.door for row in rows} == {"REST, rows", "REST, columns", "V2", "gRPC"}
    assert all(row.difference == pytest.approx(0.01, abs=1e-4) for row in rows)
    assert sum(1 for _ in result.differing()) == 4, f"those predictions alone: {result}"
