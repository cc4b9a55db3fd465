"""Converts signatures of a SavedModel for engines: the program of a process of its own, see `conversion`.

What was converted is run here too, on made-up rows and on strange ones: a runtime that crashes ends this process, and
not the one that serves.

`python -m tfserve_nb.serving.engines.convert JOBS RESULTS`: JOBS is a JSON file; to RESULTS a JSON line is added for
each job as soon as it is done.

Thread: the process's main thread.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any  # TensorFlow, ONNX and their protos

from ...export.check import made_up_batches
from ...export.reasons import innermost, shorten
from ...export.signatures import dense_signatures_of, read_meta_graph
from ...export.single_file.onnx_file import nodes_of
from ...types import SignatureSpec
from .compare import Run
from .kinds import KINDS
from .onnx import OPSET, input_name, output_name
from .single_file.loading import load_single_file
from .strange import GuardedEngine, strange_values

_UNSUPPORTED = re.compile(r"'?tf\.([A-Za-z0-9_]+)'? op ")
_SITE = re.compile(r'fused\["(?!\w*PartitionedCall)(\w+):", "([^"@]+)')
"""An operation and its place, where LiteRT's converter says what it failed at."""

_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
"""What TensorFlow puts before the names of a model's layers, for the functions that they are in."""

_PROGRAMS = frozenset({"XlaCallModule"})
"""Operations that hold a program of another compiler, such as JAX': what tf2onnx says of them is of no use."""

_NAMELESS = "unknown"
"""What tf2onnx calls an operation whose name it lost."""

_MAX_NAMED = 3


class NotConvertible(Exception):
    """A signature that an engine has no operations for; the text says which."""


def main(arguments: Sequence[str]) -> int:
    """Carry out all jobs."""
    jobs, results = (Path(argument) for argument in arguments)
    for job in json.loads(jobs.read_text("utf-8")):
        problem = _carry_out(job)
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(problem) + "\n")
    return 0


def _carry_out(job: Any) -> str:
    """Why a job failed, in words; "" when it did not."""
    path, tags, name, file = Path(job["path"]), tuple(job["tags"]), job["signature"], Path(job["file"])
    try:
        if not job["engine"]:
            _try_single_file(path)
            return ""
        _CONVERTERS[job["engine"]](path, tags, name, file)
        signature = dense_signatures_of(read_meta_graph(path, tags))[name]
        _try(GuardedEngine(KINDS[job["engine"]].load(file, signature, 1, None), {}).run, signature)
    except NotConvertible as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - converters raise whatever they meet; it becomes a reason
        return innermost(error)
    return ""


def _try(run: Run, signature: SignatureSpec) -> None:
    """Run what was converted; whether its answers, and its errors, are right is found out by whoever uses it."""
    for batch in made_up_batches(signature):
        strange = ({**batch, name: array} for name in batch for _, array in strange_values(batch[name]))
        for inputs in (batch, *strange):
            with contextlib.suppress(Exception):
                run(inputs)


def _try_single_file(path: Path) -> None:
    """Run a version that is a single file; see `_try`."""
    servable = load_single_file(path, 1)
    if servable is not None:
        for name, signature in servable.signatures.items():
            _try(partial(servable.run, name), signature)


def to_onnx(path: Path, tags: Sequence[str], signature: str, file: Path) -> None:
    """Write one signature as ONNX.

    Raises:
        NotConvertible: naming the operations that ONNX does not have.
    """
    from tf2onnx import convert, tf_loader

    graph, inputs, outputs, renamed = tf_loader.from_saved_model(
        str(path), None, None, list(tags), [signature], return_tensors_to_rename=True
    )
    _refuse_whole_programs(graph)
    named_outputs = set(outputs)
    renamed = {
        tensor: output_name(name) if tensor in named_outputs else input_name(name) for tensor, name in renamed.items()
    }
    model, _ = convert.from_graph_def(
        graph, name=signature, input_names=inputs, output_names=outputs, opset=OPSET, tensors_to_rename=renamed
    )
    _check_onnx(model)
    file.write_bytes(model.SerializeToString())


def _refuse_whole_programs(graph: Any) -> None:
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    found = [(node.op, node.name) for node in nodes if node.op in _PROGRAMS]
    if found:
        raise NotConvertible(f"ONNX has no operation for {_listed(found)}")


def _check_onnx(model: Any) -> None:
    from onnx import defs

    nodes = list(nodes_of(model.graph))
    unknown = [(node.op_type, node.name) for node in nodes if not node.domain and not defs.has(node.op_type)]
    if unknown:
        raise NotConvertible(f"ONNX has no operation for {_listed(unknown)}")
    loops = [(node.op_type, node.name) for node in nodes if node.op_type in ("Loop", "Scan")]
    if loops:
        raise NotConvertible(f"a loop stays, which could not be stopped at a deadline: {_listed(loops)}")


def to_litert(path: Path, tags: Sequence[str], signature: str, file: Path) -> None:
    """Write one signature as a TensorFlow Lite model.

    Raises:
        NotConvertible: naming the operations that LiteRT does not have.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[signature], tags=set(tags))
    try:
        content = converter.convert()
    except Exception as error:
        problem = litert_problem(str(error))
        if not problem:
            raise
        raise NotConvertible(problem) from error
    _check_litert(content)
    file.write_bytes(content)


def litert_problem(text: str) -> str:
    """The operations that the error of LiteRT's converter names, in words; "" when it names none."""
    missing: list[tuple[str, str]] = []
    failing: list[tuple[str, str]] = []
    for line in text.splitlines():
        sites = _SITE.findall(line)
        place = sites[0][1] if sites else ""
        named = _UNSUPPORTED.findall(line)
        missing += [(operation, place) for operation in named]
        failing += sites[:1] if "error:" in line and not named else []
    if missing:
        return f"LiteRT has no operation for {_listed(missing)}"
    return f"LiteRT cannot convert {_listed(failing)}" if failing else ""


def _check_litert(content: bytes) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=content)
    loops = [one["op_name"] for one in interpreter._get_ops_details() if one["op_name"] == "WHILE"]  # noqa: SLF001
    if loops:
        raise NotConvertible("a loop stays, which could not be stopped at a deadline: WHILE")


def _listed(found: Sequence[tuple[str, str]]) -> str:
    """Operations and the first place of each, in words."""
    places: dict[str, str] = {}
    for operation, name in found:
        places.setdefault(operation, "" if name == _NAMELESS else name)
    named = [f"{operation} (in {_CALLS.sub('', name)})" if name else operation for operation, name in places.items()]
    return shorten(", ".join(named[:_MAX_NAMED]) + (" and others" if len(named) > _MAX_NAMED else ""))


_CONVERTERS: dict[str, Callable[[Path, Sequence[str], str, Path], None]] = {"onnx": to_onnx, "litert": to_litert}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
