"""What a graph makes of the values of its inputs: whole numbers, text or other numbers; calls and loops are followed.

Thread: any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple  # TensorFlow's graphs

from .nodes import GraphIndex, node_of

WHOLE, TEXT, OTHER = "int64", "string", "numbers"
SHIFTED = "shifted"
"""What was done with values by arithmetic that ids go through, and that gives whole numbers for whole numbers."""

_ID_BYTES = 4
"""Integers that are smaller are pixels, not ids."""

_PASSING = frozenset(
    {
        "BroadcastTo",
        "ConcatV2",
        "EnsureShape",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "Pack",
        "PreventGradient",
        "Reshape",
        "Slice",
        "Snapshot",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "TensorListConcatV2",
        "TensorListFromTensor",
        "TensorListGather",
        "TensorListGetItem",
        "TensorListSetItem",
        "TensorListStack",
        "Tile",
        "Transpose",
        "Unpack",
    }
)
"""Operations that hand the values on as they are."""

_SHIFTING = frozenset(
    {
        "Abs",
        "Add",
        "AddN",
        "AddV2",
        "ClipByValue",
        "FloorMod",
        "Maximum",
        "Minimum",
        "Mod",
        "Neg",
        "Select",
        "SelectV2",
        "Sub",
        "TruncateMod",
    }
)
"""Operations on each value that ids go through."""

_COMPUTING = frozenset(
    {
        "Ceil",
        "Div",
        "DivNoNan",
        "Floor",
        "FloorDiv",
        "Mul",
        "RealDiv",
        "Relu",
        "Rint",
        "Round",
        "Sign",
        "Square",
        "TruncateDiv",
    }
)
"""Others on each value. Behind them whole numbers may have been meant, or numbers that are rounded."""

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While", "StatelessWhile"})
"""Operations that hand values to functions, and give back what these return."""

_SHARED = {
    "AsString": {TEXT, OTHER},
    "SparseCross": {TEXT, WHOLE},
    "SparseCrossHashed": {TEXT, WHOLE},
    "SparseCrossV2": {TEXT, WHOLE},
}
"""Operations that take several types -> which."""

_ASIDE = frozenset(
    {
        "Assert",
        "CheckNumerics",
        "Equal",
        "IsNan",
        "NoOp",
        "NotEqual",
        "OnesLike",
        "Print",
        "PrintV2",
        "Rank",
        "Shape",
        "ShapeN",
        "Size",
        "ZerosLike",
    }
)
"""Operations that tell nothing about a type: of shapes, and of masks."""


class Use(NamedTuple):
    """Something that the values of a tensor become.

    Attributes:
        kind: `WHOLE`, `TEXT` or `OTHER`.
        computed: what was done with them before: "" for nothing, `SHIFTED`, or `OTHER` for any other arithmetic.
    """

    kind: str
    computed: str


def uses_of(graph: Any, count: int) -> list[set[Use]]:
    """What the values of the first inputs of a `FuncGraph` become.

    Args:
        graph: the graph.
        count: how many inputs.

    Returns:
        For each input all that becomes of it; nothing for one that only the shape is used of.
    """
    flow = _Flow(GraphIndex(graph.as_graph_def()), [tensor.name.removesuffix(":0") for tensor in graph.outputs])
    return [flow.uses(tensor.op.name) for tensor in graph.inputs[:count]]


@dataclass(eq=False)
class _Body:
    """Nodes of a graph or of a function, and where tensors go, by the names that inputs have for them.

    Attributes:
        nodes: all nodes.
        results: the tensors that are returned.
    """

    nodes: Iterable[Any]
    results: Sequence[str]

    @cached_property
    def users(self) -> dict[str, list[tuple[Any, int]]]:
        """Tensor -> the nodes that take it, and as which of their inputs."""
        found = defaultdict(list)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                found[name].append((node, place))
        return found

    @cached_property
    def outputs(self) -> dict[str, set[str]]:
        """Node -> its tensors that something is done with."""
        found = defaultdict(set)
        for name in (*self.users, *self.results):
            found[node_of(name)].add(name)
        return found


@dataclass(eq=False)
class _Flow:
    graph: GraphIndex
    results: Sequence[str]
    _found: set[Use] = field(default_factory=set, init=False)
    _inside: set[tuple[str, int, str]] = field(default_factory=set, init=False)
    _bodies: dict[str, _Body] = field(default_factory=dict, init=False)

    def uses(self, tensor: str) -> set[Use]:
        self._found = set()
        for _, computed in self._follow(_Body(self.graph.nodes.values(), self.results), tensor, ""):
            self._found.add(Use(OTHER, computed))
        return self._found

    def _follow(self, body: _Body, tensor: str, computed: str) -> set[tuple[int, str]]:
        """Note what a tensor becomes.

        Args:
            body: where it is.
            tensor: as inputs name it.
            computed: as in `Use`.

        Returns:
            As which of the body's results it is returned, and what was done with it on the way.
        """
        returned: set[tuple[int, str]] = set()
        waiting, seen = [(tensor, computed)], set()
        while waiting:
            name, before = waiting.pop()
            if (name, before) in seen:
                continue
            seen.add((name, before))
            returned |= {(place, before) for place, result in enumerate(body.results) if result == name}
            for node, place in body.users.get(name, ()):
                if node.op in _PASSING or node.op in _SHIFTING or node.op in _COMPUTING:
                    after = OTHER if node.op in _COMPUTING else before or (SHIFTED if node.op in _SHIFTING else "")
                    waiting += [(output, after) for output in body.outputs[node.name]]
                elif node.op in _CALLS:
                    given = self._called(node, place, before)
                    waiting += [
                        (output, after)
                        for output in body.outputs[node.name]
                        for result, after in given
                        if result == _place(output)
                    ]
                elif node.op == "Cast":
                    self._found |= {Use(kind, before) for kind in _kinds_of_cast(node, body)}
                elif node.op not in _ASIDE:
                    self._found |= {Use(kind, before) for kind in _SHARED.get(node.op, {OTHER})}
        return returned

    def _called(self, node: Any, place: int, computed: str) -> set[tuple[int, str]]:
        """As which results of a call an input of it comes back; what a loop returns it takes again."""
        returned: set[tuple[int, str]] = set()
        is_loop = "While" in node.op
        names = [node.attr["body"].func.name] if is_loop else list(self.graph.called(node))
        waiting, seen = [(place, computed)], set()
        while waiting:
            given = waiting.pop()
            if given in seen:
                continue
            seen.add(given)
            found = {result for name in names for result in self._entered(name, node, *given)}
            returned |= found
            waiting += found if is_loop else ()
        return returned

    def _entered(self, name: str, node: Any, place: int, computed: str) -> set[tuple[int, str]]:
        """Follow an input of a call through a function; nothing comes back from one that is in the middle of it."""
        arguments = self.graph.functions[name].signature.input_arg
        # A condition's first input is for the choice.
        argument = place - sum(not source.startswith("^") for source in node.input) + len(arguments)
        key = (name, argument, computed)
        if argument < 0:
            self._found.add(Use(OTHER, computed))
        if argument < 0 or key in self._inside:
            return set()
        self._inside.add(key)
        found = self._follow(self._body(name), arguments[argument].name, computed)
        self._inside.discard(key)
        return found

    def _body(self, name: str) -> _Body:
        if name not in self._bodies:
            function = self.graph.functions[name]
            results = [function.ret[result.name] for result in function.signature.output_arg]
            self._bodies[name] = _Body(function.node_def, results)
        return self._bodies[name]


def _place(tensor: str) -> int:
    """Which output of its node a tensor is."""
    last = tensor.rpartition(":")[2]
    return int(last) if ":" in tensor and last.isdecimal() else 0


def _kinds_of_cast(node: Any, body: _Body) -> set[str]:
    from tensorflow import as_dtype

    dtype = as_dtype(node.attr["DstT"].type)
    if dtype.is_integer and dtype.size >= _ID_BYTES:
        # `Hashing` writes whole numbers as text, and hashes that.
        return {WHOLE, TEXT} if _is_written_as_text(node, body) else {WHOLE}
    return {TEXT if dtype.name == "string" else OTHER}


def _is_written_as_text(node: Any, body: _Body) -> bool:
    users = [user for output in body.outputs[node.name] for user, _ in body.users.get(output, ())]
    return any(user.op == "AsString" or (user.op in _PASSING and _is_written_as_text(user, body)) for user in users)
