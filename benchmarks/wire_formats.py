"""The request and response bodies of the compared servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

JSON_TYPE = {"Content-Type": "application/json"}


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
        make: rows to a request.
        read: an answer's body and its header fields (lower case) to an array.
    """

    name: str
    make: Callable[[np.ndarray], Request]
    read: Callable[[bytes, Mapping[str, str]], np.ndarray]


def _numbers(rows: np.ndarray) -> Any:
    """Nested lists with the six digits that the rows were rounded to."""
    return rows.astype(np.float64).round(6).tolist()


def _make_v1(rows: np.ndarray) -> Request:
    return Request(json.dumps({"instances": _numbers(rows)}).encode())


def _read_v1(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    return np.asarray(json.loads(content)["predictions"], np.float32)


def _read_list(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    return np.asarray(json.loads(content), np.float32)


def _make_v2(rows: np.ndarray) -> Request:
    data = _numbers(rows.reshape(-1))
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": data}
    return Request(json.dumps({"inputs": [tensor]}).encode())


def _read_v2(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    del headers
    (tensor,) = json.loads(content)["outputs"]
    return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])


def _make_binary(rows: np.ndarray) -> Request:
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    tensor = {
        "name": "x",
        "shape": list(rows.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(head + data, headers)


def _read_binary(content: bytes, headers: Mapping[str, str]) -> np.ndarray:
    size = int(headers["inference-header-content-length"])
    (tensor,) = json.loads(content[:size])["outputs"]
    return np.frombuffer(content[size:], "<f4").reshape(tensor["shape"])


V1 = WireFormat("v1 JSON", _make_v1, _read_v1)
V2 = WireFormat("v2 JSON", _make_v2, _read_v2)
BINARY = WireFormat("v2 binary", _make_binary, _read_binary)
PLAIN_LIST = WireFormat("JSON", _make_v1, _read_list)
