"""The graph of a version, marked to be compiled by XLA wherever it is loaded.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any  # TensorFlow's messages

from ..flow.nodes import GraphIndex, node_of
from ..signatures import SAVED_MODEL_FILE, read_saved_model, signatures_of

_COMPILED = "_XlaMustCompile"
"""What `tf.function(jit_compile=True)` sets on a function and on what calls it."""

_TAKEN_APART = "_lower_using_switch_merge"
"""Has TensorFlow make switches and jumps of a loop before it is run."""


def write_compiled(folder: Path, target: Path) -> tuple[str, ...]:
    """Write the graph of a version so that the functions behind its signatures are compiled; its other files are not.

    Args:
        folder: the version.
        target: an existing folder.

    Returns:
        The signatures that have no function, as those of TensorFlow 1, and stay as they are.
    """
    saved_model = read_saved_model(folder)
    without = []
    for meta_graph in saved_model.meta_graphs:
        graph = GraphIndex(meta_graph.graph_def)
        for name in signatures_of(meta_graph):
            outputs = meta_graph.signature_def[name].outputs.values()
            called = _calls(graph, [graph.nodes[node_of(info.name)] for info in outputs])
            for node, function in called:
                graph.functions[function].attr[_COMPILED].b = True
                node.attr[_COMPILED].b = True
                _keep_loops(graph, function, set())
            without += [] if called else [name]
    (target / SAVED_MODEL_FILE).write_bytes(saved_model.SerializeToString(deterministic=True))
    return tuple(without)


def _keep_loops(graph: GraphIndex, name: str, seen: set[str]) -> None:
    """Leave loops and branches of a function, and of those that it calls, whole: XLA does not know their parts."""
    if name in seen:
        return
    seen.add(name)
    for node in graph.functions[name].node_def:
        if _TAKEN_APART in node.attr:
            node.attr[_TAKEN_APART].b = False
        for called in list(graph.called(node)):
            _keep_loops(graph, called, seen)


def _calls(graph: GraphIndex, nodes: Iterable[Any]) -> list[tuple[Any, str]]:
    """The nodes that call functions, with these."""
    return [(node, function) for node in nodes for function in list(graph.called(node))]
