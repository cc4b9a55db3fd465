"""Keras models as something exportable: sequential, functional and subclassed ones.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ModelNotServable
from ..types import TensorSpec
from .arrays import as_array
from .endpoint import (
    ExportSource,
    Structure,
    free_batch,
    is_made_up_layer_name,
    leaves,
    name_inputs,
    name_outputs,
    pack,
)

_EXACTNESS = ("float64", "float32", "bfloat16", "float16")
"""From exact to coarse as far as tolerances go: float16 computations also overflow, so they count as the coarsest."""

_CHECK_HINT = "give a batch of its inputs: --check VARIABLE (from Python: example=batch)"


def is_keras_object(value: object) -> bool:
    """Whether a value is a Keras layer or model; Keras is not imported for this."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.layers.Layer)


def is_built_keras_object(value: object) -> bool:
    """Whether a value is a Keras layer or model that has its weights."""
    return is_keras_object(value) and bool(getattr(value, "built", False))


def keras_source(model: Any, example: object = None) -> ExportSource:
    """Make a Keras model exportable.

    Args:
        model: a built `keras.Model`, or a layer (which is refused).
        example: a batch of inputs as the user would pass it to the model; needed only for a subclassed model whose
            inputs Keras did not record, and to learn the types of a subclassed model's inputs.

    Raises:
        ModelNotServable: if it cannot be exported; the hint names the next step.
    """
    import keras

    description = f"{type(model).__name__} {model.name!r}"
    if keras.backend.backend() != "tensorflow":
        raise ModelNotServable(
            f"{description} runs on the Keras backend {keras.backend.backend()!r}; only 'tensorflow' can be served",
            hint="restart the kernel and run this before Keras is imported: %env KERAS_BACKEND=tensorflow",
        )
    if not isinstance(model, keras.Model):
        raise ModelNotServable(
            f"{description} is a Keras layer, not a model", hint="keras.Sequential([keras.Input(shape), layer])"
        )
    _check_built(model, description)
    flat_inputs = _recorded_inputs(model)
    if flat_inputs is not None:
        return _functional_source(model, flat_inputs, description)
    return _subclassed_source(model, example, description)


def _check_built(model: Any, description: str) -> None:
    # Keras sets `built` for a subclassed model as soon as build() was called, even when its layers have no weights yet.
    was_called = getattr(model, "_called", True)
    unbuilt = [layer.name for layer in model.layers if not layer.built]
    if not model.built or (unbuilt and not was_called):
        raise ModelNotServable(
            f"{description} has no weights yet: it was never built, called or trained",
            hint="train it, or call it once on a batch: model(x[:1])",
        )


def _recorded_inputs(model: Any) -> list[Any] | None:
    """The symbolic input tensors of a sequential or functional model; None for a subclassed one."""
    import keras

    try:
        inputs = model.inputs
    except AttributeError:
        return None
    is_symbolic = isinstance(inputs, list | tuple) and all(isinstance(x, keras.KerasTensor) for x in inputs)
    return list(inputs) if is_symbolic and inputs else None


def _functional_source(model: Any, flat_inputs: list[Any], description: str) -> ExportSource:
    import keras

    structure = flat_inputs[0] if isinstance(model, keras.Sequential) else model.input
    tensors = [tensor for _, tensor in leaves(structure)]
    for tensor in tensors:
        if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
            raise ModelNotServable(
                f"input {tensor.name!r} of {description} is sparse or ragged; requests carry dense tensors",
                hint="make it a dense keras.Input, and convert inside of the model",
            )
    names = name_inputs(structure, [tensor.name for tensor in tensors], "inputs")
    specs = [
        TensorSpec(name, keras.backend.standardize_dtype(tensor.dtype), free_batch(tensor.shape))
        for name, tensor in zip(names, tensors, strict=True)
    ]
    # None lets calls that fixed `training=True` keep it, as `model.export` does; False would overrule them.
    training = None if _fixes_training(model) else False
    return _source(model, specs, lambda values: model(pack(structure, values), training=training), description)


def _fixes_training(model: Any) -> bool:
    """Whether a functional graph, or one inside of it, calls a layer with `training=True`: Monte Carlo dropout."""
    for operation in getattr(model, "operations", ()):
        nodes = getattr(operation, "_inbound_nodes", ())
        if any(node.arguments.kwargs.get("training") is True for node in nodes) or _fixes_training(operation):
            return True
    return False


def _subclassed_source(model: Any, example: object, description: str) -> ExportSource:
    parameters = _tensor_parameters(model.call)
    if example is not None:
        arguments = _arguments_of_example(example, parameters, description)
        arguments = pack(arguments, [_autocast(spec, model) for _, spec in leaves(arguments)])
    else:
        arguments = _recorded_arguments(model, parameters, description)
    arguments = _open_dimensions(arguments, model.get_build_config())
    found = list(leaves(arguments))
    (parameter, structure), *more = arguments.items()
    names = name_inputs(arguments if more else structure, [""] * len(found), parameter)
    specs = [TensorSpec(name, spec.dtype, spec.shape) for name, (_, spec) in zip(names, found, strict=True)]

    def run(values: Sequence[Any]) -> Structure:
        first, *others = pack(arguments, values).items()
        return model(first[1], **dict(others), training=False)

    return _source(model, specs, run, description)


def _source(
    model: Any, specs: Sequence[TensorSpec], run: Callable[[Sequence[Any]], Structure], description: str
) -> ExportSource:
    layer_names = output_layer_names(model)

    def call(*tensors: Any) -> dict[str, Any]:
        return name_outputs(run(tensors), layer_names)

    return ExportSource(
        description=description, inputs=tuple(specs), call=call, tracked=(model,), coarsest_dtype=coarsest_dtype(model)
    )


def output_layer_names(model: Any) -> tuple[str, ...]:
    """The names of a functional model's output layers, "" for those that Keras made up."""
    names = getattr(model, "output_names", None)
    if not isinstance(names, list | tuple):
        return ()
    operations = {operation.name: type(operation).__name__ for operation in getattr(model, "operations", ())}
    return tuple("" if is_made_up_layer_name(name, operations.get(name, "")) else str(name) for name in names)


def coarsest_dtype(model: Any) -> str:
    """The least exact type that any layer computes in; layers of layers have the policy of their model."""
    dtypes = {getattr(layer, "compute_dtype", None) for layer in (model, *model.layers)}
    return max((dtype for dtype in _EXACTNESS if dtype in dtypes), key=_EXACTNESS.index, default="float32")


def _tensor_parameters(call: Callable[..., Any]) -> list[str]:
    """The parameters of `call` that take tensors: the first, and all others without a default."""
    parameters: list[str] = []
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        is_flag = parameter.name in {"training", "mask"} or parameter.name.endswith("_mask")
        if not is_flag and (not parameters or parameter.default is parameter.empty):
            parameters.append(parameter.name)
    return parameters or ["inputs"]


def _arguments_of_example(example: object, parameters: list[str], description: str) -> dict[str, Structure]:
    """Parameter of `call` -> structure of `TensorSpec`, read off a batch."""
    if len(parameters) == 1:
        return {parameters[0]: _specs_of(example)}
    given = list(map(str, example)) if isinstance(example, dict) else [f"a {type(example).__name__}"]
    if isinstance(example, dict) and set(given) == set(parameters):
        return {name: _specs_of(example[name]) for name in parameters}
    if isinstance(example, list | tuple) and len(example) == len(parameters):
        return {name: _specs_of(value) for name, value in zip(parameters, example, strict=True)}
    raise ModelNotServable(
        f"{description} is called with {', '.join(parameters)}, and the example has {', '.join(given)}",
        hint=f"give a dict with the keys {', '.join(parameters)}",
    )


def _specs_of(example: object) -> Structure:
    def spec_of(value: object) -> TensorSpec:
        array, dtype = as_array(value)
        if array.ndim == 0:
            raise ModelNotServable(f"the example {value!r} has no rows", hint="give a batch: rows come first")
        return TensorSpec("", dtype, free_batch(array.shape))

    is_list_of_tensors = isinstance(example, list | tuple) and all(hasattr(item, "shape") for item in example)
    if isinstance(example, dict) or is_list_of_tensors:
        return pack(example, [spec_of(value) for _, value in leaves(example)])
    return spec_of(example)


def _autocast(spec: TensorSpec, model: Any) -> TensorSpec:
    """The type that Keras would convert a floating-point input to."""
    is_float = spec.dtype in _EXACTNESS and model.input_dtype in _EXACTNESS
    return TensorSpec(spec.name, model.input_dtype, spec.shape) if is_float else spec


def _recorded_arguments(model: Any, parameters: list[str], description: str) -> dict[str, Structure]:
    """Parameter of `call` -> structure of `TensorSpec`, from the shapes that Keras recorded when it built the model.

    Keras records no types; the type that the model computes in is what numbers are converted to anyway.
    """
    recorded = _recorded_shapes(model.get_build_config())
    if len(parameters) > 1 or recorded is None:
        raise ModelNotServable(
            f"the inputs of {description} are not known: Keras did not record them for call({', '.join(parameters)})",
            hint=_CHECK_HINT,
        )
    return {parameters[0]: _map_shapes(lambda shape: TensorSpec("", model.input_dtype, free_batch(shape)), recorded)}


def _recorded_shapes(config: dict[str, Any] | None) -> Structure | None:
    return (config or {}).get("input_shape")


def _open_dimensions(arguments: dict[str, Structure], config: dict[str, Any] | None) -> dict[str, Structure]:
    """Leave dimensions open in which the example and the shapes that Keras recorded differ."""
    recorded = _recorded_shapes(config)
    if recorded is None or len(arguments) != 1:
        return arguments
    shapes: list[Any] = []
    _map_shapes(shapes.append, recorded)
    specs = [spec for _, spec in leaves(arguments)]
    if len(shapes) != len(specs) or any(len(s) != len(t.shape) for s, t in zip(shapes, specs, strict=True)):
        return arguments
    opened = [
        TensorSpec(
            "", spec.dtype, tuple(a if a == b else None for a, b in zip(spec.shape, (None, *shape[1:]), strict=True))
        )
        for spec, shape in zip(specs, shapes, strict=True)
    ]
    return pack(arguments, opened)  # type: ignore[no-any-return]  # a structure packs into one of the same form


def _map_shapes(convert: Callable[[Any], Any], shapes: Structure) -> Structure:
    """Apply a function to each shape in a structure, where a shape is itself a tuple or a list of sizes."""
    if isinstance(shapes, dict):
        return {key: _map_shapes(convert, value) for key, value in shapes.items()}
    if all(size is None or isinstance(size, int | np.integer) for size in shapes):
        return convert(shapes)
    return [_map_shapes(convert, value) for value in shapes]
