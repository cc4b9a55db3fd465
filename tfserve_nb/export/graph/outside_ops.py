"""Which ops of a SavedModel reach outside of it: files, Python, the network, the process itself.

A SavedModel is code: TensorFlow runs `WriteFile` with the rights of the user who serves it. What a version can run is
read from its file, before anything of it runs: the part of its graph that requests, initialisation and restoring
reach, and its whole function library.

Not counted is what every SavedModel needs to be loaded: the checkpoint ops of its own save and restore functions, and
vocabularies that initialisation reads from its own `assets` folder. A link there that leads out of the SavedModel's
folder makes any file a vocabulary, so it counts.

Thread: any; pure functions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any  # the messages of TensorFlow

from ..flow.nodes import GraphIndex, node_of, sources_of

ASSETS = "assets"
_SERIES = re.compile(r"^Experimental|V[2-9]$")
"""What the names of earlier and later forms of an op differ in."""

_VOCABULARY = "InitializeTableFromTextFile"
_CHECKPOINT = frozenset({"Save", "SaveSlices", "Restore", "RestoreSlice", "MergeV2Checkpoints"})
_OUTSIDE = _CHECKPOINT | {
    # files
    *("ReadFile", "WriteFile", "MatchingFiles", "FileSystemSetConfiguration", "ImmutableConst", "RecordInput"),
    *("FixedLengthRecordReader", "TextLineReader", "TFRecordReader", "WholeFileReader", "LMDBReader"),
    *("FixedLengthRecordDataset", "TextLineDataset", "TFRecordDataset", "CSVDataset", "LMDBDataset", "SqlDataset"),
    *("MatchingFilesDataset", "LoadDataset", "SaveDataset", "DatasetToTFRecord", "SnapshotDataset"),
    *("SnapshotDatasetReader", "SnapshotChunkDataset", "SnapshotNestedDatasetReader", "ListSnapshotChunksDataset"),
    *("LoadAndRemapMatrix", "GenerateVocabRemapping", "DTensorRestore", "DistributedSave", "DumpTensor"),
    *("CalibrationStatisticsSaver", _VOCABULARY, "Skipgram", "InitializeTRTResource", "SerializeTRTResource"),
    # summaries, which are files
    *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "ImportEvent", "WriteSummary", "WriteRawProtoSummary"),
    *("WriteScalarSummary", "WriteHistogramSummary", "WriteImageSummary", "WriteAudioSummary", "WriteGraphSummary"),
    *("StatsAggregatorSetSummaryWriter", "FlushSummaryWriter", "CloseSummaryWriter"),
    # Python, and graphs that are made while others run
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset", "DatasetFromGraph"),
    # the network, and other processes
    *("RpcServer", "RpcServerStart", "RpcServerRegister", "RpcClient", "RpcCall", "RpcCheckStatus", "RpcGetValue"),
    *("DataServiceDataset", "RegisterDataset", "RemoteCall", "WorkerHeartbeat"),
    # the process
    "Abort",
}  # fmt: skip
_OTHER_PACKAGES = ("IO>",)
"""What the names of TensorFlow I/O's ops begin with; all of them reach files or the network."""


def outside_ops(meta_graph: Any, graph: GraphIndex, folder: Path) -> tuple[str, ...]:
    """The names of the ops of a SavedModel that reach outside of it, sorted; empty for most models.

    Args:
        meta_graph: with the signatures.
        graph: its graph.
        folder: where it lies.
    """
    look = _Look(meta_graph, graph, folder)
    found = {node.op for node in look.nodes_of_runs if look.reaches_outside(node, None)}
    for function in graph.functions.values():
        found |= {node.op for node in function.node_def if look.reaches_outside(node, function)}
    return tuple(sorted(found))


def reach_text(names: Iterable[str]) -> str:
    """A remark for people that names such ops."""
    return f"its graph reaches outside ({', '.join(names)})"


class _Look:
    """Which parts of a `MetaGraphDef` are its own business.

    Args:
        meta_graph: with the signatures.
        graph: its graph.
        folder: of the SavedModel.

    Attributes:
        nodes_of_runs: the nodes of the graph itself that requests, initialisation or restoring run.
    """

    def __init__(self, meta_graph: Any, graph: GraphIndex, folder: Path) -> None:
        self._graph = graph
        self._calls: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        callers = [(entry, entry.node_def) for entry in graph.functions.values()]
        for caller, nodes in [(None, graph.nodes.values()), *callers]:
            for node in nodes:
                for name in set(graph.called(node)):
                    self._calls[name].append((node, caller))
        requests = graph.reached(_fetched(meta_graph))
        starting = graph.reached(_fetched_at_start(meta_graph))
        saving = graph.reached([meta_graph.saver_def.save_tensor_name])
        restoring = graph.reached([meta_graph.saver_def.restore_op_name])
        running = requests | starting
        self.nodes_of_runs = [graph.nodes[name] for name in running | restoring]
        # TensorFlow may put a function of such an interface in the place of another one by its own choice.
        swapped = [name for name, function in graph.functions.items() if "api_implements" in function.attr]
        others = running | (graph.nodes.keys() - saving - restoring)
        self._requested = requests | self._called_by(requests, swapped)
        self._savers_own = (restoring - running) | (
            self._called_by(saving | restoring) - self._called_by(others, swapped)
        )
        self._assets = self._asset_paths(meta_graph, folder)

    def reaches_outside(self, node: Any, function: Any) -> bool:
        """Whether a node reaches outside; it belongs to a function, or to the graph itself."""
        name = _SERIES.sub("", node.op)
        place = node.name if function is None else function.signature.name
        if name in _CHECKPOINT:
            return place not in self._savers_own
        if name == _VOCABULARY:
            # At the start the loader replaces an asset's path by where the file is now; later it is what was stored.
            return place in self._requested or not self._is_asset(sources_of(node)[1:2], function, frozenset())
        depends = _DEPENDS.get(name)
        if depends is not None:
            neighbours = self._graph.nodes.values() if function is None else function.node_def
            return depends(node, {inner.name: inner for inner in neighbours})
        return name in _OUTSIDE or node.op.startswith(_OTHER_PACKAGES)

    def _called_by(self, nodes: Iterable[str], functions: Iterable[str] = ()) -> set[str]:
        """The functions that running nodes and functions runs."""
        found: set[str] = set()
        waiting = set(functions)
        for node in nodes:
            waiting.update(self._graph.called(self._graph.nodes[node]))
        while waiting:
            name = waiting.pop()
            if name not in found and name in self._graph.functions:
                found.add(name)
                for inner in self._graph.functions[name].node_def:
                    waiting.update(self._graph.called(inner))
        return found

    def _asset_paths(self, meta_graph: Any, folder: Path) -> set[str]:
        """The nodes of the graph itself that hold the path of a file below the version's own `assets` folder."""
        named = {node_of(asset.tensor_info.name) for asset in _assets(meta_graph) if _is_inside(asset.filename, folder)}
        nodes = self._graph.nodes
        paths = {name for name in named if name in nodes and nodes[name].op in ("Const", "Placeholder")}
        # TensorFlow 2 assigns the path to a variable first. It counts as long as nothing else touches that variable.
        assigned: dict[str, set[str]] = defaultdict(set)
        used: dict[str, set[str]] = defaultdict(set)
        for node in nodes.values():
            sources = sources_of(node)
            for source in sources:
                used[source].add(node.op)
            if node.op == "AssignVariableOp":
                assigned[sources[0]].add(sources[1])
        harmless = {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}
        variables = {name for name, values in assigned.items() if values <= paths and used[name] <= harmless}
        reads = (node for node in nodes.values() if node.op == "ReadVariableOp")
        return paths | {node.name for node in reads if sources_of(node)[0] in variables}

    def _is_asset(self, sources: list[str], function: Any, seen: frozenset[str]) -> bool:
        """Whether a tensor can only be the path of an asset; an argument of a function is what all its callers pass."""
        if not sources or function is None:
            return bool(sources) and sources[0] in self._assets
        name = function.signature.name
        arguments = [argument.name for argument in function.signature.input_arg]
        if sources[0] not in arguments or name in seen:
            return False
        place = arguments.index(sources[0])
        calls = self._calls[name]
        return all(self._is_asset(sources_of(node)[place : place + 1], caller, seen | {name}) for node, caller in calls)


def _fetched(meta_graph: Any) -> list[str]:
    """The nodes that requests fetch, and initialisation where it stands among the signatures."""
    names = []
    for key, definition in meta_graph.signature_def.items():
        if key != _INIT_SIGNATURE:
            for info in definition.outputs.values():
                parts = [info.coo_sparse.values_tensor_name, info.coo_sparse.indices_tensor_name]
                names += [info.name, *parts, *(part.name for part in info.composite_tensor.components)]
    return [node_of(name) for name in names]


def _fetched_at_start(meta_graph: Any) -> list[str]:
    """The nodes that initialisation fetches."""
    names = []
    if _INIT_SIGNATURE in meta_graph.signature_def:
        names += [info.name for info in meta_graph.signature_def[_INIT_SIGNATURE].outputs.values()]
    for key in _INIT_COLLECTIONS:
        if key in meta_graph.collection_def:
            names += meta_graph.collection_def[key].node_list.value
    return [node_of(name) for name in names]


def _assets(meta_graph: Any) -> list[Any]:
    """The `AssetFileDef`s, which the first versions of TensorFlow stored in a collection."""
    from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

    if meta_graph.asset_file_def or "saved_model_assets" not in meta_graph.collection_def:
        return list(meta_graph.asset_file_def)
    packed = meta_graph.collection_def["saved_model_assets"].any_list.value
    return [AssetFileDef.FromString(entry.value) for entry in packed]


def _is_inside(filename: str, folder: Path) -> bool:
    """Whether an asset is a file of the SavedModel's own, links followed."""
    path = PurePosixPath(filename)
    if not filename or path.is_absolute() or ".." in path.parts:
        return False
    try:
        return (folder / ASSETS / path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL
        return False


def _names_something(attribute: str, prefix: bytes = b"") -> Callable[[Any, Mapping[str, Any]], bool]:
    """For ops that read or write what an attribute names, if it names something."""

    def reaches(node: Any, _: Mapping[str, Any]) -> bool:
        value = node.attr[attribute]
        return any(text and text.startswith(prefix) for text in (value.s, *value.list.s))

    return reaches


def _reads_descriptors(node: Any, _: Mapping[str, Any]) -> bool:
    """The messages that an op knows are those of the process, or in the text itself; every other text is a path."""
    source = node.attr["descriptor_source"].s
    return source not in (b"", b"local://") and not source.startswith(b"bytes://")


def _caches_in_file(node: Any, neighbours: Mapping[str, Any]) -> bool:
    """A cache whose file has no name is held in memory."""
    name = neighbours.get(sources_of(node)[1])
    return name is None or name.op != "Const" or any(name.attr["value"].tensor.string_val)


_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_DEPENDS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "Print": _names_something("output_stream", b"file:"),
    "CacheDataset": _caches_in_file,
    "DecodeProto": _reads_descriptors,
    "EncodeProto": _reads_descriptors,
    "FixedUnigramCandidateSampler": _names_something("vocab_file"),
    "DebugIdentity": _names_something("debug_urls"),
    "DebugNanCount": _names_something("debug_urls"),
    "DebugNumericSummary": _names_something("debug_urls"),
}
"""Ops that reach outside with certain arguments only: (node, its neighbours by name) -> whether it does."""
