"""JSON values to tensors, by TensorFlow Serving's rules.

Regular lists of numbers, or of text, are flattened level by level, and what is at the bottom becomes an array at once.
Everything else (booleans, base64, ragged lists, numbers that do not fit) takes the careful path, which walks the value
and reports errors in TensorFlow Serving's words.

Thread: any; pure functions.

Reference: tensorflow_serving/util/json_tensor.cc (`FillTensorFromValue`, `GetDenseTensorShape`).
"""

from __future__ import annotations

import base64
import binascii
from array import array as packed
from collections.abc import Iterator
from itertools import chain
from typing import Any  # JSON values

import numpy as np

from ...errors import InvalidRequest, Unimplemented
from ...types import TensorSpec, tf_name
from .json_text import debug_text, json_type

_INT32 = (-(2**31), 2**31 - 1)
INTEGERS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": _INT32,
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
_FLOATS = ("float32", "float64")
_PACKED = {
    dtype: (code, np.dtype(dtype))
    for dtype, code in {
        "float32": "f", "float64": "d", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B",
        "uint32": "I", "uint64": "Q",
    }.items()
}  # fmt: skip
"""Types of `array.array`, which takes just the numbers that fit: no text, no fraction for an integer, none too large.
In float32, more than the largest number becomes infinity, as in TensorFlow Serving."""
MAX_RANK = 64
"""NumPy's limit; TensorFlow's is 254."""


class UnsupportedDtype(Unimplemented):
    """The signature has a dtype that JSON cannot carry."""


def to_array(value: Any, spec: TensorSpec) -> np.ndarray:
    """One JSON value as a tensor.

    Args:
        value: a number, text, boolean, `{"b64": ...}`, or nested lists of them.
        spec: the signature's; only its dtype is used here.

    Returns:
        A C-contiguous array of exactly `spec.numpy_dtype`; its rank is the depth of the lists.

    Raises:
        InvalidRequest: with TensorFlow Serving's text.
        UnsupportedDtype: for dtypes that it does not take in JSON either.
    """
    if isinstance(value, list):
        shape = shape_along_first(value)
        array = plain_array([value], shape, spec.dtype)
        if array is not None:
            return array.reshape(shape)
    return _careful(value, spec)


def plain_array(values: list[Any], shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """Values of one shape in one array, if they are regular lists of numbers or of text.

    Args:
        values: each like the `value` of `to_array`.
        shape: the expected shape of each.
        dtype: TensorFlow's name.

    Returns:
        A flat array of exactly that type, or None for values that need the careful path.
    """
    if not values or 0 in shape or len(shape) > MAX_RANK:
        return None
    try:
        flat = _flattened(values, shape, is_text=dtype == "string")
        if dtype == "string":
            array = np.empty(len(flat), object)
            array[:] = [str.encode(text, "utf-8", "surrogateescape") for text in flat]  # TypeError for what is no text
            return array
        if dtype not in _PACKED or bool in set(map(type, flat)):
            return None
        code, wanted = _PACKED[dtype]
        return np.frombuffer(packed(code, flat), wanted)
    except (TypeError, OverflowError):
        return None


def _flattened(values: list[Any], shape: tuple[int, ...], *, is_text: bool) -> list[Any]:
    """What is at the bottom of lists of one shape.

    Raises:
        TypeError: for anything else; objects and text may pass for lists, but what they hold is no number.
    """
    flat = values
    for size in shape:
        if set(map(len, flat)) != {size} or (is_text and set(map(type, flat)) != {list}):
            raise TypeError("lists of different lengths")
        flat = list(chain.from_iterable(flat))
    return flat


def shape_along_first(value: Any) -> tuple[int, ...]:
    """The lengths of nested lists along their first elements; () for anything else."""
    shape = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _careful(value: Any, spec: TensorSpec) -> np.ndarray:
    shape = shape_along_first(value)
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"Too many dimensions: {len(shape)}, a tensor has at most {MAX_RANK}")
    flat = [_scalar(item, spec) for item in _leaves(value, shape, 0)]
    array = np.empty(len(flat), dtype=spec.numpy_dtype)
    if spec.dtype == "float32":
        with np.errstate(over="ignore"):
            array[:] = np.array(flat, dtype=np.float64).astype(np.float32)
    else:
        for position, item in enumerate(flat):
            array[position] = item
    return array.reshape(shape)


def _leaves(value: Any, shape: tuple[int, ...], level: int) -> Iterator[Any]:
    if level == len(shape):
        if isinstance(value, list):
            raise InvalidRequest(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        yield value
        return
    if not isinstance(value, list):
        raise InvalidRequest(
            f"JSON Value: {debug_text(value)} found at incorrect level: {level} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    if len(value) != shape[level]:
        raise InvalidRequest(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        yield from _leaves(item, shape, level + 1)


def _scalar(value: Any, spec: TensorSpec) -> Any:
    """One number, boolean or text of the spec's dtype."""
    if spec.dtype == "string":
        return _text(value, spec)
    if spec.dtype == "bool":
        is_right = isinstance(value, bool)
    elif spec.dtype in _FLOATS:
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
    elif spec.dtype in INTEGERS:
        low, high = INTEGERS[spec.dtype]
        is_right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    else:
        raise UnsupportedDtype(f"Conversion of JSON Value: {debug_text(value)} to type: {tf_name(spec.dtype)}")
    if not is_right:
        raise _wrong_type(value, spec)
    return _to_float(value) if spec.dtype in _FLOATS else value


def _text(value: Any, spec: TensorSpec) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if is_base64(value):
        return decode_base64(value)
    if isinstance(value, dict):
        raise InvalidRequest(f"JSON Value: {debug_text(value)} not formatted correctly for base64 data")
    raise _wrong_type(value, spec)


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest("JSON Parse error: Number too big to be stored in double.") from None


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: dict[str, str]) -> bytes:
    """The bytes of `{"b64": "..."}`; white space and missing padding are allowed.

    Raises:
        InvalidRequest: `Unable to base64 decode`.
    """
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("Unable to base64 decode") from None


def _wrong_type(value: Any, spec: TensorSpec) -> InvalidRequest:
    kind = json_type(value)
    return InvalidRequest(
        f"JSON Value: {debug_text(value)} Type: {kind} is not of expected type: {tf_name(spec.dtype)}"
    )
