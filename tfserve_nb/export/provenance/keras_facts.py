"""What a Keras model consists of at the moment of its export: layers with checksums of their weights, and outputs.

An output is described by the activation that makes it and the loss that it was trained with. With this, two versions'
outputs are compared as what they are: logits by their largest, probabilities of a sigmoid by a half, targets of a
regression as numbers.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Keras' objects

import numpy as np

from ...agreement.kinds import Evidence
from ...errors import ServingError
from ...serialization import TextFloat
from ..endpoint import ExportSource, is_made_up_layer_name, leaves, name_outputs
from ..keras_source import is_keras_object, output_layer_names
from ..signatures import read_signatures
from ..weights import Variable, Weights, key_of

MAX_LAYERS = 5000
_PASS_ON = frozenset({"Dropout", "Reshape", "Flatten", "Identity", "Squeeze", "ExpandDims", "Cast"})
"""Layers that do not change what numbers mean."""
MAX_LAYERS_BACK = 20
CHUNK = 2**20
"""Values that are converted at a time, so that the norm of a large variable needs no second copy of it."""


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer.

    Attributes:
        name: its name, below the names of the models around it: `encoder/dense`.
        class_name: such as `Dense`.
        is_named: whether the user chose the name; Keras makes up others, and another one for each run of a cell.
        num_params: numbers in its weights.
        norm: L2 norm of all its weights, `sqrt(sum of squares)`; None when they are no numbers, or there are none.
        checksum: SHA-256 over types, shapes and values of its weights, hexadecimal; "" for a layer without.
        variables: its weights, with their place in the SavedModel.
    """

    name: str
    class_name: str
    is_named: bool
    num_params: int
    norm: TextFloat | None
    checksum: str
    variables: tuple[Variable, ...] = ()


def layers_of(source: ExportSource, folder: Path) -> tuple[LayerFacts, ...]:
    """The layers of a Keras model, in order, those of models within it too; empty for everything else.

    Args:
        source: what was exported.
        folder: the SavedModel that was made of it.
    """
    if len(source.tracked) != 1 or not is_keras_object(source.tracked[0]):
        return ()
    model: Any = source.tracked[0]
    places = {id(variable): position for position, variable in enumerate(model.variables)}
    written = Weights(folder).variables
    listed = list(itertools.islice(_layers(model, "", set()), MAX_LAYERS))
    facts = [_facts(name, layer, layer.weights, places, written) for name, layer in listed]
    in_layers = {id(weight) for _, layer in listed for weight in layer.weights}
    own = [weight for weight in model.weights if id(weight) not in in_layers]
    if own and len(listed) < MAX_LAYERS:
        facts.append(_facts(model.name, model, own, places, written))
    return tuple(facts)


def _layers(model: Any, above: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The layers that are no models themselves, each once, with the names of the models around them."""
    import keras

    for layer in model.layers:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{above}{layer.name}/", seen)
        else:
            yield f"{above}{layer.name}", layer


def _facts(
    name: str, layer: Any, weights: Sequence[Any], places: Mapping[int, int], written: Mapping[str, Variable]
) -> LayerFacts:
    digest, squares, variables = hashlib.sha256(), 0.0, []
    for weight in weights:
        array = np.asarray(weight)
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        for chunk in chunks(array):
            digest.update(chunk.view(np.uint8).data)
            squares += squared_norm(chunk)
        variables.append(_variable(weight, array, places, written))
    kind = type(layer).__name__
    return LayerFacts(
        name=name,
        class_name=kind,
        is_named=not is_made_up_layer_name(layer.name, kind),
        num_params=sum(one.num_values for one in variables),
        norm=None if not variables or math.isnan(squares) else math.sqrt(squares),
        checksum=digest.hexdigest() if variables else "",
        variables=tuple(variables),
    )


def _variable(weight: Any, array: np.ndarray, places: Mapping[int, int], written: Mapping[str, Variable]) -> Variable:
    """A weight with its place in the file, if what is there has its name and shape."""
    key = key_of(places.get(id(weight), -1))
    there = written.get(key)
    is_there = there is not None and there.shape == array.shape and there.name.split("/")[-1] == weight.name
    return Variable(key if is_there else "", str(weight.path), tuple(array.shape), array.dtype.name)


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The values of an array in order, in pieces of one dimension."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for first in range(0, len(flat), CHUNK):
        yield flat[first : first + CHUNK]


def squared_norm(values: np.ndarray) -> float:
    """Sum of squares in float64; NaN for what are no numbers."""
    try:
        exact = values.astype(np.float64)
    except (TypeError, ValueError):
        return math.nan
    return float(np.dot(exact, exact))


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
        if structure is not None and all(isinstance(leaf, keras.KerasTensor) for _, leaf in leaves(structure)):
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
