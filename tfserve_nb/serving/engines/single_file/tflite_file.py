"""What the file of a TensorFlow Lite model says of itself: signatures in its metadata, and what running it does.

Thread: any.

Reference: tensorflow/lite/tools/signature/signature_def_util.cc (converters before TensorFlow 2.5: the buffer of one
entry of the metadata is a map of FlexBuffers from signature names to serialized `SignatureDef`s);
tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any  # protobuf messages, and the classes that FlatBuffers generates

from ....errors import NotAvailable
from ....export.graph.effects import Effects
from ....export.graph.state import GraphState, Written
from ....types import DEFAULT_SIGNATURE

ENTRY = "signature_defs_metadata"

_BRANCHES = {
    "WHILE": ("WhileOptions", ("CondSubgraphIndex", "BodySubgraphIndex")),
    "IF": ("IfOptions", ("ThenSubgraphIndex", "ElseSubgraphIndex")),
    "CALL": ("CallOptions", ("Subgraph",)),
}
"""Op -> the type of its options, and those that name other graphs of the file. `CALL_ONCE` is none of them: it gives
variables their first values."""
_DRAWS = frozenset({"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"})


class TfliteFile:
    """A TensorFlow Lite model's file.

    Args:
        path: of a model that LiteRT can load.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._path = path
        self._schema = schema
        self._model = schema.Model.GetRootAs(path.read_bytes(), 0)
        codes = vars(schema.BuiltinOperator).items()
        self._kinds = {number: name for name, number in codes if isinstance(number, int)}

    def stored_signature_defs(self) -> dict[str, Any]:
        """The `SignatureDef`s in the model's metadata by name; empty when it has none.

        Raises:
            NotAvailable: if they are damaged.
        """
        from flatbuffers import flexbuffers
        from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

        model = self._model
        found: dict[str, Any] = {}
        for number in range(model.MetadataLength()):
            entry = model.Metadata(number)
            if entry.Name() != ENTRY.encode():
                continue
            try:
                stored = flexbuffers.GetRoot(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()).AsMap
                for key, value in zip(stored.Keys, stored.Values, strict=True):
                    found[key.AsKey] = SignatureDef.FromString(value.AsStringBytes)
            except Exception as error:  # FlexBuffers' and protobuf's, of many kinds
                raise NotAvailable(
                    f"{self._path}: {ENTRY} is damaged: {error}", hint="convert the model again"
                ) from error
        return found

    def effects(self) -> Effects:
        """What running its signatures does. LiteRT has no ops that reach outside; TensorFlow's are not built in.

        Signatures that stand in the metadata, and the one of a model without any, run the first graph of the file.
        """
        own = [self._model.SignatureDefs(number) for number in range(self._model.SignatureDefsLength())]
        roots = {one.SignatureKey().decode(): one.SubgraphIndex() for one in own}
        roots = roots or dict.fromkeys([DEFAULT_SIGNATURE, *self.stored_signature_defs()], 0)
        states = {name: self._state(root) for name, root in sorted(roots.items())}
        return Effects({name: state for name, state in states.items() if state.text})

    def _state(self, root: int) -> GraphState:
        written, draws = set(), set()
        for graph in self._graphs(root):
            tensors = [graph.Tensors(number) for number in range(graph.TensorsLength())]
            names = {tensor.Name().decode() for tensor in tensors if tensor.IsVariable()}
            handles: dict[int, str] = {}
            for op, kind in self._ops(graph):
                if kind == "VAR_HANDLE":
                    handles[op.Outputs(0)] = (self._options(op, "VarHandleOptions").SharedName() or b"").decode()
                elif kind == "ASSIGN_VARIABLE":
                    names.add(handles.get(op.Inputs(0)) or tensors[op.Inputs(0)].Name().decode())
                elif kind in _DRAWS:
                    draws.add(kind)
            written |= {Written(name, "", "variable") for name in names}
        return GraphState(tuple(sorted(written)), tuple(sorted(draws)))

    def _graphs(self, root: int) -> Iterator[Any]:
        """A graph of the file, and those that its loops and branches run."""
        waiting, seen = [root], set()
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            graph = self._model.Subgraphs(number)
            yield graph
            for op, kind in self._ops(graph):
                if kind in _BRANCHES:
                    options, places = _BRANCHES[kind]
                    waiting += [getattr(self._options(op, options), place)() for place in places]

    def _ops(self, graph: Any) -> Iterator[tuple[Any, str]]:
        """The ops of a graph with their names; "" for what is no op of LiteRT's own."""
        for number in range(graph.OperatorsLength()):
            op = graph.Operators(number)
            code = self._model.OperatorCodes(op.OpcodeIndex())
            # Codes below 127 stood in a field of one byte first.
            yield op, self._kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")

    def _options(self, op: Any, kind: str) -> Any:
        table, found = op.BuiltinOptions(), getattr(self._schema, kind)()
        found.Init(table.Bytes, table.Pos)
        return found
