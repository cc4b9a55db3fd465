"""How the nodes of a graph, and of its functions, lead to each other.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any  # TensorFlow's messages


def node_of(tensor: str) -> str:
    """The node, or argument of a function, that a tensor's name belongs to, such as `x` for `x:0` and `^x`."""
    return tensor.removeprefix("^").partition(":")[0]


def called_functions(node: Any, functions: Container[str]) -> Iterator[str]:
    """The functions that a node calls.

    Args:
        node: a `NodeDef`.
        functions: the names of those in the graph's library.
    """
    if node.op in functions:
        yield node.op
    for value in node.attr.values():
        for entry in (*value.list.func, *([value.func] if value.HasField("func") else [])):
            if entry.name in functions:
                yield entry.name
