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
    _entered: set[tuple[str, int, str]] = field(default_factory=set, init=False)

    def uses(self, tensor: str) -> set[Use]:
        self._found, self._entered = set(), set()
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
        """As which results of a call an input of it comes back."""
        returned: set[tuple[int, str]] = set()
        num_inputs = sum(not name.startswith("^") for name in node.input)
        for function in self.graph.called(node):
            signature = self.graph.functions[function].signature
            # A condition's first input is for the choice.
            argument = place - num_inputs + len(signature.input_arg)
            is_test = "While" in node.op and function == node.attr["cond"].func.name
            if is_test or (function, place, computed) in self._entered:
                continue
            if argument < 0:
                self._found.add(Use(OTHER, computed))
                continue
            self._entered.add((function, place, computed))
            results = [self.graph.functions[function].ret[result.name] for result in signature.output_arg]
            body = _Body(self.graph.functions[function].node_def, results)
            found = self._follow(body, signature.input_arg[argument].name, computed)
            self._entered.discard((function, place, computed))
            for result, after in found:
                returned.add((result, after))
                if "While" in node.op and (result, after) != (place, computed):
                    returned |= self._called(node, result, after)
        return returned


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
