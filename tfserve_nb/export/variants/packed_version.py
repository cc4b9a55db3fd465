"""The graph and the weights of a version, written again with weights in fewer bytes.

Whatever made that version, and whoever serves the new one: only its files are read, and only standard ops are used.

Thread: any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias  # TensorFlow's messages

import numpy as np

from ..graph.effects import effects_of
from ..signatures import SAVED_MODEL_FILE, read_saved_model
from ..weights import OBJECTS, VARIABLES, Packed, Weights
from .objects import PackedVariable, unpack_loaded, variables_of
from .packing import MIN_VALUES
from .restoring import Restored, restored_by, unpack_restored

Pack: TypeAlias = Callable[[np.ndarray], Packed | str]
"""A float32 weight -> what is stored, or in words why it stays as it is."""

_STATISTICS = re.compile(r"(?:^|/)(?:(?:moving_|adapt_)?(?:mean|variance)|gamma|beta)$")
"""What normalisation adds and multiplies with: a rounding there moves all values of a channel alike."""


@dataclass(frozen=True, slots=True)
class PackedReport:
    """What became of the weights.

    Attributes:
        packed: the names of those that are stored in fewer bytes.
        kept: name -> why it is stored as before, for those that are large enough to be packed.
    """

    packed: tuple[str, ...]
    kept: Mapping[str, str]


def write_packed(folder: Path, target: Path, pack: Pack) -> PackedReport:
    """Write the graph and the variables of a version with packed weights; its other files are the caller's business.

    Args:
        folder: the version.
        target: an existing folder, in which there is neither.
        pack: `to_float16` or `to_int8`.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    saved_model, weights = read_saved_model(folder), Weights(folder)
    stored = TrackableObjectGraph.FromString(weights.read_objects())
    graphs = [_Graph.of(one, stored, folder) for one in saved_model.meta_graphs]
    tensors: dict[str, Any] = {}
    packed: dict[str, Packed] = {}
    kept: dict[str, str] = {}
    for key, variable in weights.variables.items():
        found: Packed | str = ""
        if variable.is_weight and variable.dtype == "float32" and _is_large(variable.shape):
            found = _why_not(variable.name) or next(filter(None, (graph.why_not(key) for graph in graphs)), "")
            found = found or pack(weights.read(key))
        if isinstance(found, Packed):
            packed[key] = found
            tensors |= found.parts(key)
            continue
        if found:
            kept[variable.name] = found
        tensors[key] = weights.read(key)
    for graph in graphs:
        graph.unpack(packed, stored)
    if stored.nodes:
        tensors[OBJECTS] = stored.SerializeToString(deterministic=True)
    (target / VARIABLES).parent.mkdir()
    with tf.device("/CPU:0"):
        values = [tf.constant(array) for array in tensors.values()]
        tf.raw_ops.SaveV2(
            prefix=str(target / VARIABLES),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=values,
        )
    (target / SAVED_MODEL_FILE).write_bytes(saved_model.SerializeToString(deterministic=True))
    return PackedReport(tuple(weights.variables[key].name for key in packed), kept)


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and int(np.prod(shape, dtype=np.int64)) >= MIN_VALUES


def _why_not(name: str) -> str:
    return "it is a statistic of a normalisation" if _STATISTICS.search(name) else ""


@dataclass(frozen=True, slots=True)
class _Graph:
    """One graph of a SavedModel.

    Attributes:
        meta_graph: its `MetaGraphDef`.
        restored: checkpoint key -> how its restore op reads it.
        objects: checkpoint key -> the variable among its objects; None when it has no objects.
        written: the nodes of the variables that runs write.
    """

    meta_graph: Any
    restored: Mapping[str, Restored]
    objects: Mapping[str, int] | None
    written: frozenset[str]

    @classmethod
    def of(cls, meta_graph: Any, stored: Any, folder: Path) -> _Graph:
        """Find out what there is."""
        objects = variables_of(meta_graph.object_graph_def, stored) if meta_graph.object_graph_def.nodes else None
        states = effects_of(meta_graph, folder).states.values()
        written = frozenset(one.node for state in states for one in state.written)
        return cls(meta_graph, restored_by(meta_graph), objects, written)

    def why_not(self, key: str) -> str:
        """Why a variable cannot be packed, in words; "" when it can."""
        if key not in self.restored or (self.objects is not None and key not in self.objects):
            return "it is no plain variable of the graph"
        return "runs write it" if self.restored[key].variable in self.written else ""

    def unpack(self, packed: Mapping[str, Packed], stored: Any) -> None:
        """Change the graph, and what lists its objects in the checkpoint."""
        for key, one in packed.items():
            unpack_restored(self.meta_graph, self.restored[key], one)
        if self.objects is not None:
            variables = [PackedVariable(self.objects[key], one, key) for key, one in packed.items()]
            if variables:
                unpack_loaded(self.meta_graph, stored, variables)
