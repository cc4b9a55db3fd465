"""What a Keras model's outputs are: the activation that makes each, and the loss that it was trained with.

With this, two versions' outputs are compared as what they are: logits by their largest, shares of a sigmoid by a half,
targets of a regression as numbers.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # Keras' objects

from ...agreement.kinds import Evidence
from ...errors import ServingError
from ..endpoint import ExportSource, leaves, name_outputs
from ..keras_source import is_keras_object, output_layer_names
from ..signatures import read_signatures

_PASS_ON = frozenset({"Dropout", "Reshape", "Flatten", "Identity", "Squeeze", "ExpandDims", "Cast"})
"""Layers that do not change what numbers mean."""
MAX_LAYERS_BACK = 20


def outputs_of(source: ExportSource, folder: Path) -> dict[str, Evidence]:
    """Output name -> what is known of it; empty for what is no Keras model.

    Args:
        source: what was exported.
        folder: the SavedModel that was made of it.
    """
    if len(source.tracked) != 1 or not is_keras_object(source.tracked[0]):
        return {}
    model: Any = source.tracked[0]
    tensors = _symbolic_outputs(model) or _only_output(folder)
    losses = _losses(model, list(tensors))
    found = {}
    for name, tensor in tensors.items():
        loss, from_logits = _described(losses.get(name))
        found[name] = Evidence(_activation(tensor), loss, from_logits)
    return {name: evidence for name, evidence in found.items() if evidence.activation or evidence.loss}


def _symbolic_outputs(model: Any) -> dict[str, Any]:
    """Output name -> symbolic tensor, of a sequential or functional model."""
    import keras

    structure = getattr(model, "outputs", None) if isinstance(model, keras.Sequential) else None
    with contextlib.suppress(AttributeError, ValueError, ServingError):
        structure = structure[0] if structure else getattr(model, "output", None)
        if structure is not None and all(isinstance(one, keras.KerasTensor) for _, one in leaves(structure)):
            return name_outputs(structure, output_layer_names(model))
    return {}


def _only_output(folder: Path) -> dict[str, None]:
    """The output of a model with only one, whose graph Keras does not hold."""
    with contextlib.suppress(ServingError):
        names = {name for one in read_signatures(folder).values() for name in one.outputs}
        return dict.fromkeys(names) if len(names) == 1 else {}
    return {}


def _activation(tensor: Any) -> str:
    """The name of the activation that makes a symbolic tensor, such as `softmax`; "" when it is not known."""
    for _ in range(MAX_LAYERS_BACK):
        history = getattr(tensor, "_keras_history", None)
        if history is None:
            return ""
        operation = history.operation
        inner = getattr(operation, "outputs", None)
        if isinstance(inner, list) and hasattr(operation, "layers"):  # a model within the model
            tensor = inner[history.tensor_index]
        elif type(operation).__name__ in _PASS_ON:
            tensor = operation._inbound_nodes[history.node_index].input_tensors[0]  # noqa: SLF001 - Keras has no other way
        else:
            kind = type(operation).__name__
            return _snake(kind) if kind in ("Softmax", "Sigmoid") else getattr(
                getattr(operation, "activation", None), "__name__", "")  # fmt: skip
    return ""


def _losses(model: Any, names: list[str]) -> dict[str, Any]:
    """Output name -> the loss that `compile` was given for it."""
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    if loss is None:
        return {}
    if isinstance(loss, Mapping):
        keys = list(getattr(model, "output_names", None) or names)
        by_layer = {name: loss.get(key) for name, key in zip(names, keys, strict=False)}
        return {name: loss.get(name, by_layer.get(name)) for name in names}
    if isinstance(loss, list | tuple):
        return dict(zip(names, loss, strict=False))
    return dict.fromkeys(names, loss)


def _described(loss: Any) -> tuple[str, bool]:
    """A loss's name as Keras spells its function, such as `mean_squared_error`, and whether it takes logits."""
    import keras

    if loss is None:
        return "", False
    if isinstance(loss, str):
        with contextlib.suppress(ValueError):
            loss = keras.losses.get(loss)
    if isinstance(loss, functools.partial):
        return _described(loss.func)[0], bool(loss.keywords.get("from_logits", False))
    if isinstance(loss, keras.losses.Loss):
        from_logits = False
        with contextlib.suppress(NotImplementedError, TypeError):  # a class of the user's own
            from_logits = bool(loss.get_config().get("from_logits", False))
        return getattr(getattr(loss, "fn", None), "__name__", "") or _snake(type(loss).__name__), from_logits
    return str(getattr(loss, "__name__", "")), False


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
