"""`%deploy` of models of MLflow in a private shell, with MLflow's store on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any  # the shell of conftest.py

import pytest

ROW = [[1.0, 2.0]]


# What MLflow does with SQLAlchemy is MLflow's to change.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_models_of_mlflow_are_deployed_by_a_magic_and_its_log_stays_out_of_the_cell(
    modeller: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    modeller.run("%deploy model --name net --label stable --quiet --out d")
    modeller.run("bundle = d.bundle('bundle', target='mlflow')")  # makes the tables of the store, too
    (run,) = {line.split("run ")[1].split(",")[0] for line in modeller.run("bundle.readme.notes") if "run " in line}

    modeller.run("%deploy models:/net@stable --out by_alias")
    modeller.run(f"%deploy runs:/{run}/model --name again --out by_run")

    for handle in ("by_alias", "by_run"):
        assert modeller.run(f"{handle}.predict({ROW}).tolist()") == [[2.0, 4.0]]
    assert modeller.run("by_alias.name, by_alias.version, by_run.name") == ("net", 2, "again")
    shown = "".join(capfd.readouterr())
    assert "fetching models:/net" in shown
    assert [noise for noise in ("INFO", "alembic", "Downloading", "mlflow.store") if noise in shown] == []
    assert logging.getLogger("mlflow").level == logging.INFO, "as MLflow set it"
