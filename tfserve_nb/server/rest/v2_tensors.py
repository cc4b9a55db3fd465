"""Tensors of the Open Inference Protocol (V2): JSON or raw bytes to arrays, and arrays back.

Thread: any; pure functions.

Reference: the Open Inference Protocol's REST API, and Triton's binary tensor data extension: raw tensors follow the
JSON in the order of the inputs, little-endian, row by row; each element of a BYTES tensor is preceded by its length as
a 32-bit number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple  # JSON values

import numpy as np

from ...errors import InvalidRequest
from ...types import TensorSpec, numpy_dtype
from .json_tensors import INTEGERS, plain_array
from .json_text import dump, dump_with_nan

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header field with the bytes of the JSON, when raw tensors follow it."""

_DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "string", "BF16": "bfloat16", "COMPLEX64": "complex64", "COMPLEX128": "complex128",
}  # fmt: skip
"""The protocol's names; it has none for complex numbers, which are real and imaginary parts by turns."""
RAW_ONLY = frozenset({"FP16", "BF16", "COMPLEX64", "COMPLEX128"})
"""What JSON cannot carry."""
_NO_NUMBERS = ("bfloat16", "complex64", "complex128")
_NAMES = {dtype: name for name, dtype in _DATATYPES.items()}
_LENGTH = struct.Struct("<I")


class Wanted(NamedTuple):
    """An output that a request asks for.

    Attributes:
        name: the output's.
        is_binary: as raw bytes, and not as JSON.
    """

    name: str
    is_binary: bool


def datatype_of(spec: TensorSpec) -> str:
    """The protocol's name of a tensor's type; TensorFlow's own where it has none."""
    return _NAMES.get(spec.dtype, spec.dtype.upper())


def metadata_of(spec: TensorSpec) -> dict[str, Any]:
    """A tensor in a model's metadata; unknown dimensions are -1."""
    shape = () if spec.shape is None else spec.shape
    return {"name": spec.name, "datatype": datatype_of(spec), "shape": [-1 if size is None else size for size in shape]}


def to_array(given: Mapping[str, Any], body: bytes, position: int) -> tuple[np.ndarray, int]:
    """One input.

    Args:
        given: its JSON: name, datatype, shape, and data or the size of its raw bytes.
        body: the whole request.
        position: where the next raw tensor begins.

    Returns:
        The array, a read-only view of `body` where it can be one, and where the tensor after it begins.

    Raises:
        InvalidRequest: naming the input and what is wrong with it.
    """
    name, shape = str(given.get("name", "")), given.get("shape")
    dtype = _DATATYPES.get(str(given.get("datatype")))
    if not name or dtype is None:
        raise InvalidRequest(f"input {name!r} has datatype {given.get('datatype')!r}; known: {', '.join(_DATATYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 64:
        raise InvalidRequest(f"input {name!r} has shape {shape!r}, it must be a list of sizes")
    parameters = given.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        return _from_bytes(name, dtype, shape, body, position, size), position + size
    if "data" not in given:
        raise InvalidRequest(f"input {name!r} has neither data nor binary_data_size")
    if dtype in _NO_NUMBERS:
        raise InvalidRequest(f"input {name!r} is {given['datatype']}, which JSON cannot carry: send binary data")
    try:
        array = _from_json(given["data"], dtype, math.prod(shape))
        return array.reshape(shape), position
    except (ValueError, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            f"the data of input {name!r} is not {given['datatype']} of shape {shape}: {error}"
        ) from None


def _from_bytes(name: str, dtype: str, shape: list[int], body: bytes, position: int, size: Any) -> np.ndarray:
    if type(size) is not int or size < 0 or position + size > len(body):
        left = len(body) - position
        raise InvalidRequest(f"input {name!r} has binary_data_size {size!r}, and {left} bytes are left")
    count = math.prod(shape)
    if dtype == "string":
        return _texts(name, body[position : position + size], count).reshape(shape)
    wanted = numpy_dtype(dtype)
    if size != count * wanted.itemsize:
        raise InvalidRequest(f"input {name!r} has {size} bytes, shape {shape} needs {count * wanted.itemsize}")
    array = np.frombuffer(body, wanted, count, position).reshape(shape) if count else np.empty(shape, wanted)
    return array if array.flags.aligned else array.copy()


def _texts(name: str, data: bytes, count: int) -> np.ndarray:
    found: list[bytes] = []
    position = 0
    while position + _LENGTH.size <= len(data):
        (size,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size + size
        found.append(data[position - size : position])
    if position != len(data) or len(found) != count:
        raise InvalidRequest(f"input {name!r} has {len(found)} elements in {len(data)} bytes, its shape needs {count}")
    array = np.empty(count, dtype=object)
    array[:] = found
    return array


def _from_json(data: Any, dtype: str, count: int) -> np.ndarray:
    """Flat or nested lists: only the number of elements counts, in row-major order."""
    if dtype == "string":
        texts = np.array(data, dtype=object).reshape(-1)
        array = np.empty(len(texts), dtype=object)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{text!r:.40} is not text")
            array[number] = text.encode()
        return array
    plain = plain_array(data, (), dtype) if count and isinstance(data, list) else None
    if plain is not None:
        return plain
    numbers = np.array(data).reshape(-1) if count else np.empty(0, dtype)
    if dtype == "uint64" and numbers.dtype == np.float64:  # numpy's for integers of which some need the 64th bit
        numbers = _unsigned(data)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[np.dtype(dtype).kind]
    if numbers.size and numbers.dtype.kind not in kinds:
        raise TypeError(f"it holds {numbers.dtype}")
    if dtype in INTEGERS and numbers.size:
        low, high = INTEGERS[dtype]
        if int(numbers.min()) < low or int(numbers.max()) > high:
            raise ValueError(f"{numbers.min()} to {numbers.max()} does not fit")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers, dtype=dtype)


def _unsigned(data: Any) -> np.ndarray:
    """Whole numbers from 0 to 2**64 - 1."""
    numbers = np.array(data, dtype=object).reshape(-1)
    if not all(type(number) is int for number in numbers):
        raise TypeError("it holds float64")
    return numbers.astype(np.uint64)


def to_output(name: str, array: np.ndarray, *, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """One output as its JSON and its raw bytes (empty when the JSON holds the data).

    Raises:
        InvalidRequest: for types that the protocol, or its JSON, cannot carry.
    """
    is_text = array.dtype.kind in "OSU"
    datatype = _NAMES.get("string" if is_text else array.dtype.name)
    if datatype is None:
        raise InvalidRequest(f"output {name!r} has type {array.dtype}, which the protocol cannot carry")
    described: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if is_binary:
        data = _text_bytes(array) if is_text else np.ascontiguousarray(array).tobytes()
        described["parameters"] = {"binary_data_size": len(data)}
        return described, data
    if datatype in RAW_ONLY:
        raise InvalidRequest(f"output {name!r} is {datatype}, which JSON cannot carry: ask for binary data")
    if is_text:
        try:
            described["data"] = [_as_bytes(item).decode() for item in array.reshape(-1)]
        except UnicodeDecodeError:
            raise InvalidRequest(f"output {name!r} is not UTF-8: ask for binary data") from None
    else:
        described["data"] = np.ascontiguousarray(array).reshape(-1)
    return described, b""


def _text_bytes(array: np.ndarray) -> bytes:
    parts = []
    for item in array.reshape(-1):
        data = _as_bytes(item)
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def _as_bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def write_json(value: dict[str, Any]) -> bytes:
    """The JSON of a response; NaN and infinity are written bare, as in the REST API below `/v1`."""
    arrays = [output["data"] for output in value["outputs"] if isinstance(output.get("data"), np.ndarray)]
    if all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays):
        return dump(value)
    plain = [
        {**output, "data": output["data"].tolist()} if isinstance(output.get("data"), np.ndarray) else output
        for output in value["outputs"]
    ]
    return dump_with_nan({**value, "outputs": plain})
