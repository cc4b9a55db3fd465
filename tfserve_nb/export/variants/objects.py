"""The objects of a SavedModel, changed so that packed weights are unpacked where Python loads them.

`tf.saved_model.load` does not run the restore op: it makes the variables and gives them what it reads. So the packed
values are variables of their own there, and beside them lies a resource, as tables are one, whose initialisation gives
the weights what was unpacked, unless they have a value. Sessions have none of these.

Thread: any.

Reference: tensorflow/core/protobuf/saved_object_graph.proto, trackable_object_graph.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any  # TensorFlow's messages and tensors

from ..weights import Packed
from .functions import add_function, unpack

VALUE = "VARIABLE_VALUE"
"""TensorFlow's name for the part of a variable that a checkpoint holds."""

_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"
"""TensorFlow's name for resources that are nobody else's, though another has the same name."""

_CHILD = "packed_weights"
_NO_ARGUMENTS = "tuple_value { values { tuple_value {} } values { dict_value {} } }"


@dataclass(frozen=True, slots=True)
class PackedVariable:
    """A variable of which the checkpoint holds packed values.

    Attributes:
        node: its place among the objects of the SavedModel.
        packed: what is stored.
        key: the name of its value in the checkpoint when it is not packed.
    """

    node: int
    packed: Packed
    key: str

    @property
    def parts(self) -> list[tuple[str, Any]]:
        """Name in the checkpoint and array of each part that is stored."""
        return list(self.packed.parts(self.key).items())


def variables_of(objects: Any, stored: Any) -> dict[str, int]:
    """Checkpoint key -> the variable among the objects of a SavedModel.

    Args:
        objects: the `SavedObjectGraph`.
        stored: the `TrackableObjectGraph` of the checkpoint, of which the same names lead to the same objects.
    """
    found, waiting, seen = {}, [(0, 0)] if len(stored.nodes) and len(objects.nodes) else [], set[int]()
    while waiting:
        here, there = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for attribute in stored.nodes[here].attributes:
            if attribute.name == VALUE and objects.nodes[there].WhichOneof("kind") == "variable":
                found[attribute.checkpoint_key] = there
        children = {child.local_name: child.node_id for child in objects.nodes[there].children}
        waiting += [
            (child.node_id, children[child.local_name])
            for child in stored.nodes[here].children
            if child.local_name in children
        ]
    return found


def unpack_loaded(meta_graph: Any, stored: Any, variables: Sequence[PackedVariable]) -> None:
    """Have Python unpack some variables when it loads the SavedModel.

    Args:
        meta_graph: the `MetaGraphDef`, which is changed.
        stored: the `TrackableObjectGraph` of the checkpoint, which is changed.
        variables: those that are packed.
    """
    objects = meta_graph.object_graph_def
    names = _forget(stored, {one.key for one in variables})
    parts = [[_add_variable(objects, key, array) for key, array in one.parts] for one in variables]
    bound = [[one.node, *nodes] for one, nodes in zip(variables, parts, strict=True)]
    holder = len(objects.nodes)
    objects.nodes.add().resource.device = ""
    _attach(objects, 0, _CHILD, holder)
    stored.nodes[0].children.add(node_id=len(stored.nodes), local_name=_CHILD)
    holder_stored = stored.nodes.add()
    holder_stored.has_checkpoint_values.value = True
    for one, nodes in zip(variables, parts, strict=True):
        for (key, _), node in zip(one.parts, nodes, strict=True):
            _attach(objects, holder, str(node), node)
            holder_stored.children.add(node_id=len(stored.nodes), local_name=str(node))
            part = stored.nodes.add()
            part.has_checkpoint_values.value = True
            part.attributes.add(name=VALUE, full_name=names[one.key], checkpoint_key=key)
    create = _add_method(meta_graph, "create", _handle, [])
    _attach(objects, holder, "_create_resource", create)
    objects.nodes[holder].dependencies.add(node_id=create, local_name="_create_resource")
    initialize = _add_method(meta_graph, "initialize", _initializer(variables), [*chain.from_iterable(bound)])
    _attach(objects, holder, "_initialize", initialize)


def _initializer(variables: Sequence[PackedVariable]) -> Any:
    """Gives variables without a value what was unpacked."""
    import tensorflow as tf

    def initialize(*handles: Any) -> Any:
        def unpack_all() -> Any:
            left = list(handles)
            for one in variables:
                taken, left = left[: 1 + len(one.parts)], left[1 + len(one.parts) :]
                values = [
                    tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=array.dtype), array.shape)
                    for handle, (_, array) in zip(taken[1:], one.parts, strict=True)
                ]
                tf.raw_ops.AssignVariableOp(resource=taken[0], value=unpack(*values))
            return tf.constant(1)

        # A model that is loaded, changed and saved again keeps what it was changed to.
        has_values = tf.raw_ops.VarIsInitializedOp(resource=handles[0])
        return tf.cond(has_values, lambda: tf.constant(0), unpack_all)

    return initialize


def _handle() -> Any:
    """A resource has to be one; this one holds nothing."""
    import tensorflow as tf

    return tf.raw_ops.VarHandleOp(dtype=tf.int8, shape=[], shared_name=_ANONYMOUS)


def _add_variable(objects: Any, key: str, array: Any) -> int:
    import tensorflow as tf

    variable = objects.nodes.add().variable
    variable.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    variable.shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    variable.name = key.partition("/.ATTRIBUTES")[0]
    return len(objects.nodes) - 1


def _forget(stored: Any, keys: set[str]) -> dict[str, str]:
    """Leave out of the checkpoint's own list of objects what is no value of theirs any more; key -> variable's name."""
    names: dict[str, str] = {}
    for node in stored.nodes:
        kept = [attribute for attribute in node.attributes if attribute.checkpoint_key not in keys]
        if len(kept) < len(node.attributes):
            names |= {attribute.checkpoint_key: attribute.full_name for attribute in node.attributes}
            del node.attributes[:]
            node.attributes.extend(kept)
            node.has_checkpoint_values.value = bool(kept)
    return names


def _attach(objects: Any, parent: int, name: str, node: int) -> None:
    objects.nodes[parent].children.add(node_id=node, local_name=name)


def _add_method(meta_graph: Any, name: str, function: Any, bound: Sequence[int]) -> int:
    """Add a function without arguments that is bound to some objects; its place among the objects."""
    import tensorflow as tf
    from google.protobuf import text_format

    objects = meta_graph.object_graph_def
    traced = add_function(meta_graph, name, function, [tf.TensorSpec([], tf.resource)] * len(bound))
    saved = objects.concrete_functions[traced]
    saved.bound_inputs.extend(bound)
    text_format.Parse(_NO_ARGUMENTS, saved.canonicalized_input_signature)
    kind = "DT_RESOURCE" if not bound else "DT_INT32"
    text_format.Parse(f"tensor_spec_value {{ shape {{}} dtype: {kind} }}", saved.output_signature)
    objects.nodes.add().bare_concrete_function.concrete_function_name = traced
    return len(objects.nodes) - 1
