"""Keras models as something exportable: sequential, functional and subclassed ones.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelNotServable
from ..types import TensorSpec
from .arrays import columns_of, is_list_of_arrays, specs_of, without_none
from .backends.own_onnx import as_onnx
from .endpoint import (
    ExportSource,
    Structure,
    free_batch,
    is_list,
    is_made_up_layer_name,
    leaves,
    name_inputs,
    name_outputs,
    pack,
)
from .guesses import rounded_ids, takes_any_batch, with_guessed_types

_EXACTNESS = ("float64", "float32", "bfloat16", "float16")
"""From exact to coarse as far as tolerances go: float16 computations also overflow, so they count as the coarsest."""

_BACKENDS = ("tensorflow", "jax", "torch")

_DIGITS = {"float64": 53, "float32": 24, "bfloat16": 8, "float16": 11}
"""Up to 2 to the power of this, a type holds every whole number."""

_CHECK_HINT = "give a batch of its inputs: --check VARIABLE (from Python: check=batch)"


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
    if keras.backend.backend() not in _BACKENDS:
        raise ModelNotServable(
            f"{description} runs on the Keras backend {keras.backend.backend()!r}; served are {', '.join(_BACKENDS)}",
            hint="restart the kernel and run this before Keras is imported: %env KERAS_BACKEND=tensorflow",
        )
    if not isinstance(model, keras.Model):
        raise ModelNotServable(
            f"{description} is a Keras layer, not a model", hint="keras.Sequential([keras.Input(shape), layer])"
        )
    _check_built(model, description)
    flat_inputs = _recorded_inputs(model)
    if flat_inputs is not None:
        return _functional_source(model, flat_inputs, example, description)
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


def _functional_source(model: Any, flat_inputs: list[Any], example: object, description: str) -> ExportSource:
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
    optional = [name for name, tensor in zip(names, tensors, strict=True) if _is_optional(tensor)]
    left_out = _left_out(example, names, optional)
    specs, taken = [], []
    for name, tensor in zip(names, tensors, strict=True):
        if name not in left_out:
            taken.append(tensor)
            specs.append(TensorSpec(name, keras.backend.standardize_dtype(tensor.dtype), free_batch(tensor.shape)))

    # None lets calls that fixed `training=True` keep it, as `model.export` does; False would overrule them.
    fixed = _calls_that_train(model)
    training = None if fixed else False

    def run(values: Sequence[Any]) -> Structure:
        given = iter(values)
        whole = pack(structure, [None if name in left_out else next(given) for name in names])
        return model(whole, training=training)

    sizes = {tensor.shape[0] for tensor in taken if len(tensor.shape)}
    if sizes != {None} and (_has_state(model) or not takes_any_batch(run, specs)):
        specs = [replace(spec, shape=tuple(tensor.shape)) for spec, tensor in zip(specs, taken, strict=True)]
    notes = [*_notes_on_types(specs, run), *_notes_on_training(fixed), *_notes_on_left_out(names, left_out)]
    if optional and example is None:
        one = ", ".join(optional)
        notes.append(f"optional, and given by every request: {one}; to serve it as None, pass --check rows without it")
    order = names if is_list(structure) else ()
    arguments = None if left_out else [pack(structure, names)]
    return _source(model, specs, run, description, tuple(notes), order=order, arguments=arguments)


def _is_optional(tensor: Any) -> bool:
    """Whether an input was made by `keras.Input(optional=True)`: the model may be called with None for it."""
    history = getattr(tensor, "_keras_history", None)
    return bool(getattr(getattr(history, "operation", None), "optional", False))


def _left_out(example: object, names: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The optional inputs of a functional model that the rows of an example do not have."""
    if example is None or not optional:
        return []
    required = set(names) - set(optional)
    named = columns_of(example)
    if named is not None and required <= set(named) <= set(names):
        return [name for name in optional if name not in named]
    if isinstance(example, list | tuple) and len(example) == len(names) and is_list_of_arrays(without_none(example)):
        return [name for name, value in zip(names, example, strict=True) if name in optional and value is None]
    return list(optional) if len(required) == 1 else []


def _notes_on_left_out(taken: Sequence[str], left_out: Sequence[str]) -> tuple[str, ...]:
    """A word on what is None for every request.

    Args:
        taken: the inputs, with or without these.
        left_out: their names.
    """
    keys = ", ".join(f"{name!r}: ..." for name in dict.fromkeys((*taken, *left_out)))
    found = f"left out of call(): {', '.join(left_out)}; to serve it, pass --check rows {{{keys}}}"
    return (found,) if left_out else ()


def _calls_that_train(model: Any) -> list[str]:
    """The layers that a functional graph, or one inside of it, calls with `training=True`: Monte Carlo dropout."""
    found = []
    operations: Sequence[Any] = getattr(model, "operations", None) or getattr(model, "layers", None) or ()
    for operation in operations:
        nodes = getattr(operation, "_inbound_nodes", ())
        if any(node.arguments.kwargs.get("training") is True for node in nodes):
            found.append(str(operation.name))
        found += _calls_that_train(operation)
    return found


def _notes_on_training(fixed: Sequence[str]) -> tuple[str, ...]:
    names = ", ".join(dict.fromkeys(fixed))
    return (f"called with training=True in the model, served so too, as model.export does: {names}",) if fixed else ()


def _has_state(model: Any) -> bool:
    """Whether a layer keeps a state for each row from call to call."""
    return any(getattr(layer, "stateful", False) for layer in model._flatten_layers())  # noqa: SLF001 - no other way


def _notes_on_types(specs: Sequence[TensorSpec], run: Callable[[Sequence[Any]], Structure]) -> tuple[str, ...]:
    """A word on inputs of floats, the default of `keras.Input`, that the model makes whole numbers of."""
    dtypes = {spec.name: spec.dtype for spec in specs}
    return tuple(
        f"{name} is {dtypes[name]} as in the model, which rounds ids above {2 ** _DIGITS[dtypes[name]]}: "
        "keras.Input(dtype='int64')"
        for name in rounded_ids(run, specs)
        if dtypes[name] in _DIGITS
    )


def _subclassed_source(model: Any, example: object, description: str) -> ExportSource:
    parameters = Parameters.of(model.call)
    recorded = _recorded_shapes(model, parameters)
    if example is not None:
        arguments = _arguments_of_example(example, parameters, recorded, description)
        arguments = pack(arguments, [_autocast(spec, model) for _, spec in leaves(arguments)])
    else:
        arguments = _recorded_arguments(model, parameters, recorded, description)
    arguments = {name: _opened(structure, recorded.get(name)) for name, structure in arguments.items()}
    found = list(leaves(arguments))
    (parameter, structure), *more = arguments.items()
    names = name_inputs(arguments if more else structure, [""] * len(found), parameter)
    specs = tuple(TensorSpec(name, spec.dtype, spec.shape) for name, (_, spec) in zip(names, found, strict=True))

    def run(values: Sequence[Any]) -> Structure:
        first, *others = pack(arguments, values).items()
        return model(first[1], **dict(others), training=False)

    notes = []
    if example is None:
        specs = with_guessed_types(run, specs, description, _CHECK_HINT)
        for dtype in dict.fromkeys(spec.dtype for spec in specs):
            guessed = ", ".join(spec.name for spec in specs if spec.dtype == dtype)
            notes.append(f"guessed {dtype} for {guessed}: pass --check rows")
    notes += _notes_on_left_out([*arguments], [name for name in parameters.optional if name not in arguments])
    takes_tensors = is_list([*arguments.values()])
    order = parameters.all if takes_tensors else names if is_list(structure) and not more else ()
    found = list(arguments.values())
    return _source(model, specs, run, description, tuple(notes), order=order, arguments=found)


def _source(
    model: Any,
    specs: Sequence[TensorSpec],
    run: Callable[[Sequence[Any]], Structure],
    description: str,
    notes: tuple[str, ...],
    *,
    order: tuple[str, ...],
    arguments: Sequence[Structure] | None,
) -> ExportSource:
    """A source; `arguments` is what the model is called with by position, None when that cannot be written as ONNX."""
    import keras

    layer_names = output_layer_names(model)

    def call(*tensors: Any) -> dict[str, Any]:
        return name_outputs(run(tensors), layer_names)

    source = ExportSource(
        description=description,
        inputs=tuple(specs),
        call=call,
        tracked=(model,),
        backend=keras.backend.backend(),
        coarsest_dtype=coarsest_dtype(model),
        notes=notes,
        order=order,
    )
    if source.backend != "torch":
        return source
    if arguments is None:
        raise ModelNotServable(
            f"{description} has optional inputs that the rows leave out, which Keras' ONNX export cannot",
            hint="give rows with all of them, or make a model without them",
        )
    return as_onnx(source, arguments, run, layer_names)


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


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a model's `call` that may take tensors, in their order.

    Attributes:
        all: those that an example may name: all but `training`.
        required: the first, and all others without a default.
        optional: those that are None by default, and that Keras does not fill by itself, as it fills masks.
    """

    all: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @classmethod
    def of(cls, call: Callable[..., Any]) -> Parameters:
        """Read off a function."""
        found = {
            name: parameter.default
            for name, parameter in inspect.signature(call).parameters.items()
            if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} and name != "training"
        } or {"inputs": inspect.Parameter.empty}
        first = next(iter(found))
        own = [name for name in found if name != "mask" and name.removesuffix("_mask") not in found.keys() - {name}]
        return cls(
            all=tuple(found),
            required=tuple(name for name in own if name == first or found[name] is inspect.Parameter.empty),
            optional=tuple(name for name in own if name != first and found[name] is None),
        )

    def __str__(self) -> str:
        return ", ".join((*self.required, *(f"{name}=None" for name in self.optional)))


def _arguments_of_example(
    example: object, parameters: Parameters, recorded: dict[str, Structure], description: str
) -> dict[str, Structure]:
    """Parameter of `call` -> structure of `TensorSpec`, read off a batch."""
    first, *others = parameters.required
    shape = recorded.get(first)
    named = columns_of(example)
    given: Mapping[str, object]
    if named is not None and _are_parameters(named, parameters) and (others or not isinstance(shape, dict)):
        given = named
    elif isinstance(example, list | tuple) and _are_arguments(example, parameters, shape):
        given = {name: value for name, value in zip(parameters.all, example, strict=False) if value is not None}
    elif not others and isinstance(shape, list | tuple) and _are_misnamed(example, parameters):
        wrong = next(name for name in named or () if name not in parameters.all)
        raise ModelNotServable(
            f"{wrong!r} is no argument of {description}, which is called with {parameters}",
            hint=f"the keys of the example can be {', '.join(parameters.all)}",
        )
    elif not others:
        given = {first: named if named is not None and isinstance(shape, dict) else example}
    else:
        has = ", ".join(named) if named is not None else f"a {type(example).__name__}"
        raise ModelNotServable(
            f"{description} is called with {parameters}, and the example has {has}",
            hint=f"give a dict with the keys {', '.join((*parameters.required, *parameters.optional))}",
        )
    arguments = {name: specs_of(given[name]) for name in parameters.all if name in given}
    if all(spec.shape == () for _, spec in leaves(arguments)):
        raise ModelNotServable(f"the example {example!r} has no rows", hint="give a batch: rows come first")
    return arguments


def _are_parameters(named: Mapping[str, object], parameters: Parameters) -> bool:
    return set(parameters.required) <= set(named) <= set(parameters.all)


def _are_misnamed(example: object, parameters: Parameters) -> bool:
    """Whether a dict has the model's only needed argument among others that the model does not have."""
    names = set(map(str, example)) if isinstance(example, Mapping) else set()
    return parameters.required[0] in names and not names <= set(parameters.all)


def _are_arguments(example: Sequence[Any], parameters: Parameters, shape: Structure | None) -> bool:
    """Whether a list has one value for each of several parameters, and not rows or arrays for the first alone."""
    if not len(parameters.required) <= len(example) <= len(parameters.all):
        return False
    if any(name in parameters.required and value is None for name, value in zip(parameters.all, example, strict=False)):
        return False
    if len(parameters.required) > 1:
        return True
    takes_one = isinstance(shape, list | tuple) and not any(isinstance(size, list | tuple | dict) for size in shape)
    return (
        takes_one
        and len(example) > 1
        and is_list_of_arrays(without_none(example))
        and np.ndim(example[0]) == len(shape or ())
    )


def _autocast(spec: TensorSpec, model: Any) -> TensorSpec:
    """The type that Keras would convert a floating-point input to."""
    is_float = spec.dtype in _EXACTNESS and model.input_dtype in _EXACTNESS
    return TensorSpec(spec.name, model.input_dtype, spec.shape) if is_float else spec


def _recorded_arguments(
    model: Any, parameters: Parameters, recorded: dict[str, Structure], description: str
) -> dict[str, Structure]:
    """Parameter of `call` -> structure of `TensorSpec`, with the type that the model computes in."""
    if not set(parameters.required) <= set(recorded):
        raise ModelNotServable(
            f"the inputs of {description} are not known: Keras did not record them for call({parameters})",
            hint=_CHECK_HINT,
        )

    def spec_of(shape: Sequence[int | None]) -> TensorSpec:
        return TensorSpec("", model.input_dtype, free_batch(shape))

    return {name: _map_shapes(spec_of, recorded[name]) for name in parameters.all if name in recorded}


def _recorded_shapes(model: Any, parameters: Parameters) -> dict[str, Structure]:
    """Parameter of `call` -> the shapes that Keras recorded for it when it built the model.

    For most models it is the first parameter alone, whatever else they were called with.
    """
    config = model.get_build_config() or {}
    shapes = dict(config.get("shapes_dict") or {})
    if config.get("input_shape") is not None:
        shapes.setdefault(parameters.required[0], config["input_shape"])
    found = {name.removesuffix("_shape"): shape for name, shape in shapes.items() if shape is not None}
    return {name: shape for name, shape in found.items() if name in parameters.all}


def _opened(structure: Structure, recorded: Structure | None) -> Structure:
    """Leave dimensions open in which the example and the shapes that Keras recorded differ."""
    if recorded is None:
        return structure
    shapes: list[Any] = []
    _map_shapes(shapes.append, recorded)
    specs = [spec for _, spec in leaves(structure)]
    if len(shapes) != len(specs) or any(len(s) != len(t.shape) for s, t in zip(shapes, specs, strict=True)):
        return structure
    opened = [
        TensorSpec(
            "", spec.dtype, tuple(a if a == b else None for a, b in zip(spec.shape, free_batch(shape), strict=True))
        )
        for spec, shape in zip(specs, shapes, strict=True)
    ]
    return pack(structure, opened)


def _map_shapes(convert: Callable[[Any], Any], shapes: Structure) -> Structure:
    """Apply a function to each shape in a structure, where a shape is itself a tuple or a list of sizes."""
    if isinstance(shapes, dict):
        return {key: _map_shapes(convert, value) for key, value in shapes.items()}
    if all(size is None or isinstance(size, int | np.integer) for size in shapes):
        return convert(shapes)
    return [_map_shapes(convert, value) for value in shapes]
