"""The client's side of REST: named arrays to a columnar request, and its response back to arrays of the right dtype.

Thread: any; pure functions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any  # JSON values

import numpy as np

from ...errors import InvalidRequest
from ...types import SignatureSpec, Tensors, TensorSpec
from ..rest.json_text import dump, dump_with_nan

_DTYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


def parse_signatures(metadata: Mapping[str, Any]) -> tuple[dict[str, SignatureSpec], int]:
    """The signatures and the version of a metadata response."""
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    signatures = {
        name: SignatureSpec(name, _specs(info["inputs"]), _specs(info["outputs"]), info["method_name"])
        for name, info in definitions.items()
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


def decode_outputs(answer: Mapping[str, Any], signature: SignatureSpec) -> dict[str, np.ndarray]:
    """The arrays of a columnar predict response."""
    outputs = answer["outputs"]
    if len(signature.outputs) == 1:
        outputs = dict.fromkeys(signature.outputs, outputs)
    return {name: _array(outputs[name], spec) for name, spec in signature.outputs.items()}


def _specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(name, info) for name, info in sorted(infos.items())}


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


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    if spec.dtype != "string":
        return np.asarray(value, dtype=spec.numpy_dtype)
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    array = np.empty(shape, dtype=object)
    for index in np.ndindex(*shape):
        item = value
        for position in index:
            item = item[position]
        array[index] = base64.b64decode(item["b64"]) if isinstance(item, dict) else str(item).encode()
    return array
