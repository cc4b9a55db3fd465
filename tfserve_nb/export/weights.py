"""The weights of a SavedModel: which variables there are, and their values one at a time.

Thread: any.

Reference: tensorflow/core/protobuf/trackable_object_graph.proto (names of variables in a checkpoint).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # TensorFlow's reader

import numpy as np

VARIABLES = Path("variables", "variables")
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

FLOAT16, INT8, SCALE = (f"/{part}{_VALUE}" for part in ("packed_float16", "packed_int8", "packed_scale"))
"""Where a packed weight is stored: what stands in place of `_VALUE` behind its name."""

_NO_WEIGHT = re.compile(r"(?:^|/)(?:optimizer|keras_api|save_counter|_optimizer)(?:/|$)|seed_generator_state$")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a SavedModel.

    Attributes:
        key: its name in the checkpoint; "" when it is not known.
        name: its own, such as `sequential/dense/kernel`.
        shape: its dimensions.
        dtype: TensorFlow's name of the type.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_values(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_weight(self) -> bool:
        """Whether it is the model's own, and no state of an optimizer or a generator."""
        return not (_NO_WEIGHT.search(self.key.removesuffix(_VALUE)) or _NO_WEIGHT.search(self.name))


@dataclass(frozen=True, slots=True)
class Packed:
    """A float32 weight as it is stored in fewer bytes.

    Attributes:
        values: float16, or int8, `(d0, ..., dn)`.
        scale: what int8 values are multiplied by, float32 of as many dimensions, some of them 1; None for float16.
    """

    values: np.ndarray
    scale: np.ndarray | None = None

    def unpacked(self) -> np.ndarray:
        """The float32 weight that servers compute with."""
        wide = self.values.astype(np.float32)
        return wide if self.scale is None else wide * self.scale

    def parts(self, key: str) -> dict[str, np.ndarray]:
        """Its values, and then its scale if it has one: name in the checkpoint -> array.

        Args:
            key: the name of the variable's value there when it is not packed.
        """
        name = key.removesuffix(_VALUE)
        if self.scale is None:
            return {name + FLOAT16: self.values}
        return {name + INT8: self.values, name + SCALE: self.scale}


class Weights:
    """Reads the checkpoint of a SavedModel, tensor by tensor; packed weights as the float32 that servers compute with.

    Args:
        path: the version's folder; one without variables has none.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self._reader: Any = None
        self.variables: Mapping[str, Variable] = {}
        prefix = path / VARIABLES
        if prefix.with_name(f"{prefix.name}.index").is_file():
            self._reader = tf.train.load_checkpoint(str(prefix))
            self.variables = {one.key: one for one in _variables(self._reader)}

    def read(self, key: str) -> np.ndarray:
        """The value of one variable."""
        for stored in (FLOAT16, INT8):
            name = key.removesuffix(_VALUE)
            if self._reader.has_tensor(name + stored):
                scale = self._reader.get_tensor(name + SCALE) if stored == INT8 else None
                return Packed(self._reader.get_tensor(name + stored), scale).unpacked()
        return np.asarray(self._reader.get_tensor(key))

    def read_objects(self) -> bytes:
        """The serialized `TrackableObjectGraph` beside the variables; b"" in a checkpoint without one."""
        has_one = self._reader is not None and self._reader.has_tensor(OBJECTS)
        return bytes(self._reader.get_tensor(OBJECTS)) if has_one else b""

    @property
    def model_variables(self) -> tuple[Variable, ...]:
        """The weights, each once and in the order of the file, without the state of optimizers and generators.

        A Keras model's are below `variables/`; Keras' own export writes them once more below `_all_variables/`.
        """
        found = [one for one in self.variables.values() if one.is_weight]
        own = [one for one in found if one.key.startswith("variables/")]
        return tuple(sorted(own or found, key=lambda one: _natural(one.key)))


def key_of(position: int) -> str:
    """Where Keras' exporter puts the variable of this position in `model.variables`."""
    return f"variables/{position}{_VALUE}"


def _variables(reader: Any) -> list[Variable]:
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    names = _names(reader) if OBJECTS in shapes else {}
    found = []
    for stored, shape in shapes.items():
        if stored == OBJECTS or stored.endswith(SCALE):
            continue
        plain = stored.removesuffix(FLOAT16).removesuffix(INT8)
        key, dtype = (stored, dtypes[stored].name) if plain == stored else (plain + _VALUE, "float32")
        name = names.get(stored) or key.removesuffix(_VALUE)
        found.append(Variable(key, name, tuple(map(int, shape)), dtype))
    return found


def _names(reader: Any) -> dict[str, str]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECTS))
    except DecodeError:
        return {}
    return {one.checkpoint_key: one.full_name for node in graph.nodes for one in node.attributes}


def _natural(key: str) -> list[tuple[int, str]]:
    """A key for sorting that puts `variables/10` behind `variables/9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in key.split("/")]
