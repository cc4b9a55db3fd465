"""The restore op of a SavedModel, changed so that packed weights are unpacked as they are read.

A session, such as TensorFlow Serving's, runs that op when it loads a version. What the op reads for a packed weight
passes through the function that unpacks it, and the variable holds float32 as before. The rest of the graph stays.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # TensorFlow's messages

from ..flow.nodes import GraphIndex, node_of
from ..weights import Packed
from .functions import add_function, unpack

_ASSIGNING = ("AssignVariableOp", "Assign")
_PASSING = ("Identity",)


@dataclass(frozen=True, slots=True)
class Restored:
    """One tensor that the restore op reads from the checkpoint.

    Attributes:
        key: its name there.
        variable: the node of the graph that holds the variable; "" when that is not known.
        nodes: the nodes of the graph, or of the function, that read it.
        reader: the node among them that reads it, and others with it.
        place: its place among what that node reads.
        is_function: whether `nodes` are a function's, where tensors have other names.
    """

    key: str
    variable: str
    nodes: Any
    reader: Any
    place: int
    is_function: bool

    def output(self, node: str, name: str, place: int = 0) -> str:
        """The name of an output of a node: `name` is the output's in the definition of the op."""
        return f"{node}:{name}:{place}" if self.is_function else f"{node}:{place}"


def restored_by(meta_graph: Any) -> dict[str, Restored]:
    """Checkpoint key -> how the restore op of a `MetaGraphDef` reads it; split variables are left out."""
    graph = GraphIndex(meta_graph.graph_def)
    reached = graph.reached([meta_graph.saver_def.restore_op_name])
    found = [one for one in _read_by(meta_graph.graph_def.node, {}, is_function=False) if one.reader.name in reached]
    for node in (graph.nodes[name] for name in reached):
        for function in (graph.functions[name] for name in graph.called(node)):
            given = dict(zip((one.name for one in function.signature.input_arg), node.input, strict=False))
            found += _read_by(function.node_def, given, is_function=True)
    return {one.key: one for one in found}


def _read_by(nodes: Any, given: Mapping[str, str], *, is_function: bool) -> Iterator[Restored]:
    """What some nodes read from the checkpoint.

    Args:
        nodes: of the graph or of a function.
        given: for a function: argument -> the tensor of the graph that it is called with.
        is_function: whether it is one.
    """
    by_name = {node.name: node for node in nodes}
    assigned = _assigned(by_name)
    for node in nodes:
        if node.op != "RestoreV2":
            continue
        keys, parts = (_texts(by_name.get(node_of(source))) for source in node.input[1:3])
        for place, (key, part) in enumerate(zip(keys, parts, strict=False)):
            variable = assigned.get((node.name, place), "")
            if not part:
                yield Restored(key, node_of(given.get(variable, variable)), nodes, node, place, is_function)


def _assigned(by_name: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """(node that reads, place) -> the variable, or argument, that it is assigned to."""
    found = {}
    for node in by_name.values():
        if node.op in _ASSIGNING:
            source = node.input[1]
            while (origin := by_name.get(node_of(source))) is not None and origin.op in _PASSING:
                source = origin.input[0]
            place = source.rpartition(":")[2] if ":" in source else "0"
            found[node_of(source), int(place)] = node_of(node.input[0])
    return found


def _texts(node: Any) -> list[str]:
    is_constant = node is not None and node.op == "Const"
    return [text.decode() for text in node.attr["value"].tensor.string_val] if is_constant else []


def unpack_restored(meta_graph: Any, one: Restored, packed: Packed) -> None:
    """Change how one tensor is read.

    Args:
        meta_graph: the `MetaGraphDef`, which is changed.
        one: the tensor, of `restored_by` for this graph.
        packed: what the checkpoint holds in its place.
    """
    import tensorflow as tf

    float32, stored = tf.float32.as_datatype_enum, tf.as_dtype(packed.values.dtype).as_datatype_enum
    key, *others = packed.parts(one.key)
    keys = next(node for node in one.nodes if node.name == node_of(one.reader.input[1]))
    keys.attr["value"].tensor.string_val[one.place] = key.encode()
    one.reader.attr["dtypes"].list.type[one.place] = stored
    tensor = one.output(one.reader.name, "tensors", one.place)
    names = {tensor} if one.place or one.is_function else {tensor, one.reader.name}
    takers = [(node, place) for node in one.nodes for place, name in enumerate(node.input) if name in names]
    call = one.nodes.add(name=f"unpacked_{len(one.nodes)}", op="PartitionedCall", input=[tensor])
    call.attr["Tin"].list.type.append(stored)
    call.attr["Tout"].list.type.append(float32)
    for scale in others:
        call.input.append(_read_too(one, scale, float32))
        call.attr["Tin"].list.type.append(float32)
    kind = f"unpack_{packed.values.dtype.name}"
    given = [tf.TensorSpec(None, packed.values.dtype), *(tf.TensorSpec(None) for _ in others)]
    call.attr["f"].func.name = add_function(meta_graph, kind, unpack, given)
    for node, place in takers:
        node.input[place] = one.output(call.name, "output")


def _read_too(one: Restored, key: str, dtype: int) -> str:
    """Read another tensor from the same checkpoint; its name in the graph or function."""
    import tensorflow as tf

    name = f"read_too_{len(one.nodes)}"
    for part, text in (("names", key), ("slices", "")):
        constant = one.nodes.add(name=f"{name}/{part}", op="Const", device=one.reader.device)
        constant.attr["dtype"].type = tf.string.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([text], tf.string))
    where = [one.output(f"{name}/{part}", "output") for part in ("names", "slices")]
    node = one.nodes.add(name=name, op="RestoreV2", input=[one.reader.input[0], *where], device=one.reader.device)
    node.attr["dtypes"].list.type.append(dtype)
    return one.output(name, "tensors")
