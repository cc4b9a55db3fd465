"""Messages between the core and a worker as bytes, and back.

A frame is JSON that holds the messages' values, and behind it the tensors' memory, which is copied once into the frame
and not out of it: arrays that arrive are views of it. What can arrive is what the annotations of the messages name:
nothing in a frame chooses a class or a function beyond these.

A value that JSON has stands for itself. All others are lists whose first item is their kind's number.

Thread: any; pure functions.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints  # JSON values, annotations

import numpy as np
import orjson

from ...errors import ServingError
from ...serving.backend import ModelSpec
from ...serving.telemetry.records import RequestRecord
from ...types import numpy_dtype
from .messages import Message

PREFIX = struct.Struct("<QQ")
"""Bytes of everything behind it, and the number of buffers; each buffer's size follows."""
_SIZE = struct.Struct("<Q")

ALIGNMENT = 8
"""Of buffers, in bytes: what the largest numbers need."""

SHORT = 1024
"""Bytes up to this length are text in the JSON; longer ones are a buffer."""

_TUPLE, _LIST, _MAPPING, _BYTES, _LONG_BYTES, _ARRAY, _TEXTS, _FLOAT, _ERROR = range(9)
_FIRST_CLASS = 16
_PLAIN = frozenset({str, int, bool, type(None)})
_FLAT = (RequestRecord, ModelSpec)
"""Classes whose fields are plain or finite numbers; they are many."""

Buffers = list[Any]
"""Bytes, memory views and arrays of bytes."""


def to_frame(messages: list[Message]) -> bytes:
    """The bytes of some messages.

    Raises:
        TypeError: if a message holds what its annotations do not name.
    """
    buffers: Buffers = []
    text = _dumps([_write(message, buffers) for message in messages])
    sizes = [len(buffer) for buffer in buffers]
    parts: list[Any] = [_SIZE.pack(size) for size in sizes]
    for buffer, size in zip(buffers, sizes, strict=True):
        parts += (buffer, bytes(-size % ALIGNMENT))
    parts.append(text)
    total = sum([len(part) for part in parts])
    return b"".join([PREFIX.pack(total, len(buffers)), *parts])


def from_frame(frame: memoryview) -> list[Message]:
    """The messages of `to_frame`'s bytes; their arrays are read-only views of `frame`.

    Raises:
        ValueError: if it holds something else.
    """
    _, num_buffers = PREFIX.unpack_from(frame)
    position = PREFIX.size + num_buffers * _SIZE.size
    buffers = []
    for number in range(num_buffers):
        (size,) = _SIZE.unpack_from(frame, PREFIX.size + number * _SIZE.size)
        buffers.append(frame[position : position + size])
        position += size + -size % ALIGNMENT
    return [_read(value, buffers) for value in _loads(frame[position:])]


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # lone surrogates, and integers beyond 64 bits
        return json.dumps(value, default=np.generic.item).encode()


def _loads(text: memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(bytes(text))


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(value: Any, buffers: Buffers) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else [_FLOAT, repr(value)]
    return _writer(kind)(value, buffers)  # type: ignore[arg-type]  # classes can be hashed


@cache
def _writer(kind: type) -> Callable[[Any, Buffers], Any]:
    number = _numbers().get(kind)
    if number is not None:
        return _class_writer(kind, number)
    for parent, write in _WRITERS:
        if issubclass(kind, parent):
            return write
    raise TypeError(f"{kind.__qualname__} is part of no message between workers and core")


def _class_writer(kind: type, number: int) -> Callable[[Any, Buffers], Any]:
    if kind in _FLAT and issubclass(kind, tuple):
        return lambda value, _: [number, *value]
    if issubclass(kind, Enum):
        return lambda value, _: [number, value.name]
    if issubclass(kind, tuple):
        return lambda value, buffers: [number, *[_write(item, buffers) for item in value]]
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass, see `_classes`
    return lambda value, buffers: [number, *[_write(getattr(value, name), buffers) for name in names]]


def _write_array(array: np.ndarray, buffers: Buffers) -> Any:
    flat = array.reshape(-1)
    if array.dtype == object:
        if all(type(item) is bytes for item in flat):
            buffers.append(b"".join(flat))
            return [_TEXTS, array.shape, len(buffers) - 1, [len(item) for item in flat]]
        return [_TEXTS, array.shape, None, [_write(item, buffers) for item in flat]]
    buffers.append(np.ascontiguousarray(flat).view(np.uint8))
    # Types that are not NumPy's own, such as bfloat16, have a name only.
    dtype = flat.dtype.name if flat.dtype.kind == "V" else flat.dtype.str
    return [_ARRAY, array.shape, len(buffers) - 1, dtype]


def _write_bytes(value: bytes, buffers: Buffers) -> Any:
    if len(value) <= SHORT:
        return [_BYTES, value.decode("latin-1")]
    buffers.append(value)
    return [_LONG_BYTES, len(buffers) - 1]


def _write_mapping(value: Mapping[Any, Any], buffers: Buffers) -> Any:
    return [_MAPPING, *[_write(part, buffers) for item in value.items() for part in item]]


def _write_error(error: ServingError, buffers: Buffers) -> Any:
    more = {"http_status": error.http_status, "code": error.code, **vars(error)}
    return [_ERROR, type(error).__name__, *_write_mapping(more, buffers)[1:]]


_WRITERS: tuple[tuple[type, Callable[[Any, Buffers], Any]], ...] = (
    (np.ndarray, _write_array),
    (Mapping, _write_mapping),
    (bytes, _write_bytes),
    (tuple, lambda value, buffers: [_TUPLE, *[_write(item, buffers) for item in value]]),
    (list, lambda value, buffers: [_LIST, *[_write(item, buffers) for item in value]]),
    (ServingError, _write_error),
    (np.generic, lambda value, buffers: _write(value.item(), buffers)),
)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(value: Any, buffers: Buffers) -> Any:
    if type(value) is not list:
        return value
    return _readers()[value[0]](value, buffers)


def _read_array(value: Any, buffers: Buffers) -> np.ndarray:
    _, shape, number, dtype = value
    if not len(buffers[number]):
        return np.empty(shape, numpy_dtype(dtype))
    return np.frombuffer(buffers[number], numpy_dtype(dtype)).reshape(shape)


def _read_texts(value: Any, buffers: Buffers) -> np.ndarray:
    _, shape, number, items = value
    array = np.empty(len(items), dtype=object)
    if number is None:
        array[:] = [_read(item, buffers) for item in items]
    else:
        position, memory = 0, buffers[number]
        for place, size in enumerate(items):
            array[place] = bytes(memory[position : position + size])
            position += size
    return array.reshape(shape)


def _read_mapping(value: Any, buffers: Buffers) -> dict[Any, Any]:
    parts = [_read(part, buffers) for part in value[1:]]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _read_error(value: Any, buffers: Buffers) -> ServingError:
    more = _read_mapping(value[1:], buffers)
    kind = _error_classes().get(value[1], ServingError)
    error = kind.__new__(kind, more["message"])
    error.args = (more["message"],)
    vars(error).update(more)
    return error


def _read_class(kind: type) -> Callable[[Any, Buffers], Any]:
    if kind in _FLAT:
        return lambda value, _: kind(*value[1:])
    if issubclass(kind, Enum):
        return lambda value, _: kind[value[1]]
    return lambda value, buffers: kind(*[_read(item, buffers) for item in value[1:]])


@cache
def _readers() -> dict[int, Callable[[Any, Buffers], Any]]:
    return {
        _TUPLE: lambda value, buffers: tuple([_read(item, buffers) for item in value[1:]]),
        _LIST: lambda value, buffers: [_read(item, buffers) for item in value[1:]],
        _MAPPING: _read_mapping,
        _BYTES: lambda value, _: value[1].encode("latin-1"),
        _LONG_BYTES: lambda value, buffers: bytes(buffers[value[1]]),
        _ARRAY: _read_array,
        _TEXTS: _read_texts,
        _FLOAT: lambda value, _: float(value[1]),
        _ERROR: _read_error,
        **{number: _read_class(kind) for kind, number in _numbers().items()},
    }


# --- classes ----------------------------------------------------------------------------------------------------------


@cache
def _numbers() -> dict[type, int]:
    """The classes that messages are made of, with their numbers; the same on both ends, which are one program."""
    found: set[type] = set()
    for kind in get_args(Message):
        _collect(kind, found)
    in_order = sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
    return {kind: _FIRST_CLASS + number for number, kind in enumerate(in_order)}


def _collect(annotation: Any, found: set[type]) -> None:
    for inner in get_args(annotation):
        _collect(inner, found)
    if not isinstance(annotation, type) or annotation in found:
        return
    is_record = is_dataclass(annotation) or hasattr(annotation, "_fields")
    if is_record or (issubclass(annotation, Enum) and annotation is not Enum):
        found.add(annotation)
    if is_record:
        for inner in get_type_hints(annotation).values():
            _collect(inner, found)


@cache
def _error_classes() -> dict[str, type[ServingError]]:
    found, new = {}, [ServingError]
    while new:
        kind = new.pop()
        found[kind.__name__] = kind
        new += kind.__subclasses__()
    return found
