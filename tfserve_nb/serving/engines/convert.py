"""Converts signatures of a SavedModel for engines: the program of a process of its own, see `conversion`.

`python -m tfserve_nb.serving.engines.convert JOBS RESULTS`: JOBS is a JSON file; to RESULTS a JSON line is added for
each job as soon as it is done.

Thread: the process's main thread.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any  # TensorFlow, ONNX and their protos

from ...export.reasons import innermost, shorten
from .onnx import OPSET, input_name, output_name

_UNSUPPORTED = re.compile(r"'?(tf\.[A-Za-z0-9_]+)'? op ")
_PLACE = re.compile(r'fused\["[^"]*:", "([^"@]+)')

_MAX_NAMED = 3


class NotConvertible(Exception):
    """A signature that an engine has no operations for; the text says which."""


def main(arguments: Sequence[str]) -> int:
    """Carry out all jobs."""
    jobs, results = (Path(argument) for argument in arguments)
    for job in json.loads(jobs.read_text("utf-8")):
        problem = ""
        try:
            convert = _CONVERTERS[job["engine"]]
            convert(Path(job["path"]), tuple(job["tags"]), job["signature"], Path(job["file"]))
        except NotConvertible as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - converters raise whatever they meet; it becomes a reason
            problem = innermost(error)
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(problem) + "\n")
    return 0


def to_onnx(path: Path, tags: Sequence[str], signature: str, file: Path) -> None:
    """Write one signature as ONNX.

    Raises:
        NotConvertible: naming the operations that ONNX does not have.
    """
    from tf2onnx import convert, tf_loader

    graph, inputs, outputs, renamed = tf_loader.from_saved_model(
        str(path), None, None, ",".join(tags), [signature], return_tensors_to_rename=True
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
    named = [f"{operation} (at {name})" if name else operation for operation, name in places.items()]
    return shorten(", ".join(named[:_MAX_NAMED]) + (" and others" if len(named) > _MAX_NAMED else ""))


_CONVERTERS: dict[str, Callable[[Path, Sequence[str], str, Path], None]] = {"onnx": to_onnx, "litert": to_litert}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
