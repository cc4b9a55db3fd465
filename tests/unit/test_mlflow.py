"""The way to MLflow, as far as it needs no MLflow: URIs, aliases, and what is said when it is not there."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from tfserve_nb.errors import NotAvailable
from tfserve_nb.notebook.arguments import look_up_model
from tfserve_nb.scaleout.mlflow.registry import aliases_of
from tfserve_nb.scaleout.mlflow.tracking import address, tracking
from tfserve_nb.scaleout.mlflow.uris import alias_of, is_uri, name_of


@pytest.mark.parametrize(
    ("uri", "name", "alias"),
    [
        ("models:/digits@stable", "digits", ("digits", "stable")),
        ("models:/digits/3", "digits", ("", "")),
        ("models:/digits/latest", "digits", ("", "")),
        ("runs:/5f0e/models/digits", "digits", ("", "")),
        ("runs:/5f0e/my@model", "my@model", ("", "")),
    ],
)
def test_a_model_is_called_as_in_mlflow(uri: str, name: str, alias: tuple[str, str]) -> None:
    assert is_uri(uri)
    assert look_up_model({}, uri) == uri
    assert name_of(uri) == name
    assert alias_of(uri) == alias


@pytest.mark.parametrize("value", ["models/digits", "./runs:/x", "model", 3, None])
def test_other_values_are_no_models_of_mlflow(value: object) -> None:
    assert not is_uri(value)


def test_a_label_becomes_an_alias_where_mlflow_takes_it() -> None:
    aliases, notes = aliases_of(["stable", "canary-2", "latest", "Latest", "v3", "v3b", "eu.west", "mit leer"])

    assert aliases == ("canary-2", "stable", "v3b")
    assert len(notes) == 5
    assert "the label 'eu.west' cannot be an alias of MLflow" in notes[1]


@pytest.mark.parametrize("missing", ["mlflow", "pandas"])
def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))

    with pytest.raises(NotAvailable, match=f"{missing} is not installed") as error, tracking("register digits"):
        pytest.fail("MLflow is not there")
    assert error.value.hint == "pip install 'tfserve_nb[mlflow]'"


def test_the_address_of_a_store_is_shown_without_its_password() -> None:
    mlflow = SimpleNamespace(get_tracking_uri=lambda: "postgresql://me:hunter2@db.example.org/mlflow")

    assert "hunter2" not in address(mlflow)
    assert "db.example.org/mlflow" in address(mlflow)
