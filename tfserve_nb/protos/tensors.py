"""`tensorflow.TensorProto` ⇄ numpy, and TensorFlow's numbers of types ⇄ their names, without TensorFlow.

Thread: any; pure functions on messages that the caller owns.

Reference: tensorflow/core/framework/tensor.proto, types.proto, and `Tensor::FromProto` in tensor.cc: a typed list that
is shorter than the shape repeats its last value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any  # protobuf messages

import numpy as np

from ..errors import InvalidRequest
from ..types import numpy_dtype


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a dtype travels.

    Attributes:
        number: its `tensorflow.DataType`.
        field: the typed field.
        bits: the dtype of the field's numbers when they are bit patterns, else "".
    """

    number: int
    field: str
    bits: str = ""


_KINDS = {
    "float32": _Kind(1, "float_val"),
    "float64": _Kind(2, "double_val"),
    "int32": _Kind(3, "int_val"),
    "uint8": _Kind(4, "int_val"),
    "int16": _Kind(5, "int_val"),
    "int8": _Kind(6, "int_val"),
    "string": _Kind(7, "string_val"),
    "complex64": _Kind(8, "scomplex_val"),
    "int64": _Kind(9, "int64_val"),
    "bool": _Kind(10, "bool_val"),
    "bfloat16": _Kind(14, "half_val", "uint16"),
    "uint16": _Kind(17, "int_val"),
    "complex128": _Kind(18, "dcomplex_val"),
    "float16": _Kind(19, "half_val", "uint16"),
    "uint32": _Kind(22, "uint32_val"),
    "uint64": _Kind(23, "uint64_val"),
}
MAX_REPEATED = 2**27
"""Values that a short list may stand for."""

_DTYPES = {name: np.dtype(name) for name in _KINDS if name not in ("string", "bfloat16")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
"""NumPy makes a dtype's name up anew each time that it is read."""
_BY_NUMBER = {kind.number: name for name, kind in _KINDS.items()}


_OWN_NAMES = {"float": "float32", "double": "float64", "half": "float16"}
"""The types whose names in the messages are not those that TensorFlow and numpy use."""


def dtype_name(number: int) -> str:
    """TensorFlow's name of a type, such as `float32` for 1; as `tf.as_dtype(number).name`.

    Raises:
        ValueError: if this release of TensorFlow has no such type.
    """
    from tensorflow.core.framework.types_pb2 import DataType

    written: str = DataType.Name(number).removeprefix("DT_").lower()
    name, reference, _ = written.partition("_ref")
    return _OWN_NAMES.get(name, name) + reference


def dtype_number(name: str) -> int:
    """The inverse of `dtype_name`."""
    from tensorflow.core.framework.types_pb2 import DataType

    own = next((key for key, value in _OWN_NAMES.items() if value == name), name)
    number: int = DataType.Value(f"DT_{own.upper()}")
    return number


def to_array(proto: Any, name: str) -> np.ndarray:
    """The array of a `TensorProto`.

    Args:
        proto: the message.
        name: the input's, for errors.

    Returns:
        An array of the proto's dtype and shape; strings are object arrays of bytes. `tensor_content` is not copied, so
        the array may be read-only.

    Raises:
        InvalidRequest: `tensor parsing error: NAME`, when dtype, shape and values do not fit together.
    """
    kind_name = _BY_NUMBER.get(proto.dtype)
    proto_shape = proto.tensor_shape
    shape = tuple([dim.size for dim in proto_shape.dim])
    if kind_name is None or proto_shape.unknown_rank or (shape and min(shape) < 0):
        raise InvalidRequest(f"tensor parsing error: {name}")
    count = math.prod(shape)
    try:
        if kind_name == "string":
            return _strings(proto, shape, count)
        dtype = _DTYPES.get(kind_name) or numpy_dtype(kind_name)
        if proto.tensor_content and count:
            return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
        values = _typed(proto, _KINDS[kind_name], dtype)
        return _filled(values, count).reshape(shape)
    except (ValueError, OverflowError, TypeError, MemoryError):
        raise InvalidRequest(f"tensor parsing error: {name}") from None


def fill(proto: Any, array: np.ndarray, *, as_content: bool = False) -> None:
    """Write an array into an empty `TensorProto`.

    Args:
        proto: the message to fill.
        array: numbers, or an object array of bytes or str.
        as_content: as `tensor_content` instead of the typed field, which costs less.

    Raises:
        InvalidRequest: for a dtype that cannot travel.
    """
    is_text = array.dtype.kind in "OSU"
    name = "string" if is_text else _NAMES.get(array.dtype) or array.dtype.name
    kind = _KINDS.get(name)
    if kind is None:
        raise InvalidRequest(f"Failed to write a tensor of type: {name}")
    proto.dtype = kind.number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if is_text:
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        if as_content:
            proto.tensor_content = _joined(texts)
        else:
            proto.string_val.extend(texts)
    elif as_content:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    else:
        getattr(proto, kind.field).extend(_numbers(array, kind))


def _numbers(array: np.ndarray, kind: _Kind) -> list[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    if kind.bits:
        flat = flat.view(kind.bits)
    elif array.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)  # real and imaginary parts by turns
    numbers: list[Any] = flat.tolist()
    return numbers


def _typed(proto: Any, kind: _Kind, dtype: np.dtype) -> np.ndarray:
    numbers = getattr(proto, kind.field)
    if kind.bits:
        return np.array(numbers, dtype=kind.bits).view(dtype)
    if dtype.kind == "c":
        parts = np.array(numbers, dtype=np.float32 if dtype.itemsize == 8 else np.float64)
        return parts.view(dtype)
    if dtype.kind in "iu" and kind.field == "int_val":
        return np.array(numbers, dtype=np.int32).astype(dtype)
    return np.array(numbers, dtype=dtype)


def _strings(proto: Any, shape: tuple[int, ...], count: int) -> np.ndarray:
    texts = _split(proto.tensor_content, count) if proto.tensor_content else list(proto.string_val)
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    return _filled(values, count, default=b"").reshape(shape)


def _split(content: bytes, count: int) -> list[bytes]:
    """The texts of `tensor_content`: their lengths as varints, and then all of them one after the other."""
    sizes, at = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise ValueError("a length is cut off")
            byte = content[at]
            at, size, shift = at + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        sizes.append(size)
    if at + sum(sizes) != len(content):
        raise ValueError("the lengths do not add up")
    texts = []
    for size in sizes:
        texts.append(content[at : at + size])
        at += size
    return texts


def _joined(texts: list[bytes]) -> bytes:
    """The inverse of `_split`."""
    parts = []
    for text in texts:
        size = len(text)
        while size >= 0x80:
            parts.append(bytes([size & 0x7F | 0x80]))
            size >>= 7
        parts.append(bytes([size]))
    return b"".join([*parts, *texts])


def _filled(values: np.ndarray, count: int, default: object = 0) -> np.ndarray:
    """`values` with the last one repeated until there are `count`."""
    if len(values) >= count:
        return values[:count]
    if count > MAX_REPEATED:
        raise ValueError("a few bytes would fill the memory")
    whole = np.full(count, values[-1] if len(values) else default, dtype=values.dtype)
    whole[: len(values)] = values
    return whole
