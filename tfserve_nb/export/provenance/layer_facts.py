"""What a Keras model consists of at the moment of its export: layers, parameters, checksums of weights.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Keras' objects

import numpy as np

from ...serialization import TextFloat
from ..endpoint import ExportSource, is_made_up_layer_name
from ..keras_source import is_keras_object
from ..weights import Variable, Weights, key_of

MAX_LAYERS = 5000
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
