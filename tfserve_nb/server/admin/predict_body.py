"""The client's side of inference: named arrays to the body of a request, and a response back to arrays.

Our own clients send raw tensors (the Open Inference Protocol), which carry every dtype, shape and bit; benchmarks and
replays may send JSON.

Thread: any; pure functions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any  # JSON values

import numpy as np

from ...errors import InvalidRequest
from ...types import SignatureSpec, Tensors, TensorSpec, in_order
from ..examples import CLASSES, CLASSIFY_METHOD, REGRESS_OUTPUTS, SCORES
from ..rest.json_text import dump, dump_with_nan, parse_json
from ..rest.v2_tensors import HEADER_LENGTH, to_array, to_output

ALIGNMENT = 16
"""Of raw tensors, in bytes: what the largest numbers need."""

_DTYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


def parse_signatures(metadata: Mapping[str, Any], orders: str | None) -> tuple[dict[str, SignatureSpec], int]:
    """The signatures and the version of a metadata response.

    Args:
        metadata: its body.
        orders: its field `ORDER_FIELD`; servers other than ours send none.
    """
    places: Mapping[str, list[int]] = json.loads(orders or "{}")
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    signatures = {
        name: SignatureSpec(
            name,
            inputs := _specs(info["inputs"]),
            _specs(info["outputs"]),
            info["method_name"],
            order=tuple([*inputs][place] for place in places.get(name, ())),
        )
        for name, info in sorted(definitions.items())
        if not name.startswith("__")
    }
    return signatures, int(metadata["model_spec"]["version"])


def encode_inputs(signature: str, inputs: Tensors) -> bytes:
    """The body of a columnar predict request.

    Raises:
        InvalidRequest: for dtypes that JSON cannot carry.
    """
    columns = {name: _values(name, array) for name, array in inputs.items()}
    is_finite = all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in inputs.values())
    if is_finite:
        return dump({"signature_name": signature, "inputs": columns})
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in columns.items()}
    return dump_with_nan({"signature_name": signature, "inputs": plain})


def encode_rows(signature: str, inputs: Tensors) -> bytes:
    """The body of a predict request in row format, `{"instances": [...]}`.

    Raises:
        InvalidRequest: for dtypes that JSON cannot carry, and for inputs that have not the same number of rows.
    """
    sizes = {len(array) if array.ndim else -1 for array in inputs.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise InvalidRequest("its inputs are no rows of the same number, which the row format needs")
    columns = [_values(name, array) for name, array in inputs.items()]
    plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in columns]
    if len(plain) == 1:
        return dump_with_nan({"signature_name": signature, "instances": plain[0]})
    rows = [dict(zip(inputs, row, strict=True)) for row in zip(*plain, strict=True)]
    return dump_with_nan({"signature_name": signature, "instances": rows})


def json_outputs(body: bytes, outputs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """The arrays of a predict response in row or columnar format.

    Args:
        body: the response.
        outputs: the signature's, which give the types: JSON has none.

    Raises:
        ValueError: if it is no such response.
    """
    value = json.loads(body)
    if not isinstance(value, dict) or not {"outputs", "predictions"} & value.keys():
        raise ValueError(f"it holds neither outputs nor predictions: {body[:100]!r}")
    (only, *others) = outputs
    if "outputs" in value:
        columns = value["outputs"] if others else {only: value["outputs"]}
    elif others:
        columns = {name: [row[name] for row in value["predictions"]] for name in outputs}
    else:
        columns = {only: value["predictions"]}
    try:
        return {name: _array(columns[name], spec) for name, spec in outputs.items()}
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"its outputs are not those of the signature: {error}") from error


def encode_examples(signature: str, examples: Iterable[bytes]) -> bytes:
    """The body of a classify or regress request.

    Args:
        signature: its name.
        examples: serialized `tf.Example`s.

    Raises:
        InvalidRequest: if one is none.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis.input_pb2 import ExampleListWithContext

    features = []
    for serialized in examples:
        example = ExampleListWithContext().context
        try:
            example.ParseFromString(serialized)
        except DecodeError as error:
            raise InvalidRequest(f"a row is no serialized tf.Example: {error}") from error
        features.append({name: _feature(feature) for name, feature in example.features.feature.items()})
    return dump_with_nan({"signature_name": signature, "examples": features})


def _feature(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    values = [] if kind is None else list(getattr(feature, kind).value)
    return _coded(values) if kind == "bytes_list" else values


def example_outputs(body: bytes, method_name: str) -> dict[str, np.ndarray]:
    """The arrays of a classify or regress response.

    Args:
        body: the response.
        method_name: of the signature, which says which of both it is.

    Raises:
        ValueError: if it is no such response.
    """
    value = json.loads(body)
    results = value.get("results") if isinstance(value, dict) else None
    if results is None:
        raise ValueError(f"it holds no results: {body[:100]!r}")
    try:
        return class_outputs(results) if method_name == CLASSIFY_METHOD else value_outputs(results)
    except TypeError as error:
        raise ValueError(f"its results are not those of {method_name}: {error}") from error


def class_outputs(pairs: Sequence[Sequence[tuple[str, float]]]) -> dict[str, np.ndarray]:
    """Labels and scores of each example, `(label, score)` pairs, as arrays `(n, k)`.

    Raises:
        ValueError: if they are no pairs, or not as many for each example.
    """
    labels, scores = ([[pair[place] for pair in row] for row in pairs] for place in (0, 1))
    return {CLASSES: np.array(decoded(labels), dtype=object), SCORES: np.array(scores, dtype=np.float32)}


def value_outputs(values: Sequence[float]) -> dict[str, np.ndarray]:
    """The value of each example as an array `(n,)`.

    Raises:
        ValueError: if they are no numbers.
    """
    return {REGRESS_OUTPUTS: np.array(values, dtype=np.float32)}


def decoded(value: Any) -> Any:
    """A JSON value with its texts as bytes: `{"b64": ...}` and plain ones."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"]) if value.keys() == {"b64"} else value
    return value.encode() if isinstance(value, str) else value


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    return np.array(decoded(value) if spec.dtype == "string" else value, dtype=spec.numpy_dtype)


def binary_request(signature: str, inputs: Tensors) -> tuple[bytes, dict[str, str]]:
    """The body of an inference request with raw tensors, and its header fields.

    Raises:
        InvalidRequest: for dtypes that cannot travel.
    """
    described, raw = zip(*(to_output(name, array, is_binary=True) for name, array in inputs.items()), strict=True)
    head = dump({"inputs": list(described), "parameters": {"binary_data_output": True, "signature_name": signature}})
    head = head.ljust(len(head) + -len(head) % ALIGNMENT)  # so that the server need not copy the tensors
    return b"".join([head, *raw]), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def binary_outputs(answer: bytes, head_length: str | None) -> dict[str, np.ndarray]:
    """The arrays of a response with raw tensors.

    Args:
        answer: the body.
        head_length: its field `HEADER_LENGTH`; None for a body of JSON alone.

    Raises:
        InvalidRequest: if it is no such response.
    """
    position = len(answer) if head_length is None else int(head_length)
    outputs: dict[str, np.ndarray] = {}
    for tensor in parse_json(answer[:position])["outputs"]:
        outputs[tensor["name"]], position = to_array(tensor, answer, position)
    return outputs


def _specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(name, infos[name]) for name in in_order(infos)}


def _spec(name: str, info: Mapping[str, Any]) -> TensorSpec:
    sizes = [int(dim["size"]) for dim in info["tensor_shape"]["dim"]]
    shape = None if info["tensor_shape"]["unknown_rank"] else tuple(None if size < 0 else size for size in sizes)
    dtype = _DTYPES.get(info["dtype"], info["dtype"].removeprefix("DT_").lower())
    return TensorSpec(name, dtype, shape, info["name"])


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _coded(array.tolist())
    if array.dtype.kind not in "iufb" or array.dtype == np.float16:
        raise InvalidRequest(f"Input {name} has dtype {array.dtype}, which JSON cannot carry", hint="use gRPC")
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _coded(value: Any) -> Any:
    if isinstance(value, list):
        return [_coded(item) for item in value]
    return {"b64": base64.b64encode(value if isinstance(value, bytes) else str(value).encode()).decode()}
