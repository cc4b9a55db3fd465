"""Numbers of a predict request straight from its text into arrays, without a Python object for each.

simdjson parses the text and hands out the numbers of nested lists as one buffer, without the structure of the
lists. So the shape is read along the first elements, and the text must have exactly the brackets and commas of that
shape. Whatever is not plain (text, booleans, rows as objects, NaN, ragged lists, keys twice) is left to the parser that
knows all rules: `read` returns None, and never an array that the other path would not give.

Thread: one, the server's loop: a reader keeps buffers between requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any, NamedTuple  # simdjson's proxies

import numpy as np

from ...types import DEFAULT_SIGNATURE, SignatureSpec, TensorSpec
from .json_tensors import INTEGERS

try:
    import simdjson
except ImportError:  # no wheel for this Python: the careful path reads everything
    simdjson = None  # type: ignore[assignment]

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Longer texts get a parser of their own: a parser never gives back what its largest text needed."""

MAX_SEARCHES = 8

PIECE = 500
"""NumPy lets go of the interpreter's lock to convert more than this; to get it back costs more than it converts."""
MAX_PIECES = 10

_BESIDE_STRUCTURE = b"0123456789.eE+- \n\r\t"


class Numbers(NamedTuple):
    """A request of plain numbers.

    Attributes:
        signature: the signature's name.
        is_row_format: whether it has `instances` and not `inputs`.
        tensors: name -> array of exactly the signature's dtype.
    """

    signature: str
    is_row_format: bool
    tensors: dict[str, np.ndarray]


class NumbersReader:
    """Reads predict requests that are plain numbers."""

    def __init__(self) -> None:
        self._parser = None if simdjson is None else simdjson.Parser()
        # More than the largest float32 becomes infinity, as on the careful path. In a context of its own, because
        # `np.errstate` for each request costs more than the conversion.
        self._context = copy_context()
        self._context.run(np.seterr, over="ignore")

    def read(self, body: bytes, signatures: Mapping[str, SignatureSpec]) -> Numbers | None:
        """The tensors of a request, or None for a request that needs the careful path.

        Args:
            body: JSON text.
            signatures: those of the version that answers.
        """
        if self._parser is None or body[:1] == b"\xef":  # a byte order mark, which simdjson skips and others refuse
            return None
        if body.find(b"{", body.find(b"{") + 1) > 0:  # rows as objects, or named inputs
            return None
        parser = self._parser if len(body) <= MAX_KEPT_BYTES else simdjson.Parser()
        try:
            return self._context.run(_read, parser.parse(body), body, signatures)
        except (ValueError, TypeError):
            return None  # not JSON, or not of one type
        except RuntimeError:
            # Other code, perhaps a debugger, still holds a part of the last document.
            self._parser = simdjson.Parser()
            return None


def _read(document: Any, body: bytes, signatures: Mapping[str, SignatureSpec]) -> Numbers | None:
    if type(document) is not simdjson.Object:
        return None
    keys = list(document.keys())
    name: Any = DEFAULT_SIGNATURE
    if len(keys) == 2 and "signature_name" in keys:
        name = document["signature_name"] or name
        keys.remove("signature_name")
    signature = signatures.get(name) if type(name) is str else None
    if signature is None or len(signature.inputs) != 1 or len(keys) != 1:
        return None
    is_row_format = keys[0] == "instances"
    if not is_row_format and keys[0] != "inputs":
        return None
    value = document[keys[0]]
    if type(value) is not simdjson.Array:
        return None
    (spec,) = signature.inputs.values()
    array = _array(value, body, spec)
    return None if array is None else Numbers(name, is_row_format, {spec.name: array})


def _array(value: Any, body: bytes, spec: TensorSpec) -> np.ndarray | None:
    shape = _shape_along_first(value)
    if shape is None or not _has_structure(value, body, shape):
        return None
    wanted = spec.numpy_dtype
    if wanted.kind == "f" and wanted.itemsize >= 4:
        numbers = np.frombuffer(value.as_buffer(of_type="d"), np.float64)
        return _narrowed(numbers, wanted).reshape(shape)
    limits = INTEGERS.get(spec.dtype)
    if limits is None:
        return None
    # A uint64 beyond int64 raises here, and the careful path takes it.
    numbers = np.frombuffer(value.as_buffer(of_type="i"), np.int64)
    if numbers.min() < limits[0] or numbers.max() > limits[1]:
        return None
    return numbers.astype(wanted, copy=False).reshape(shape)


def _shape_along_first(value: Any) -> tuple[int, ...] | None:
    """The lengths of the lists along the first elements, when a number is at their end."""
    shape = []
    while type(value) is simdjson.Array:
        size = len(value)
        if not size:
            return None
        shape.append(size)
        value = value[0]
    return tuple(shape) if type(value) in (int, float) and len(shape) <= 64 else None


def _has_structure(value: Any, body: bytes, shape: tuple[int, ...]) -> bool:
    """Whether the lists are nested regularly, as in `shape`, with nothing but scalars at the bottom."""
    if len(shape) <= 2:
        # Few lists: check each length. The number of brackets shows that nothing is nested deeper.
        if not _has_lists(body, 1 if len(shape) == 1 else 1 + shape[0]):
            return False
        if len(shape) == 1 or shape[0] == 1:  # the first row is what `shape` was read from
            return True
        return all(type(row) is simdjson.Array and len(row) == shape[1] for row in value)
    if math.prod(shape) > len(body):
        return False  # lists of a hostile text may be long along the first elements only
    # Many short lists: compare the text without its numbers.
    pattern = b"[" + b"," * (shape[-1] - 1) + b"]"
    for size in reversed(shape[:-1]):
        pattern = b"[" + (pattern + b",") * (size - 1) + pattern + b"]"
    start, stop = body.index(b"["), body.rindex(b"]") + 1
    return body[start:stop].translate(None, _BESIDE_STRUCTURE) == pattern


def _has_lists(body: bytes, num_lists: int) -> bool:
    """Whether the text opens so many lists and no more; few brackets in a long text are found faster than counted."""
    if num_lists > MAX_SEARCHES:
        return body.count(b"[") == num_lists
    position = -1
    for _ in range(num_lists):
        position = body.find(b"[", position + 1)
        if position < 0:
            return False
    return body.find(b"[", position + 1) < 0


def _narrowed(numbers: np.ndarray, wanted: np.dtype) -> np.ndarray:
    """float64 to `wanted`."""
    if not PIECE < len(numbers) <= MAX_PIECES * PIECE:
        return numbers.astype(wanted, copy=False)
    narrow = np.empty(len(numbers), wanted)
    for start in range(0, len(numbers), PIECE):
        narrow[start : start + PIECE] = numbers[start : start + PIECE]
    return narrow
