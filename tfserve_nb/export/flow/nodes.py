"""How the nodes of a graph, and of its functions, lead to each other.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any  # TensorFlow's messages


def node_of(tensor: str) -> str:
    """The node, or argument of a function, that a tensor's name belongs to, such as `x` for `x:0` and `^x`."""
    return tensor.removeprefix("^").partition(":")[0]


def sources_of(node: Any) -> list[str]:
    """The nodes, or arguments of a function, that a node's inputs come from, in order; those it waits for too."""
    return [node_of(name) for name in node.input]


class GraphIndex:
    """A `GraphDef`, by name.

    Args:
        graph_def: the graph.

    Attributes:
        nodes: of the graph itself.
        functions: its function library.
    """

    def __init__(self, graph_def: Any) -> None:
        self.nodes: dict[str, Any] = {node.name: node for node in graph_def.node}
        self.functions: dict[str, Any] = {function.signature.name: function for function in graph_def.library.function}

    def called(self, node: Any) -> Iterator[str]:
        """The functions that a node calls."""
        if node.op in self.functions:
            yield node.op
        for value in node.attr.values():
            for entry in (*value.list.func, *([value.func] if value.HasField("func") else [])):
                if entry.name in self.functions:
                    yield entry.name

    def reached(self, tensors: Iterable[str]) -> set[str]:
        """The nodes of the graph itself that fetching some tensors runs."""
        found: set[str] = set()
        waiting = [node_of(name) for name in tensors]
        while waiting:
            name = waiting.pop()
            if name in self.nodes and name not in found:
                found.add(name)
                waiting += sources_of(self.nodes[name])
        return found
