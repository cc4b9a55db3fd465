"""Models of `tf_keras` (Keras 2) as something exportable.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import ModelNotServable
from ..types import TensorSpec
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
from .keras_source import coarsest_dtype

_MADE_UP_INPUT = re.compile(r"input_\d+|args?_\d+")


def is_tf_keras_object(value: object) -> bool:
    """Whether a value is a layer or model of `tf_keras`; it is not imported for this."""
    tf_keras = sys.modules.get("tf_keras")
    return tf_keras is not None and isinstance(value, tf_keras.layers.Layer)


def tf_keras_source(model: Any) -> ExportSource:
    """Make a model of `tf_keras` exportable.

    Args:
        model: a built `tf_keras.Model`, or a layer (which is refused).

    Raises:
        ModelNotServable: if it cannot be exported; the hint names the next step.
    """
    import tf_keras

    description = f"{type(model).__name__} {model.name!r} of tf_keras"
    if not isinstance(model, tf_keras.Model):
        raise ModelNotServable(
            f"{description} is a layer, not a model", hint="tf_keras.Sequential([tf_keras.Input(shape), layer])"
        )
    recorded = model.save_spec() if model.built else None
    if recorded is None:
        raise ModelNotServable(
            f"{description} was never built, called or trained, so its inputs are not known",
            hint="train it, or call it once on a batch: model(x[:1])",
        )
    arguments, constants = _arguments(model, *recorded)
    found = [spec for _, spec in leaves(arguments)]
    for spec in found:
        _check_dense(spec, description)
    (parameter, structure), *more = arguments.items()
    own_names = [_own_name(spec.name, model) for spec in found]
    names = name_inputs(arguments if more else structure, own_names, parameter)
    specs = [TensorSpec(name, spec.dtype.name, _shape(spec)) for name, spec in zip(names, found, strict=True)]
    layer_names = _output_layer_names(model)

    def call(*tensors: Any) -> dict[str, Any]:
        (_, first), *others = pack(arguments, tensors).items()
        return name_outputs(model(first, **dict(others), **constants), layer_names)

    return ExportSource(
        description=description,
        inputs=tuple(specs),
        call=call,
        tracked=(model,),
        coarsest_dtype=coarsest_dtype(model),
        order=names if is_list([*arguments.values()] if more else structure) else (),
    )


def _arguments(
    model: Any, args: Sequence[Structure], kwargs: dict[str, Structure]
) -> tuple[dict[str, Structure], dict[str, Any]]:
    """What `call` takes: tensors by parameter, and what else it was called with, `training=False` included."""
    import tensorflow as tf

    parameters = list(inspect.signature(model.call).parameters)
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    tensors = {
        name: value for name, value in given.items() if all(isinstance(leaf, tf.TypeSpec) for _, leaf in leaves(value))
    }
    constants = {name: value for name, value in given.items() if name not in tensors and value is not None}
    if "training" in parameters:
        constants["training"] = False
    return tensors, constants


def _check_dense(spec: Any, description: str) -> None:
    import tensorflow as tf

    if not isinstance(spec, tf.TensorSpec):
        raise ModelNotServable(
            f"{description} takes a {type(spec).__name__.removesuffix('Spec')}; requests carry dense tensors",
            hint="make it a dense Input, and convert inside of the model",
        )


def _own_name(name: str | None, model: Any) -> str:
    """The name that an input was given; "" for one that Keras made up."""
    made_up = {f"{layer.name}_input" for layer in model.layers}
    return "" if name is None or name in made_up or _MADE_UP_INPUT.fullmatch(name) else name


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else free_batch(spec.shape.as_list())


def _output_layer_names(model: Any) -> tuple[str, ...]:
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    names = getattr(model, "output_names", None) or ()
    return tuple("" if is_made_up_layer_name(name, kinds.get(name, "")) else str(name) for name in names)
