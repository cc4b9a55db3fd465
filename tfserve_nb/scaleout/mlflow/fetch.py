"""Models of MLflow as something that can be deployed: `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/PATH`.

Only files are read: a SavedModel, a Keras file, an ONNX file. Code that came with a model is not run.

Thread: the one that deploys.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # models of the user, MLflow's module

from ...errors import ModelNotServable
from ...export.layout import is_below
from ...export.reasons import innermost
from ...export.signatures import SAVED_MODEL_FILE
from ...temporary import TemporaryFolder
from ...types import Progress, ProgressEvent
from .model import LOADER
from .tracking import address, tracking
from .uris import MODELS, alias_of, is_uri, name_of

FLAVORS = ("tensorflow", "keras", "onnx")
"""MLflow's flavours whose files can be served."""

_KERAS_SUFFIXES = (".keras", ".h5")
_NAMES = ("", "model", "model.keras", "model.h5", "model.onnx")
"""Where the model lies, below the folder that the flavour names."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was given to be deployed.

    Attributes:
        model: as `prepare_source` takes it.
        origin: where it comes from, for its provenance; "" for a model of this process.
    """

    model: Any
    origin: str = ""


@contextlib.contextmanager
def fetched(model: Any, progress: Progress) -> Iterator[Given]:
    """What a user gave, or the model of MLflow that a URI names, which lies in a temporary folder until this ends.

    Args:
        model: a model, or a URI.
        progress: called with each step.

    Raises:
        NotAvailable: if MLflow is not installed, does not answer, or has no such model.
        ModelNotServable: if it is of a flavour that cannot be served.
    """
    if not is_uri(model):
        yield Given(model)
        return
    progress(ProgressEvent("fetching", 0, 1, model))
    with TemporaryFolder("tfserve-mlflow") as folder:
        with tracking(f"give {model}", lambda mlflow: _there_is(mlflow, model)) as mlflow:
            pinned = _pinned(mlflow, model)
            root = Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder.path)))
            is_model = (root / "MLmodel").is_file()
            flavors = mlflow.models.Model.load(str(root)).flavors if is_model else {}
            origin = f"MLflow model {pinned} of {address(mlflow)}"
        file = _file(root, flavors, model) if is_model else root
        progress(ProgressEvent("fetching", 1, 1, pinned))
        yield Given(_loaded(file, model), origin if pinned == model else f"{origin}, asked for as {model}")


def _pinned(mlflow: Any, uri: str) -> str:
    """The same model by its number, since aliases move."""
    name, alias = alias_of(uri)
    if not alias:
        return uri
    return f"models:/{name}/{mlflow.MlflowClient().get_model_version_by_alias(name, alias).version}"


def _there_is(mlflow: Any, uri: str) -> str:
    """What could have been meant by a URI of something that is not there; "" when that is not known."""
    if not uri.startswith(MODELS):
        return ""
    name, client = name_of(uri), mlflow.MlflowClient()
    models = {one.name: one for one in client.search_registered_models()}
    if name not in models:
        names = difflib.get_close_matches(name, models, n=3) or sorted(models)[:10]
        return "there is no such model; there are " + ", ".join(names) if names else "no model is registered there"
    versions = sorted(int(one.version) for one in client.search_model_versions(f'name = "{name}"'))
    aliases = ", ".join(f"@{alias}" for alias in sorted(client.get_registered_model(name).aliases)) or "no alias"
    return f"{name} has version {', '.join(map(str, versions))}, and {aliases}"


def _file(root: Path, flavors: Mapping[str, Any], uri: str) -> Path:
    """The SavedModel folder or the file of a model that can be served."""
    own = flavors.get("python_function", {})
    places = [root / str(own.get("data", ""))] if own.get("loader_module") == LOADER else []
    for flavor in FLAVORS:
        if flavor in flavors:
            base = str(flavors[flavor].get("saved_model_dir") or flavors[flavor].get("data") or "model")
            places += [root / base / name for name in _NAMES]
            places += [root / f"{base}{suffix}" for suffix in _KERAS_SUFFIXES]
    for place in places:
        is_file = place.suffix in (*_KERAS_SUFFIXES, ".onnx") and place.is_file()
        # A path in the model's description may lead anywhere.
        if (is_file or (place / SAVED_MODEL_FILE).is_file()) and is_below(place, [root.resolve()]):
            return place
    found = ", ".join(sorted(flavors.keys() - {"python_function"})) or own.get("loader_module", "unknown")
    raise ModelNotServable(
        f"{uri} is a model of MLflow's flavour {found}, which cannot be served",
        hint=f"served are {', '.join(FLAVORS)}, and what d.bundle(target='mlflow') logged",
    )


def _loaded(file: Path, uri: str) -> Any:
    """A Keras file as the model that it holds; everything else is deployed by its path."""
    if file.suffix not in _KERAS_SUFFIXES:
        return file
    import keras

    try:
        return keras.saving.load_model(file)
    except Exception as error:
        raise ModelNotServable(
            f"the Keras file of {uri} cannot be loaded: {innermost(error)}",
            hint="load it with its custom objects, mlflow.keras.load_model(...), and deploy the model",
        ) from error
