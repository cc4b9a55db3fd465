"""What a SavedModel takes and returns, read from its file: no graph is built and no session is opened.

Thread: any.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ExportFailed, ModelNotServable
from ..protos.tensors import dtype_name, dtype_number, to_array
from ..types import DEFAULT_SIGNATURE, SignatureDefs, SignatureSpec, TensorSpec, in_order
from .flow.nodes import GraphIndex

SAVED_MODEL_FILE = "saved_model.pb"
SAVED_MODEL_TEXT_FILE = "saved_model.pbtxt"
SERVING_TAGS = frozenset({"serve"})
"""The tag set that TensorFlow Serving loads by default."""

_INIT_OP = "__saved_model_init_op"
_VARYING_OP = re.compile(r"Random|TruncatedNormal|Multinomial|^Stateful(?:Uniform|StandardNormal)|^Timestamp$")
_PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def read_signatures(path: Path | str, tags: Collection[str] = SERVING_TAGS) -> dict[str, SignatureSpec]:
    """The signatures of a SavedModel folder by name, sorted; inputs and outputs in the order of `in_order`.

    Args:
        path: the folder that holds `saved_model.pb`.
        tags: of the graph to read; a SavedModel may hold several.

    Returns:
        Signature name -> spec; the entry with which TensorFlow marks its initialisation is no signature.

    Raises:
        ModelNotServable: if the folder holds no SavedModel that TensorFlow Serving could load, or a signature has an
            input or output that is no dense tensor.
    """
    return signatures_of(read_meta_graph(path, tags))


def signatures_of(meta_graph: Any) -> dict[str, SignatureSpec]:
    """The signatures of a `MetaGraphDef`; see `read_signatures`."""
    orders = _orders(meta_graph)
    return {
        name: _signature(name, definition, orders.get(name, ()))
        for name, definition in sorted(meta_graph.signature_def.items())
        if name != _INIT_OP
    }


def dense_signatures_of(meta_graph: Any) -> dict[str, SignatureSpec]:
    """The signatures of a `MetaGraphDef` that requests can reach: those of dense tensors only."""
    found = {}
    orders = _orders(meta_graph)
    for name, definition in sorted(meta_graph.signature_def.items()):
        infos = (*definition.inputs.values(), *definition.outputs.values())
        if name != _INIT_OP and all(info.WhichOneof("encoding") == "name" for info in infos):
            found[name] = _signature(name, definition, orders.get(name, ()))
    return found


def main_signature(signatures: Mapping[str, SignatureSpec]) -> SignatureSpec:
    """The signature that rows are for when no other is named: `serving_default`, or the first without one."""
    return signatures.get(DEFAULT_SIGNATURE) or next(iter(signatures.values()))


def signature_defs_of(meta_graph: Any) -> SignatureDefs:
    """The signatures of a `MetaGraphDef` word for word."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

    message = SignatureDefMap()
    for name, definition in meta_graph.signature_def.items():
        message.signature_def[name].CopyFrom(definition)
    json = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for definition in json["signature_def"].values():
        for infos in ("inputs", "outputs"):  # protobuf's maps have no order
            definition[infos] = {name: definition[infos][name] for name in in_order(definition[infos])}
    return SignatureDefs(message.SerializeToString(), json)


def to_signature_defs(signatures: Mapping[str, SignatureSpec], platform: str) -> SignatureDefs:
    """The messages of signatures that come from no SavedModel.

    Args:
        signatures: by name.
        platform: see `SignatureDefs`.
    """
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    meta_graph = MetaGraphDef()
    for name, signature in signatures.items():
        definition = meta_graph.signature_def[name]
        definition.method_name = signature.method_name
        for infos, specs in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
            for spec in specs.values():
                info = infos[spec.name]
                info.name, info.dtype = spec.tensor_name, dtype_number(spec.dtype)
                info.tensor_shape.unknown_rank = spec.shape is None
                for size in spec.shape or ():
                    info.tensor_shape.dim.add(size=-1 if size is None else size)
    return replace(signature_defs_of(meta_graph), platform=platform)


def _orders(meta_graph: Any) -> dict[str, tuple[str, ...]]:
    """Signature -> its inputs in the order of the function behind it, for those of several inputs that have one.

    A signature is called by name: TensorFlow wraps it around the function, whose arguments it writes down as they are.
    `f(a, b)` and `f([a, b])` have an order, `f({"a": a, "b": b})` has none.
    """
    objects = meta_graph.object_graph_def
    graph = GraphIndex(meta_graph.graph_def)
    functions = {
        node.bare_concrete_function.concrete_function_name: node.bare_concrete_function
        for node in objects.nodes
        if node.WhichOneof("kind") == "bare_concrete_function"
    }
    found = {}
    for signature, wrapper in _wrappers(objects).items():
        nodes = graph.functions[wrapper].node_def if wrapper in graph.functions else ()
        wrapped = [functions[name] for node in nodes for name in graph.called(node) if name in functions]
        names = set(meta_graph.signature_def[signature].inputs)
        if len(wrapped) != 1 or len(names) < 2:
            continue
        arguments = objects.concrete_functions[wrapped[0].concrete_function_name].canonicalized_input_signature
        order = tuple(wrapped[0].argument_keywords)
        if _is_list_of_tensors(arguments) and len(order) == len(names) == len(names.intersection(order)):
            found[signature] = order
    return found


def _wrappers(objects: Any) -> dict[str, str]:
    """Signature -> the function that is called by name."""
    nodes = objects.nodes
    held = next((child for child in (nodes[0].children if nodes else ()) if child.local_name == "signatures"), None)
    return {
        child.local_name: nodes[child.node_id].bare_concrete_function.concrete_function_name
        for child in (() if held is None else nodes[held.node_id].children)
        if nodes[child.node_id].WhichOneof("kind") == "bare_concrete_function"
    }


def _is_list_of_tensors(arguments: Any) -> bool:
    """Whether a function takes one tensor for each argument, or one list of tensors.

    Args:
        arguments: the `StructuredValue` of `(args, kwargs)`.
    """
    if len(arguments.tuple_value.values) != 2:
        return False
    args, kwargs = arguments.tuple_value.values
    values = args.tuple_value.values
    if len(values) == 1 and values[0].WhichOneof("kind") in {"list_value", "tuple_value"}:
        values = getattr(values[0], values[0].WhichOneof("kind")).values
    return not kwargs.dict_value.fields and all(value.WhichOneof("kind") == "tensor_spec_value" for value in values)


def _signature(name: str, definition: Any, order: tuple[str, ...]) -> SignatureSpec:
    return SignatureSpec(
        name=name,
        inputs=_tensor_specs(name, definition.inputs),
        outputs=_tensor_specs(name, definition.outputs),
        method_name=definition.method_name,
        defaults={key: to_array(value, key) for key, value in definition.defaults.items()},
        order=order,
    )


def read_meta_graph(path: Path | str, tags: Collection[str] = SERVING_TAGS) -> Any:
    """The `MetaGraphDef` that TensorFlow Serving would load from a SavedModel folder.

    Raises:
        ModelNotServable: if there is none.
    """
    saved_model = read_saved_model(path)
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return meta_graph
    found = [sorted(meta_graph.meta_info_def.tags) for meta_graph in saved_model.meta_graphs]
    raise ModelNotServable(
        f"the SavedModel in {path} has no graph with the tags {sorted(tags)}, only {found}",
        hint="save it again with tf.saved_model.save, or with model.export",
    )


def read_saved_model(path: Path | str) -> Any:
    """The parsed `saved_model.pb` of a folder.

    Raises:
        ModelNotServable: if the file is not there or is none.
    """
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    file = Path(path) / SAVED_MODEL_FILE
    saved_model = saved_model_pb2.SavedModel()
    text_file = Path(path) / SAVED_MODEL_TEXT_FILE
    is_text = text_file.is_file() and not file.exists()
    file = text_file if is_text else file
    try:
        if is_text:
            text_format.Parse(file.read_text(encoding="utf-8"), saved_model)
        else:
            saved_model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise ModelNotServable(
            f"{path} is no SavedModel: {SAVED_MODEL_FILE} cannot be read ({error.strerror})",
            hint="give the folder that holds saved_model.pb",
        ) from error
    except Exception as error:  # protobuf's DecodeError, or its ParseError
        raise ModelNotServable(
            f"{file} is damaged: it cannot be parsed", hint="save the model again, the file may be cut short"
        ) from error
    return saved_model


def check_portable(meta_graph: Any, description: str) -> None:
    """Refuse a graph that calls back into Python: it runs in the process that made it and nowhere else.

    Raises:
        ExportFailed: if the graph holds such an op.
    """
    found = sorted(_op_names(meta_graph) & _PYTHON_OPS)
    if found:
        raise ExportFailed(
            f"{description} runs Python code inside of its graph ({found[0]}), which a SavedModel cannot carry",
            hint="replace tf.py_function and tf.numpy_function by TensorFlow ops or keras.ops",
        )


def has_varying_ops(meta_graph: Any) -> bool:
    """Whether running the graph may draw random numbers or read the clock, in its signatures or anywhere else."""
    return any(_VARYING_OP.search(name) for name in _op_names(meta_graph))


def _op_names(meta_graph: Any) -> set[str]:
    graph = meta_graph.graph_def
    names = {node.op for node in graph.node}
    return names.union(node.op for function in graph.library.function for node in function.node_def)


def _tensor_specs(signature: str, infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    specs = {}
    for name in in_order(infos):
        info = infos[name]
        if info.WhichOneof("encoding") != "name":
            raise ModelNotServable(
                f"{name!r} of signature {signature!r} is a sparse or ragged tensor; requests carry dense tensors",
                hint="give the model a dense input or output of that name",
            )
        shape = info.tensor_shape
        sizes = None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        specs[name] = TensorSpec(name, dtype_name(info.dtype), sizes, info.name)
    return specs
