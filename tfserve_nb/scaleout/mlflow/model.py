"""A version's folder as an MLflow model: signature, input example, and a check that MLflow's `predict` answers alike.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # MLflow's module and its signatures

import numpy as np

from ...errors import InvalidRequest, ModelNotServable, RunFailed, ServingError
from ...export.check import compare_outputs, made_up_batches
from ...export.signatures import main_signature
from ...export.single_file.source import single_file
from ...export.warmup_requests import read_warmup_requests
from ...serving.engines.accelerated import SavedModelLoader
from ...types import SignatureSpec, Tensors, TensorSpec
from . import tfserve_nb_pyfunc

LOADER = "tfserve_nb_pyfunc"
"""The module that MLflow loads such a model with: a copy of ours of that name, in the model."""

MAX_EXAMPLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class Example:
    """Rows that the version was run on.

    Attributes:
        signature: of the version.
        inputs: input name -> array; None when no rows are known that run.
        outputs: what the server's own session answers; None when there are no rows, or answers differ each time.
        remark: what was checked and what not, in one sentence.
    """

    signature: SignatureSpec
    inputs: Tensors | None
    outputs: Tensors | None
    remark: str


def save(mlflow: Any, version_dir: Path, to: Path, metadata: Mapping[str, str]) -> str:
    """Write the MLflow model of a version, and see that MLflow loads it and that its answers are the server's.

    Args:
        mlflow: the module.
        version_dir: the version's folder; it is copied.
        to: where the model is written; must not be there.
        metadata: noted in the model.

    Returns:
        What was checked, in one sentence.

    Raises:
        ModelNotServable: if the version is no SavedModel.
        ExportFailed: if MLflow's predictions are not those of the server; the message names output and difference.
    """
    file = single_file(version_dir)
    if file is not None:
        raise ModelNotServable(
            f"{version_dir} holds {file.name}, which MLflow loads as its own flavour and not as a SavedModel",
            hint=f"log the file: mlflow.onnx.log_model(onnx.load('{file}'), name='model')",
        )
    example = _example(version_dir)
    signature = _signature(mlflow, example.signature)
    rows = None if example.inputs is None else _as_mlflow_takes(example.inputs)
    mlflow.pyfunc.save_model(
        path=str(to),
        loader_module=LOADER,
        data_path=str(version_dir),
        code_paths=[tfserve_nb_pyfunc.__file__],
        signature=signature,
        input_example=None if signature is None else rows,
        pip_requirements=[_pinned(name) for name in ("tensorflow", "numpy", "pandas")],
        metadata=dict(metadata),
    )
    loaded = mlflow.pyfunc.load_model(str(to))
    if rows is None:
        return "MLflow loads it; no rows are known on which it could be run"
    answers = loaded.predict(rows)
    if example.outputs is not None:
        named = answers if isinstance(answers, dict) else {next(iter(example.outputs)): answers}
        compare_outputs(example.outputs, named, sides=("the server", "MLflow's predict"))
    return example.remark


def _example(version_dir: Path) -> Example:
    """Rows of the version's warm-up file, else made-up ones, with the answers of a session as the server has."""
    with contextlib.closing(SavedModelLoader()(version_dir, None)) as servable:
        signature, effects = main_signature(servable.signatures), servable.effects
        for rows, kind in _candidates(version_dir, signature, may_make_up=not effects.outside_ops):
            try:
                outputs = servable.run(signature.name, rows)
            except (RunFailed, InvalidRequest):
                continue
            if effects.randomness or signature.name in effects.states:
                remark = f"mlflow.pyfunc's predict runs {kind}; answers differ each time and were not compared"
                return Example(signature, rows, None, remark)
            return Example(signature, rows, outputs, f"mlflow.pyfunc's predict answers {kind} as the server does")
    return Example(signature, None, None, "")


def _candidates(version_dir: Path, signature: SignatureSpec, *, may_make_up: bool) -> Iterator[tuple[Tensors, str]]:
    """Rows to try, the best first, and what they are."""
    with contextlib.suppress(ServingError):  # a damaged file warms nothing up, which loading the version says
        for request in read_warmup_requests(version_dir):
            if request.signature == signature.name and not request.is_examples:
                yield {name: array[:MAX_EXAMPLE_ROWS] for name, array in request.inputs.items()}, "rows of its warm-up"
                break
    if may_make_up:
        for batch in made_up_batches(signature):
            yield batch, "made-up rows"


def _signature(mlflow: Any, signature: SignatureSpec) -> Any:
    """MLflow's signature of the same tensors; None where it has no word for a type or a rank."""
    spec_of, schema_of = mlflow.types.TensorSpec, mlflow.types.Schema

    def schema(tensors: Mapping[str, TensorSpec]) -> Any:
        shapes = {name: [-1 if size is None else size for size in spec.shape or ()] for name, spec in tensors.items()}
        return schema_of([spec_of(_mlflow_dtype(spec), shapes[name], name) for name, spec in tensors.items()])

    tensors = (*signature.inputs.values(), *signature.outputs.values())
    if any(spec.shape is None or not _has_word(spec) for spec in tensors):
        return None
    return mlflow.models.ModelSignature(schema(signature.inputs), schema(signature.outputs))


def _has_word(spec: TensorSpec) -> bool:
    return spec.dtype == "string" or spec.numpy_dtype.kind in "biufc"


def _mlflow_dtype(spec: TensorSpec) -> np.dtype:
    return np.dtype(str) if spec.dtype == "string" else spec.numpy_dtype


def _as_mlflow_takes(inputs: Tensors) -> dict[str, np.ndarray] | None:
    """The same rows with text as text; None when it is bytes that are none."""
    try:
        return {name: _as_text(array) if array.dtype.kind == "O" else array for name, array in inputs.items()}
    except UnicodeDecodeError:
        return None


def _as_text(array: np.ndarray) -> np.ndarray:
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.reshape(-1)]
    return np.array(texts, dtype=str).reshape(array.shape)


def _pinned(package: str) -> str:
    """What others install: the release that it was checked with, where it is installed under that name."""
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package
