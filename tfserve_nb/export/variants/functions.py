"""Functions of TensorFlow's standard ops that are added to a SavedModel.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any  # TensorFlow's messages, tensors and functions


def unpack(values: Any, scale: Any = None) -> Any:
    """What a server computes with: a float32 tensor from float16 values, or from int8 ones and their scale."""
    import tensorflow as tf

    wide = tf.cast(values, tf.float32)
    return wide if scale is None else wide * scale


def add_function(meta_graph: Any, name: str, function: Callable[..., Any], given: Sequence[Any]) -> str:
    """Trace a function into the library of a `MetaGraphDef`; the same name is traced once.

    Args:
        meta_graph: the `MetaGraphDef`, which is changed.
        name: a name for it.
        function: takes and returns tensors.
        given: a `tf.TensorSpec` for each argument.

    Returns:
        Its name in the library.
    """
    import tensorflow as tf

    library = meta_graph.graph_def.library.function
    start = f"__inference_tfserve_nb_{name}_"
    if any(one.signature.name == f"{start}0" for one in library):
        return f"{start}0"
    with tf.Graph().as_default() as graph:
        traced = tf.function(function, autograph=False).get_concrete_function(*given)
        traced.add_to_graph(graph)
    found = graph.as_graph_def().library.function
    # What it calls is traced with it; names that other graphs give, too, would be taken for one another.
    own = traced.name if isinstance(traced.name, str) else traced.name.decode()
    names = {own: f"{start}0"}
    for one in found:
        names.setdefault(one.signature.name, f"{start}{len(names)}")
    for one in found:
        one.signature.name = names[one.signature.name]
        for node in one.node_def:
            for value in node.attr.values():
                for called in (*value.list.func, *([value.func] if value.HasField("func") else [])):
                    called.name = names[called.name]
    library.extend(found)
    return f"{start}0"
