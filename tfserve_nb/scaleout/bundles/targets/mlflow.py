"""MLflow: the versions as pyfunc models, logged and registered where MLflow's own settings say, with labels as aliases.

Thread: the caller's.
"""

from __future__ import annotations

from pathlib import Path

from ...mlflow.registry import RegisteredVersion, aliases_of, register
from ..contents import BundleContents
from ..files import Readme
from ..options import BundleOptions


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:  # noqa: ARG001 - it has no options
    """Write the MLflow models as `NUMBER/MLmodel`, and register them.

    Raises:
        InvalidOption: if there are several models.
        NotAvailable: if MLflow is not installed or does not answer.
        ModelNotServable: if a version is no SavedModel.
        ExportFailed: if MLflow's predictions are not those of the server.
    """
    model = contents.model
    folders = {version.number: version.folder for version in model.versions}
    registered = register(model.name, folders, model.labels, folder)
    has_example = (folder / str(model.default_version) / "serving_input_example.json").is_file()
    notes = aliases_of(model.labels)[1]
    return _readme(model.name, model.default_version, registered, notes, has_example=has_example)


def _readme(
    name: str, default: int, registered: list[RegisteredVersion], notes: tuple[str, ...], *, has_example: bool
) -> Readme:
    promoted = next(one for one in registered if one.version == default)
    uri = f"models:/{name}@{promoted.aliases[0]}" if promoted.aliases else promoted.uri
    asked = f"@{default}/serving_input_example.json" if has_example else "'{\"inputs\": ...}'"
    return Readme(
        title=f"{name} in MLflow",
        commands=(
            f"export MLFLOW_TRACKING_URI='{promoted.where}'",
            f"mlflow models serve --model-uri '{uri}' --env-manager local --port 5001",
            f"curl http://127.0.0.1:5001/invocations --header 'Content-Type: application/json' --data {asked}",
            f"python -c \"import mlflow; print(mlflow.pyfunc.load_model('{uri}').metadata.signature)\"",
            f"# in a notebook: %deploy {uri}",
        ),
        checked=tuple(f"Version {one.version}, {one.uri}: {one.remark}." for one in registered),
        not_run=("`mlflow models serve` with this model, and MLflow's other ways to serve one.",),
        notes=(
            *(f"Version {one.version} is {one.uri}{_run(one)}{_aliases(one)}." for one in registered),
            *(f"{note[0].upper()}{note[1:]}." for note in notes),
            "The folders here are the same MLflow models, for programs that reach no tracking server.",
        ),
    )


def _run(one: RegisteredVersion) -> str:
    return f", logged in run {one.run_id}" if one.run_id else ""


def _aliases(one: RegisteredVersion) -> str:
    return f", with the alias {' and '.join(one.aliases)}" if one.aliases else ""
