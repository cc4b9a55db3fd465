"""What an ONNX file says of itself: what it takes and gives, what running it does, and which files belong to it.

Nothing of it is run, and no file beside it is read.

Thread: any.

Reference: https://github.com/onnx/onnx/blob/main/docs/IR.md and ExternalData.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any  # ONNX's messages

from ...errors import ModelNotServable, NotAvailable
from ...types import DEFAULT_SIGNATURE, Shape, SignatureSpec, TensorSpec, in_order

INSTALLATION = "pip install 'tfserve_nb[onnx]'"

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""ONNX's number of a type -> TensorFlow's name of it, for those that requests can carry."""

_DRAWS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_LOOPS = frozenset({"Loop", "Scan"})

_RESERVED = frozenset(
    {"model.onnx", "model.tflite", "saved_model.pb", "saved_model.pbtxt", "variables", "assets", "assets.extra"}
)
"""What means something else in a version's folder."""

_HINTS = {
    "map": "scikit-learn's ZipMap makes it: export without, skl2onnx.to_onnx(model, x, options={'zipmap': False})",
    "sequence": "export the model with tensors as outputs: one for each, or all of them stacked",
    "optional": "export the model with tensors that are always there",
    "sparse tensor": "export the model with a dense tensor in its place",
}


class OnnxFile:
    """An ONNX model's file.

    Args:
        content: of the file.
        called: what it is called in messages.

    Attributes:
        signature: the only one; the inputs' order is that of the file.
        draws: the operations that make its answers differ from run to run.
        has_loops: whether it holds a loop whose steps are counted at run time.
        external: the files with weights that belong to it, as paths from its folder that stay below it.
        made_by: the version of its operators, and the program that wrote it, in words.

    Raises:
        NotAvailable: if the package `onnx` is not installed.
        ModelNotServable: if it is no ONNX model, or one that requests cannot reach.
    """

    def __init__(self, content: bytes, called: str) -> None:
        try:
            from onnx import ModelProto
        except ImportError as error:
            raise NotAvailable(f"{called} needs the package onnx, which is not installed", hint=INSTALLATION) from error
        self._called = called
        try:
            model = ModelProto.FromString(content)
        except Exception as error:  # protobuf's DecodeError
            raise self._damaged() from error
        if not model.graph.node:
            raise self._damaged()
        self.signature = self._signature(model.graph)
        nodes = list(_all_nodes(model))
        self.draws = tuple(sorted({node.op_type for node in nodes if node.op_type in _DRAWS}))
        self.has_loops = any(node.op_type in _LOOPS for node in nodes)
        self.external = tuple(dict.fromkeys(self._location(tensor) for tensor in _external(model.graph, nodes)))
        opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
        program = " ".join(filter(None, (model.producer_name, model.producer_version)))
        self.made_by = f"opset {opset}{f', written by {program}' if program else ''}"

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """The file of a path.

        Raises:
            ModelNotServable: if it cannot be read, too.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelNotServable(
                f"{path} cannot be read: {error.strerror or error}", hint=f"ls -l '{path}'"
            ) from error
        return cls(content, str(path))

    def _damaged(self) -> ModelNotServable:
        return ModelNotServable(
            f"{self._called} is no ONNX model, or is damaged: it cannot be parsed",
            hint="export it again, the file may be cut short",
        )

    def _signature(self, graph: Any) -> SignatureSpec:
        # Files of before 2019 list the weights among the inputs too.
        weights = {one.name for one in graph.initializer} | {one.values.name for one in graph.sparse_initializer}
        inputs = [one for one in graph.input if one.name not in weights]
        return SignatureSpec(
            DEFAULT_SIGNATURE,
            self._specs("input", inputs),
            self._specs("output", graph.output),
            order=tuple(one.name for one in inputs) if len(inputs) > 1 else (),
        )

    def _specs(self, role: str, values: Iterable[Any]) -> Mapping[str, TensorSpec]:
        found = {value.name: self._spec(role, value) for value in values}
        return {name: found[name] for name in in_order(found)}

    def _spec(self, role: str, value: Any) -> TensorSpec:
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            what, advice = _in_words(value.type)
            raise ModelNotServable(
                f"{role} {value.name!r} of {self._called} is a {what}, and requests carry tensors", hint=_HINTS[advice]
            )
        tensor = value.type.tensor_type
        dtype = _DTYPES.get(tensor.elem_type)
        if dtype is None:
            import onnx

            name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            raise ModelNotServable(
                f"{role} {value.name!r} of {self._called} is {name}, a type that requests do not carry",
                hint="export the model with float32 there: a Cast before or behind it",
            )
        return TensorSpec(value.name, dtype, _shape(tensor) if tensor.HasField("shape") else None, value.name)

    def _location(self, tensor: Any) -> str:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        path = PurePosixPath(location)
        is_below = location and not path.is_absolute() and ".." not in path.parts and "\\" not in location
        if not is_below or "\0" in location or path.parts[0] in _RESERVED:
            raise ModelNotServable(
                f"{self._called} wants its weights from the file {location!r}, which is no file below its folder, or "
                "means something else there",
                hint="export it again with the weights inside of it, or in one file beside it",
            )
        return str(path)


def nodes_of(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, and of the graphs inside of them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _all_nodes(model: Any) -> Iterator[Any]:
    yield from nodes_of(model.graph)
    for function in model.functions:
        yield from nodes_of(function)


def _external(graph: Any, nodes: Iterable[Any]) -> Iterator[Any]:
    """The tensors whose values lie in other files."""
    for tensor in (*_tensors(graph), *(tensor for node in nodes for tensor in _node_tensors(node))):
        if tensor.data_location == tensor.EXTERNAL:
            yield tensor


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _node_tensors(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _shape(tensor: Any) -> Shape:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim
    )


def _in_words(kind: Any) -> tuple[str, str]:
    """What a value is that is no tensor, and what `_HINTS` has for it."""
    name = kind.WhichOneof("value").removesuffix("_type").replace("_", " ")
    if name == "sequence" and kind.sequence_type.elem_type.WhichOneof("value") == "map_type":
        return "sequence of maps", "map"
    return name, name if name in _HINTS else "optional"
