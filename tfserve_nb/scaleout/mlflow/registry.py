"""Versions of a model in MLflow's registry: logged, registered, and found by the aliases that our labels become.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # MLflow's module, client and runs

from ...errors import FailedPrecondition
from ...export.provenance.provenance import read_provenance
from ...serving.engines.artefacts import fingerprint
from .model import save
from .tracking import address, tracking

MODEL = "model"
"""What the logged model is called in its run, as MLflow's examples call it: `runs:/RUN/model`."""

VERSION_TAG, FINGERPRINT_TAG = "tfserve_nb.version", "tfserve_nb.fingerprint"
_ALIAS = re.compile(r"[\w-]{1,255}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version as MLflow has it.

    Attributes:
        version: its number here.
        uri: `models:/NAME/NUMBER`, with the registry's number.
        run_id: the run that it was logged in; "" when there is none.
        aliases: that point to it.
        remark: what was checked, in one sentence.
        where: the tracking server or store, without passwords.
    """

    version: int
    uri: str
    run_id: str
    aliases: tuple[str, ...]
    remark: str
    where: str


def aliases_of(labels: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels that can be aliases, and a line for each that cannot.

    MLflow takes letters, digits, `_` and `-`, and keeps `latest` and `v3` for itself.
    """
    given = sorted(labels)
    possible = [label for label in given if _ALIAS.fullmatch(label) and not _RESERVED.fullmatch(label)]
    notes = [
        f"the label {label!r} cannot be an alias of MLflow, which takes letters, digits, _ and -, and neither 'latest' "
        "nor 'v1'"
        for label in given
        if label not in possible
    ]
    return tuple(possible), tuple(notes)


def register(name: str, versions: Mapping[int, Path], labels: Mapping[str, int], to: Path) -> list[RegisteredVersion]:
    """Log and register the versions of a model, where MLflow's own settings say, and set the aliases.

    A version that was registered before is not logged again; its aliases move.

    Args:
        name: the model's name, here and there.
        versions: number -> the version's folder.
        labels: label -> number.
        to: a folder for the MLflow models, as `NUMBER/MLmodel`; made if it is not there.

    Returns:
        The versions, in order of their numbers.

    Raises:
        NotAvailable: if MLflow is not installed or does not answer.
        ModelNotServable: if a version is no SavedModel.
        ExportFailed: if MLflow's predictions are not those of the server.
    """
    registered = []
    with tracking(f"register {name}") as mlflow:
        client = mlflow.MlflowClient()
        for version, folder in sorted(versions.items()):
            tags = {VERSION_TAG: str(version), FINGERPRINT_TAG: fingerprint(folder)}
            remark = save(mlflow, folder, to / str(version), {"model": name, **tags})
            found = _found(client, name, tags) or _log(mlflow, client, name, version, folder, to / str(version), tags)
            aliases, _ = aliases_of(label for label, number in labels.items() if number == version)
            for alias in aliases:
                client.set_registered_model_alias(name, alias, found.version)
            uri = f"models:/{name}/{found.version}"
            registered.append(RegisteredVersion(version, uri, found.run_id or "", aliases, remark, address(mlflow)))
    return registered


def _found(client: Any, name: str, tags: Mapping[str, str]) -> Any:
    """The registry's version with the same number, graph and weights; None without one."""
    known = client.search_model_versions(f'name = "{name}"')
    return next((one for one in known if tags.items() <= one.tags.items() and one.status == "READY"), None)


def _log(mlflow: Any, client: Any, name: str, version: int, folder: Path, saved: Path, tags: Mapping[str, str]) -> Any:
    """Log an MLflow model that lies in a folder in the run that is active, or in one of its own, and register it."""
    active = mlflow.active_run()
    run_of = contextlib.nullcontext(active) if active else mlflow.start_run(run_name=f"{name} version {version}")
    with run_of as run:
        logged = mlflow.initialize_logged_model(name=MODEL, source_run_id=run.info.run_id, tags=dict(tags))
        try:
            _note(mlflow, saved, logged.model_id, run.info.run_id)
            client.log_model_artifacts(logged.model_id, str(saved))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(logged.model_id, 0)])
        for metric, value in _metrics(folder).items():
            client.log_metric(run.info.run_id, metric, value)
    if not client.search_registered_models(f'name = "{name}"'):
        client.create_registered_model(name)
    return client.create_model_version(
        name, f"models:/{logged.model_id}", run_id=run.info.run_id, tags=dict(tags), model_id=logged.model_id
    )


def _note(mlflow: Any, saved: Path, model_id: str, run_id: str) -> None:
    """Have the model say which one it is in MLflow."""
    model = mlflow.models.Model.load(str(saved))
    model.model_id, model.run_id = model_id, run_id
    model.save(str(saved / "MLmodel"))


def _metrics(folder: Path) -> Mapping[str, float]:
    """Those of the version's provenance."""
    try:
        found = read_provenance(folder)
    except FailedPrecondition:  # a damaged file; the version serves all the same
        return {}
    return {} if found is None else {name: float(value) for name, value in found.metrics.items()}
