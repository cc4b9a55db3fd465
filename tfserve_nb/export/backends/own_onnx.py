"""Keras through its own ONNX export: as what a model on torch is served, which TensorFlow cannot trace.

Thread: the one that owns the model.

Reference: https://keras.io/api/models/model_saving_apis/export/
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any  # Keras' and ONNX's objects

from ...errors import ExportFailed
from ..endpoint import ExportSource, SingleFile, Structure, name_outputs, pack
from ..reasons import innermost
from ..single_file.source import ONNX_FILE, check_onnx_runs

_PREFIX = "keras/"
_HINT = "keep to operations that ONNX has; beside torch, Keras' export needs the packages onnx and onnxscript"


def as_onnx(
    source: ExportSource,
    arguments: Sequence[Structure],
    run: Callable[[Sequence[Any]], Structure],
    layer_names: Sequence[str],
) -> ExportSource:
    """A model in memory as one that is written as ONNX.

    Args:
        source: of the model.
        arguments: what it is called with: structures of anything, with a leaf for each of the source's inputs.
        run: takes one tensor for each of them, returns what the model returns.
        layer_names: for the names of its outputs; see `name_outputs`.

    Raises:
        NotAvailable: if ONNX Runtime is not installed.
    """
    check_onnx_runs(source.description)
    return replace(source, file=SingleFile("onnx", partial(_write, source, arguments, run, layer_names)))


def _write(
    source: ExportSource,
    arguments: Sequence[Structure],
    run: Callable[[Sequence[Any]], Structure],
    layer_names: Sequence[str],
    folder: Path,
) -> None:
    """Write `model.onnx` into a version's folder.

    Raises:
        ExportFailed: if Keras cannot, or what it wrote has other inputs or outputs than the model.
    """
    import keras
    import onnx

    (model,), file = source.tracked, folder / ONNX_FILE
    aliases = {f"in_{position}": spec.name for position, spec in enumerate(source.inputs)}
    specs = [
        keras.InputSpec(shape=spec.shape, dtype=spec.dtype, name=alias)
        for alias, spec in zip(aliases, source.inputs, strict=True)
    ]
    export: Callable[..., None] = model.export  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the exporters, about themselves
            export(str(file), format="onnx", input_signature=list(pack(list(arguments), specs)), verbose=False)
        written = onnx.load(str(file))
        outputs = _output_names(source, run, layer_names)
    except Exception as error:
        raise ExportFailed(
            f"{source.description} cannot be written as ONNX by Keras: {innermost(error)}", hint=_HINT
        ) from error
    inputs = {value.name: aliases.get(value.name.partition(":")[0], "") for value in written.graph.input}
    found = [value.name for value in written.graph.output]
    if "" in inputs.values() or len(inputs) != len(aliases) or len(found) != len(outputs):
        raise ExportFailed(
            f"Keras wrote {source.description} as ONNX with other inputs or outputs: {', '.join([*inputs, *found])}",
            hint=_HINT,
        )
    both = set(aliases.values()) & set(outputs)
    if both:
        raise ExportFailed(
            f"{source.description} has an input and an output of the name {both.pop()!r}, which ONNX does not allow",
            hint="name the layer or the key of the output otherwise",
        )
    onnx.save(_with_names(written, inputs, dict(zip(found, outputs, strict=True))), str(file))


def _output_names(
    source: ExportSource, run: Callable[[Sequence[Any]], Structure], layer_names: Sequence[str]
) -> list[str]:
    """The names of the outputs in the order in which Keras writes them: that of `keras.tree`, which sorts dicts."""
    import keras

    inputs = [keras.KerasTensor(spec.shape, spec.dtype) for spec in source.inputs]
    structure = run(inputs)
    names: list[str] = keras.tree.flatten(pack(structure, name_outputs(structure, layer_names)))
    return names


def _with_names(model: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
    """A model whose inputs and outputs have other names.

    Args:
        model: an `onnx.ModelProto`.
        inputs: name in the model -> wanted name.
        outputs: the same.
    """
    from onnx import compose, helper

    inner = compose.add_prefix(model, _PREFIX)  # no name in the graph is one of those that are wanted
    graph = inner.graph
    for place, value in enumerate(graph.input):
        name = inputs[value.name.removeprefix(_PREFIX)]
        graph.node.insert(place, helper.make_node("Identity", [name], [value.name]))
        value.name = name
    for value in graph.output:
        name = outputs[value.name.removeprefix(_PREFIX)]
        graph.node.append(helper.make_node("Identity", [value.name], [name]))
        value.name = name
    return inner
