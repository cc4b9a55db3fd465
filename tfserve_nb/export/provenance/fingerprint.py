"""What data a model was trained on, as a fingerprint: types, shapes and a SHA-256, never the values.

Thread: any; pure functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # data of the user

import numpy as np

from ...errors import InvalidOption

MAX_HASHED_BYTES = 256 * 1024 * 1024
"""Bytes of an array that are hashed; of a larger one, so many in evenly spaced rows. About 0.3 s."""

MAX_PARTS = 1000


@dataclass(frozen=True, slots=True)
class DataFingerprint:
    """A digest of training data: equal for two versions that were trained on the same data.

    Attributes:
        kind: the type, such as `ndarray` or `DataFrame`.
        dtype: of the array; for several parts one each, such as `image: uint8, label: int64`.
        shape: of the array; for several parts that of the first.
        sha256: hexadecimal; over dtype, shape and the values in C order. Equal data has equal text on every machine.
        is_sampled: whether only some rows were hashed, because there are more than `MAX_HASHED_BYTES`.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    is_sampled: bool = False

    def __str__(self) -> str:
        size = " × ".join(map(str, self.shape)) or "scalar"
        return f"{self.kind} {size}, {self.dtype}, sha256 {self.sha256[:12]}{' (sampled)' if self.is_sampled else ''}"


def fingerprint(value: Any) -> DataFingerprint:
    """The fingerprint of an array, a tensor, a list, a DataFrame, or a dict, list or tuple of such.

    Raises:
        InvalidOption: if the values cannot be read more than once, or are no arrays.
    """
    if hasattr(value, "element_spec") or isinstance(value, Iterator):
        raise InvalidOption(
            f"data is a {type(value).__name__}, which cannot be hashed without using it up",
            hint="give the arrays that it is made of: data=x_train",
        )
    parts = list(_parts(value))
    if len(parts) > MAX_PARTS:
        raise InvalidOption(f"data has {len(parts)} parts; {MAX_PARTS} are allowed", hint="give one array")
    digest = hashlib.sha256()
    is_sampled = False
    limit = MAX_HASHED_BYTES // max(1, len(parts))
    for name, array in parts:
        digest.update(f"{name}\0{_dtype(array)}\0{array.shape}\0".encode())
        is_sampled |= _hash(digest, array, limit)
    named = [f"{name}: {_dtype(array)}" if name else _dtype(array) for name, array in parts]
    shape = tuple(map(int, value.shape)) if _is_frame(value) else tuple(map(int, parts[0][1].shape)) if parts else ()
    return DataFingerprint(type(value).__name__, _shortened(named), shape, digest.hexdigest(), is_sampled)


def _parts(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a value with their names."""
    if _is_frame(value):
        for position, column in enumerate(value.columns):
            yield f"{name}{column}", np.asarray(value.iloc[:, position])
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(item, f"{name}{key}.")
    elif isinstance(value, list | tuple) and value and all(hasattr(item, "shape") for item in value):
        for position, item in enumerate(value):
            yield from _parts(item, f"{name}{position}.")
    else:
        try:
            array = np.asarray(value)
        except Exception as error:  # what a user's type raises when it is converted
            raise InvalidOption(f"data: {type(value).__name__} is no array: {error}", hint="data=x_train") from error
        if array.ndim == 0 and array.dtype == object:
            raise InvalidOption(f"data: {type(value).__name__} is no array", hint="data=x_train")
        yield name.rstrip("."), array


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "iloc")


def _dtype(array: np.ndarray) -> str:
    return "object" if array.dtype.hasobject else array.dtype.name


def _hash(digest: Any, array: np.ndarray, limit: int) -> bool:
    """Feed the values of an array; whether rows were left out."""
    rows = array.reshape(1) if array.ndim == 0 else array
    row_bytes = rows[:1].nbytes
    wanted = max(1, limit // max(1, row_bytes))
    is_sampled = len(rows) > wanted
    chosen = np.linspace(0, len(rows) - 1, wanted).astype(np.int64) if is_sampled else np.arange(len(rows))
    step = max(1, 2**22 // max(1, row_bytes))
    for first in range(0, len(chosen), step):
        _update(digest, rows[chosen[first : first + step]] if is_sampled else rows[first : first + step])
    return is_sampled


def _update(digest: Any, chunk: np.ndarray) -> None:
    if chunk.dtype.hasobject:
        for item in chunk.ravel():
            raw = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        return
    little = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
    digest.update(np.ascontiguousarray(little).tobytes())


def _shortened(names: list[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, and {len(names) - most} more" if len(names) > most else shown
