"""The bodies of `:classify` and `:regress`: examples in, results out.

Thread: any; pure functions. The first call imports TensorFlow's messages.

Reference: tensorflow_serving/util/json_tensor.cc (`FillClassifyRequestFromJson`, `MakeJsonFromClassificationResult`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # JSON values and protobuf messages

import numpy as np

from ...errors import InvalidRequest
from ...types import DEFAULT_SIGNATURE
from ..examples import Classes
from .json_tensors import decode_base64, is_base64
from .json_text import debug_text, dump_with_nan, json_type, parse_object, signature_name
from .predict_json import shortest

_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ExampleRequest:
    """A parsed classify or regress request.

    Attributes:
        signature: the signature's name.
        examples: object array `(n,)` of serialized `tf.Example`s, each with the request's context, n at least 1.
    """

    signature: str
    examples: np.ndarray


def parse_examples(body: bytes) -> ExampleRequest:
    """Parse a body.

    Raises:
        InvalidRequest: with TensorFlow Serving's text.
    """
    value = parse_object(body)
    signature = signature_name(value) or DEFAULT_SIGNATURE
    context = _example(value["context"]) if "context" in value else b""
    if "examples" not in value:
        raise InvalidRequest(
            f"JSON Value: {debug_text(value)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = value["examples"]
    if not isinstance(examples, list):
        raise InvalidRequest(f"JSON Value: {debug_text(value)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise InvalidRequest(f"JSON Value: {debug_text(value)} 'examples' value is an empty array")
    serialized = np.empty(len(examples), dtype=object)
    # Two serialized messages, one after the other, are their merger.
    serialized[:] = [context + _example(example) for example in examples]
    return ExampleRequest(signature, serialized)


def classify_body(classes: Classes) -> bytes:
    """`{"results": [[[label, score], ...], ...]}`."""
    rows = [[[label, score] for (label, _), score in zip(pairs, _scores(pairs), strict=True)] for pairs in classes]
    return dump_with_nan({"results": rows})


def regress_body(values: list[float]) -> bytes:
    """`{"results": [value, ...]}`."""
    return dump_with_nan({"results": shortest(np.asarray(values, np.float32))})


def _scores(pairs: list[tuple[str, float]]) -> Any:
    return shortest(np.asarray([score for _, score in pairs], np.float32))


def _example(value: Any) -> bytes:
    """A serialized `tf.Example` of one JSON object."""
    from tensorflow_serving.apis.input_pb2 import ExampleListWithContext

    if not isinstance(value, Mapping):
        raise InvalidRequest(f"Example must be JSON object but got JSON {json_type(value)}")
    example = ExampleListWithContext().context
    features = example.features.feature
    for name, given in value.items():
        _fill(features[name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")], name, given)
    serialized: bytes = example.SerializeToString()
    return serialized


def _fill(feature: Any, name: str, given: Any) -> None:
    items = given if isinstance(given, list) else [given]
    kind = ""
    for item in items:
        kind_of_item = _kind(name, item)
        if kind and kind_of_item != kind:
            raise InvalidRequest(f"Unexpected element type in feature: {name} expecting type: {kind}")
        kind = kind_of_item
    if kind == "int64":
        feature.int64_list.value.extend(int(item) for item in items)
    elif kind == "float":
        with np.errstate(over="ignore"):
            feature.float_list.value.extend(np.asarray(items, np.float64).astype(np.float32).tolist())
    elif kind == "bytes":
        feature.bytes_list.value.extend(
            item.encode("utf-8", "surrogateescape") if isinstance(item, str) else decode_base64(item) for item in items
        )


def _kind(name: str, item: Any) -> str:
    if isinstance(item, bool):
        return "int64"
    if isinstance(item, int):
        if item > _MAX_INT64:
            raise InvalidRequest(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64"
    if isinstance(item, float):
        return "float"
    if isinstance(item, str) or is_base64(item):
        return "bytes"
    raise InvalidRequest(f"Feature: {name} has element with unexpected JSON type: {json_type(item)}")
