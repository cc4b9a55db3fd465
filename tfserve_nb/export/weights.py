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
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
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


class Weights:
    """Reads the checkpoint of a SavedModel, tensor by tensor.

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
        return np.asarray(self._reader.get_tensor(key))

    @property
    def model_variables(self) -> tuple[Variable, ...]:
        """The weights, each once and in the order of the file, without the state of optimizers and generators.

        A Keras model's are below `variables/`; Keras' own export writes them once more below `_all_variables/`.
        """
        found = [one for one in self.variables.values() if not _NO_WEIGHT.search(f"{one.key.removesuffix(_VALUE)}")]
        found = [one for one in found if not _NO_WEIGHT.search(one.name)]
        own = [one for one in found if one.key.startswith("variables/")]
        return tuple(sorted(own or found, key=lambda one: _natural(one.key)))


def key_of(position: int) -> str:
    """Where Keras' exporter puts the variable of this position in `model.variables`."""
    return f"variables/{position}{_VALUE}"


def _variables(reader: Any) -> list[Variable]:
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    names = _names(reader) if _GRAPH in shapes else {}
    return [
        Variable(key, names.get(key) or key.removesuffix(_VALUE), tuple(map(int, shape)), dtypes[key].name)
        for key, shape in shapes.items()
        if key != _GRAPH
    ]


def _names(reader: Any) -> dict[str, str]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
    except DecodeError:
        return {}
    return {one.checkpoint_key: one.full_name for node in graph.nodes for one in node.attributes}


def _natural(key: str) -> list[tuple[int, str]]:
    """A key for sorting that puts `variables/10` behind `variables/9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in key.split("/")]
