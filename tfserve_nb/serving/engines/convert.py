"""Converts signatures of a SavedModel for engines: the program of a process of its own, see `conversion`.

What was converted is run here too, on made-up rows and on strange ones: a runtime that crashes ends this process, and
not the one that serves.

`python -m tfserve_nb.serving.engines.convert JOBS RESULTS`: JOBS is a JSON file; to RESULTS a JSON line is added for
each job as soon as it is done.

Thread: the process's main thread.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any  # TensorFlow, ONNX and their protos

from ...export.check import made_up_batches
from ...export.reasons import innermost, shorten
from ...export.signatures import dense_signatures_of, read_meta_graph
from ...types import SignatureSpec
from .engine import Engine
from .kinds import KINDS
from .onnx import OPSET, input_name, output_name
from .strange import GuardedEngine, strange_values

_UNSUPPORTED = re.compile(r"'?tf\.([A-Za-z0-9_]+)'? op ")
_PLACE = re.compile(r'fused\["[^"]*:", "([^"@]+)')

_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
"""What TensorFlow puts before the names of a model's layers, for the functions that they are in."""

_MAX_NAMED = 3


class NotConvertible(Exception):
    """A signature that an engine has no operations for; the text says which."""


def main(arguments: Sequence[str]) -> int:
    """Carry out all jobs."""
    jobs, results = (Path(argument) for argument in arguments)
    for job in json.loads(jobs.read_text("utf-8")):
        problem = ""
        path, tags, name, file = Path(job["path"]), tuple(job["tags"]), job["signature"], Path(job["file"])
        try:
            _CONVERTERS[job["engine"]](path, tags, name, file)
            signature = dense_signatures_of(read_meta_graph(path, tags))[name]
            _try(GuardedEngine(KINDS[job["engine"]].load(file, signature, 1), {}), signature)
        except NotConvertible as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - converters raise whatever they meet; it becomes a reason
            problem = innermost(error)
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(problem) + "\n")
    return 0


def _try(engine: Engine, signature: SignatureSpec) -> None:
    """Run what was converted; whether its answers, and its errors, are right is found out by whoever uses it."""
    for batch in made_up_batches(signature):
        strange = ({**batch, name: array} for name in batch for _, array in strange_values(batch[name]))
        for inputs in (batch, *strange):
            with contextlib.suppress(Exception):
                engine.run(inputs)


def to_onnx(path: Path, tags: Sequence[str], signature: str, file: Path) -> None:
    """Write one signature as ONNX.

    Raises:
        NotConvertible: naming the operations that ONNX does not have.
    """
    from tf2onnx import convert, tf_loader

    graph, inputs, outputs, renamed = tf_loader.from_saved_model(
        str(path), None, None, list(tags), [signature], return_tensors_to_rename=True
    )
    named_outputs = set(outputs)
    renamed = {
        tensor: output_name(name) if tensor in named_outputs else input_name(name) for tensor, name in renamed.items()
    }
    model, _ = convert.from_graph_def(
        graph, name=signature, input_names=inputs, output_names=outputs, opset=OPSET, tensors_to_rename=renamed
    )
    _check_onnx(model)
    file.write_bytes(model.SerializeToString())


def _check_onnx(model: Any) -> None:
    from onnx import defs

    nodes = list(_nodes(model.graph))
    unknown = [(node.op_type, node.name) for node in nodes if not node.domain and not defs.has(node.op_type)]
    if unknown:
        raise NotConvertible(f"ONNX has no operation for {_listed(unknown)}")
    loops = [(node.op_type, node.name) for node in nodes if node.op_type in ("Loop", "Scan")]
    if loops:
        raise NotConvertible(f"a loop stays, which could not be stopped at a deadline: {_listed(loops)}")


def _nodes(graph: Any) -> Any:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


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
        named = dict.fromkeys(_UNSUPPORTED.findall(str(error)))
        places = dict.fromkeys(_PLACE.findall(str(error)))
        if not named:
            raise
        where = f" (in {next(iter(places))})" if places else ""
        raise NotConvertible(f"LiteRT has no operation for {', '.join(list(named)[:_MAX_NAMED])}{where}") from error
    _check_litert(content)
    file.write_bytes(content)


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
        places.setdefault(operation, name)
    named = [f"{operation} (in {_CALLS.sub('', name)})" if name else operation for operation, name in places.items()]
    return shorten(", ".join(named[:_MAX_NAMED]) + (" and others" if len(named) > _MAX_NAMED else ""))


_CONVERTERS: dict[str, Callable[[Path, Sequence[str], str, Path], None]] = {"onnx": to_onnx, "litert": to_litert}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
