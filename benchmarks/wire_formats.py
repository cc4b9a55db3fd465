"""The request and response bodies of the compared servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

JSON_TYPE = {"Content-Type": "application/json"}
DATATYPES = {"float32": "FP32", "int32": "INT32"}

Inputs = Mapping[str, np.ndarray]
"""Name of an input -> its rows, `(b, ...)`."""


@dataclass(frozen=True)
class Request:
    """What is posted, again and again."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_TYPE)


@dataclass(frozen=True)
class WireFormat:
    """How a server wants rows, and how it answers.

    Attributes:
        name: for tables.
        make: inputs by name to a request.
        read: an answer's body and its header fields (lower case) to an array.
    """

    name: str
    make: Callable[[Inputs], Request]
    read: Callable[[bytes, Mapping[str, str]], np.ndarray]


def _numbers(rows: np.ndarray) -> Any:
    """Nested lists, of floats with the six digits that they were rounded to."""
    return rows.tolist() if rows.dtype.kind == "i" else rows.astype(np.float64).round(6).tolist()


def _make_v1(inputs: Inputs) -> Request:
    columns = {name: _numbers(rows) for name, rows in inputs.items()}
    if len(columns) == 1:
        (instances,) = columns.values()
    else:
        instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Request(json.dumps({"instances": instances}).encode())


def _make_rows(inputs: Inputs) -> Request:
    rows = next(iter(inputs.values())) if len(inputs) == 1 else np.concatenate([*inputs.values()], axis=1)
    return Request(json.dumps({"instances": _numbers(rows)}).encode())


def _read_v1(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    return np.asarray(json.loads(content)["predictions"], np.float32)


def _read_list(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    return np.asarray(json.loads(content), np.float32)


def _tensor(name: str, rows: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(rows.shape), "datatype": DATATYPES[str(rows.dtype)], **more}


def _make_v2(inputs: Inputs) -> Request:
    tensors = [_tensor(name, rows, data=_numbers(rows.reshape(-1))) for name, rows in inputs.items()]
    return Request(json.dumps({"inputs": tensors}).encode())


def _read_v2(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    (tensor,) = json.loads(content)["outputs"]
    return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])


def _make_binary(inputs: Inputs) -> Request:
    data = {name: np.ascontiguousarray(rows).tobytes() for name, rows in inputs.items()}
    tensors = [_tensor(name, rows, parameters={"binary_data_size": len(data[name])}) for name, rows in inputs.items()]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(head + b"".join(data.values()), headers)


def _read_binary(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    size = int(headers["inference-header-content-length"])
    (tensor,) = json.loads(content[:size])["outputs"]
    return np.frombuffer(content[size:], "<f4").reshape(tensor["shape"])


V1 = WireFormat("v1 JSON", _make_v1, _read_v1)
V2 = WireFormat("v2 JSON", _make_v2, _read_v2)
BINARY = WireFormat("v2 binary", _make_binary, _read_binary)
ROWS = WireFormat("rows", _make_rows, _read_v1)
"""For servers whose protocol is a function of the user's: several inputs come as the columns of one array."""
PLAIN_LIST = WireFormat("JSON", _make_rows, _read_list)
