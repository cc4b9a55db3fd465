"""What a run of a graph leaves changed: variables, tables and queues that it writes; and what makes its answers differ.

Found without running it: from the ops of the graph and of the functions that it calls, an op that writes is followed
back to the node of the graph that holds what it writes.

Thread: any; pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any  # TensorFlow's messages

import numpy as np

from ..flow.nodes import GraphIndex

_VARIABLE_WRITERS = re.compile(
    r"Assign|Resource(?:Scatter|Apply|Sparse|StridedSliceAssign|CountUpTo)|(?:Sparse)?Apply(?=[A-Z])"
    r"|(?:Scatter|ScatterNd)(?:Add|Sub|Mul|Div|Min|Max|Update)$|StridedSliceAssign$|CountUpTo$"
    r"|Rng(?:Read|Skip)|Stateful(?!PartitionedCall)"
)
_GENERATORS = re.compile(r"Rng|Stateful")
_GENERATOR_DTYPE = 9
"""`tf.int64`, the type of the state of `tf.random.Generator`."""

_TABLE_WRITERS = re.compile(r"LookupTable(?:Insert|Remove|Import)")
_OTHER_WRITERS = re.compile(
    r"Queue(?:Enqueue|Dequeue)|(?:Ordered)?(?:Map)?(?:Unstage|Stage)$|Barrier(?:Insert|Take)|IteratorGetNext|ReaderRead"
    r"|(?:\w+)?Accumulator(?:Apply|Take)"
)
_DRAWS = re.compile(
    r"(?!Stateless)(?:\w*Random|\w*TruncatedNormal|Multinomial|\w*CandidateSampler)(?!\w*Dataset)|Timestamp$"
)
"""Ops that answer something else in each run: their kernels hold the state of a generator, or read the clock."""

_CLOCK = "Timestamp"

_PASSES_ON = frozenset({"Identity", "IdentityN", "Switch", "RefSwitch", "Merge", "Enter", "Exit", "NextIteration"})
_LOOPS = frozenset({"While", "StatelessWhile"})


@dataclass(frozen=True, slots=True, order=True)
class Written:
    """Something that a run changes.

    Attributes:
        name: what people call it.
        node: the node of the graph that holds it; "" when that is not known.
        kind: `variable`, `table` or `other`.
        dtypes: of a variable, or of a table's keys and values, as numbers of `tf.DType`; empty for anything else.
    """

    name: str
    node: str
    kind: str
    dtypes: tuple[int, ...] = ()

    @property
    def can_be_kept(self) -> bool:
        """Whether its value can be read and put back."""
        return bool(self.node and self.dtypes)


@dataclass(frozen=True, slots=True)
class GraphState:
    """What a run changes.

    Attributes:
        written: what it writes, by name.
        draws: the names of the ops that draw random numbers from a generator of their own, or read the clock.
    """

    written: tuple[Written, ...] = ()
    draws: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words; empty when a run changes nothing."""
        if self.written:
            names = list(dict.fromkeys(entry.name for entry in self.written))
            shown = ", ".join(names[:_MOST_NAMED])
            return f"a run changes its own state ({shown}{' …' if len(names) > _MOST_NAMED else ''})"
        return self.draws_text

    @property
    def draws_text(self) -> str:
        """In words why runs answer differently; empty when they do not."""
        drawn = [name for name in self.draws if name != _CLOCK]
        ways = [f"draws random numbers ({', '.join(drawn[:_MOST_NAMED])})"] if drawn else []
        ways += [f"reads the clock ({_CLOCK})"] if _CLOCK in self.draws else []
        return f"a run {' and '.join(ways)}" if ways else ""


_MOST_NAMED = 4

_MEANING = (
    "each loaded version and each server has a state of its own, which all clients share and which begins as it was "
    "exported; requests run one by one, and are neither batched, copied nor replayed"
)


def notes_of(states: Mapping[str, GraphState]) -> list[str]:
    """What users have to know of a version whose runs change something; one line for each way.

    Args:
        states: signature -> what its runs change.
    """
    texts = dict.fromkeys(state.text for state in states.values() if state.written)
    notes = [f"{text}: {_MEANING}" for text in texts]
    return notes + list(dict.fromkeys(state.text for state in states.values() if state.draws and not state.written))


def signature_states(meta_graph: Any, graph: GraphIndex) -> dict[str, GraphState]:
    """What running each signature of a `MetaGraphDef` changes; signatures that change nothing are left out.

    Args:
        meta_graph: with the signatures.
        graph: its graph.
    """
    found = {}
    for name, definition in sorted(meta_graph.signature_def.items()):
        running = graph.reached(info.name for info in definition.outputs.values())
        state = _Walk(graph).state(graph.nodes[node] for node in running)
        if state.text and not name.startswith("__saved_model"):
            found[name] = state
    return found


def state_of(graph_def: Any) -> GraphState:
    """What running all of a `GraphDef` changes."""
    graph = GraphIndex(graph_def)
    return _Walk(graph).state(graph.nodes.values())


class _Walk:
    """Looks for what nodes write, through the functions that they call."""

    def __init__(self, graph: GraphIndex) -> None:
        self._graph = graph
        self._seen: set[object] = set()
        self._written: set[Written] = set()
        self._draws: set[str] = set()

    def state(self, running: Iterable[Any]) -> GraphState:
        """What running some nodes of the graph itself changes."""
        self._walk(running, self._graph.nodes, {})
        return GraphState(tuple(sorted(self._written)), tuple(sorted(self._draws)))

    def _walk(self, running: Iterable[Any], nodes: Mapping[str, Any], arguments: Mapping[str, str]) -> None:
        """Note what nodes write.

        Args:
            running: the nodes that run.
            nodes: those beside them, by name.
            arguments: for the body of a function: argument -> the node of the graph that it comes from, or "".
        """
        for node in running:
            kind = _kind_written(node.op)
            if kind:
                self._note(node, kind, _origin(next(iter(_data(node)), ""), nodes, arguments))
            elif _DRAWS.match(node.op):
                self._draws.add(node.op)
            for name in self._graph.called(node):
                self._enter(name, [_origin(source, nodes, arguments) for source in _data(node)])

    def _enter(self, name: str, origins: list[str]) -> None:
        """Walk the body of a function: its last arguments are the last inputs of what calls it."""
        function = self._graph.functions[name]
        names = [argument.name for argument in function.signature.input_arg]
        common = min(len(names), len(origins))
        given = dict(zip(names[len(names) - common :], origins[len(origins) - common :], strict=True))
        held = tuple(sorted((key, origin) for key, origin in given.items() if origin))
        if (name, held) in self._seen:
            return
        self._seen.add((name, held))
        body = {node.name: node for node in function.node_def}
        self._walk(body.values(), body, dict.fromkeys(names, "") | given)

    def _note(self, node: Any, kind: str, origin: str) -> None:
        holder = self._graph.nodes.get(origin)
        if holder is None and origin.startswith("Anonymous"):
            return  # made by the run itself, and gone with it
        # The shared name of a table is a number.
        shared = holder.attr["shared_name"].s.decode() if holder is not None and kind == "variable" else ""
        held = Written(shared or origin or node.op, "" if holder is None else origin, kind, _dtypes(node, kind))
        self._written.add(held)


def added_keys(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The keys that a table has now and did not have; what some tables import stands beside them."""
    known = set(_hashable(before))
    return now[[number for number, key in enumerate(_hashable(now)) if key not in known]]


def _hashable(keys: np.ndarray) -> list[Any]:
    return [tuple(np.ravel(key).tolist()) for key in keys] if keys.ndim > 1 else keys.tolist()


def _kind_written(op: str) -> str:
    for kind, pattern in (("variable", _VARIABLE_WRITERS), ("table", _TABLE_WRITERS), ("other", _OTHER_WRITERS)):
        if pattern.match(op):
            return kind
    return ""


def _dtypes(node: Any, kind: str) -> tuple[int, ...]:
    """The types of what an op writes."""
    if kind == "table":
        found = tuple(node.attr[name].type for name in ("Tin", "Tout") if name in node.attr)
        return found if len(found) == 2 else ()
    if kind == "variable":
        found = tuple(node.attr[name].type for name in ("dtype", "T") if name in node.attr)
        return (_GENERATOR_DTYPE,) if _GENERATORS.match(node.op) else found[:1]
    return ()


def _origin(source: str, nodes: Mapping[str, Any], arguments: Mapping[str, str]) -> str:
    """The node that a tensor comes from unchanged: of the graph itself, or the op that made it in a function's body."""
    seen = set()
    while source and source not in seen:
        seen.add(source)
        name, _, place = source.partition(":")
        if name in arguments:
            return arguments[name]
        node = nodes.get(name)
        if node is None:
            return ""
        inputs = _data(node)
        place = place.rpartition(":")[2]
        if node.op in _PASSES_ON and inputs:
            source = inputs[0]
        elif node.op in _LOOPS and (int(place) if place.isdigit() else 0) < len(inputs):
            source = inputs[int(place) if place.isdigit() else 0]
        else:
            return name if not arguments else str(node.op)
    return ""


def _data(node: Any) -> list[str]:
    """The inputs of a node without those that it only waits for."""
    return [name for name in node.input if not name.startswith("^")]
