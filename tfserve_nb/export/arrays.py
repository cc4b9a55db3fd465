"""What users pass as a batch (arrays, lists, dicts, tensors, data frames) as named arrays of a signature's types.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidOption
from ..types import TensorSpec, array_of
from .endpoint import leaves
from .reasons import short_repr

MAX_CHECKED_ROWS = 64
"""Rows of a user's batch that are used; a check of a whole test set would only take longer."""

_KIND_WORDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float", "c": "complex", "O": "string"}
_ALLOWED_CASTS = {"f": "biuf", "c": "biufc", "i": "iu", "u": "iu", "b": "b", "O": "O", "V": "biufV"}
"""Kind of numpy type that a signature asks for -> kinds that may become it without being changed in meaning."""


def as_array(value: object) -> tuple[np.ndarray, str]:
    """Turn anything array-like into an array and TensorFlow's name of its type.

    Plain Python numbers become `float32` and `int32`, as TensorFlow makes them; text becomes `string`, an object array
    of bytes (UTF-8). What has a type of its own (arrays, tensors, columns) keeps it.

    Raises:
        InvalidOption: if it is no regular array of numbers, booleans or text.

    Example:
        >>> as_array(["day", "night"])
        (array([b'day', b'night'], dtype=object), 'string')
    """
    try:
        # numpy's own types for text cut zero bytes off and cannot mix bytes with str.
        array = np.asarray(value, dtype=object) if _begins_with_text(value) else array_of(value)
    except (ValueError, TypeError) as error:
        raise InvalidOption(
            f"{_describe(value)} is no regular array: {error}", hint="give an array whose rows all have the same shape"
        ) from error
    if array.dtype.kind in "OUST":
        return _as_bytes(array, value), "string"
    if not hasattr(value, "dtype") and not hasattr(value, "dtypes"):
        plain = {"f": np.float32, "i": np.int32}.get(array.dtype.kind)
        array = array if plain is None else array.astype(plain)
    if array.dtype.kind not in "biufc" and array.dtype.name not in {"bfloat16", "half"}:
        raise InvalidOption(
            f"{_describe(value)} has the type {array.dtype}, which TensorFlow does not have",
            hint="convert it to numbers, booleans or text",
        )
    return array, array.dtype.name


def named_batch(value: object, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Turn a user's batch into one array per input of a signature.

    Args:
        value: for one input anything array-like; for several a dict or a data frame with one entry per input, or a
            list or tuple of arrays in the model's own order. One row without the batch dimension is taken as a batch
            of one. Of a long batch the first `MAX_CHECKED_ROWS` rows are taken.
        specs: the inputs in the model's own order.

    Returns:
        name -> array of the spec's numpy type, shape `(n, ...)` with the same n for all inputs whose dimension 0 is
        free.

    Raises:
        InvalidOption: if the value does not fit; the message names the input, what it wants and what it got.
    """
    columns = _columns(value, specs)
    batch = {spec.name: _fit(columns[spec.name], spec) for spec in specs}
    rows = {name: len(batch[name]) for name in (spec.name for spec in specs if spec.is_batched)}
    if len(set(rows.values())) > 1:
        counted = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise InvalidOption(f"the inputs have different numbers of rows: {counted}", hint="give each input every row")
    if 0 in rows.values():
        raise InvalidOption("the batch has no rows", hint="give at least one row")
    return batch


def _columns(value: object, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    names = [spec.name for spec in specs]
    if isinstance(value, Mapping):
        # A model that takes a nested structure has one name for each path in it.
        flat = {"_".join(map(str, path)): leaf for path, leaf in leaves(value)}
        return flat if flat.keys() == set(names) else _matching(dict(value), names)
    labels = list(map(str, getattr(value, "columns", ())))
    if labels and (len(names) > 1 or labels == names):
        return _matching({label: value[label] for label in labels}, names)  # type: ignore[index]  # a data frame
    if len(names) == 1:
        return {names[0]: value}
    if isinstance(value, list | tuple) and len(value) == len(names):
        return dict(zip(names, value, strict=True))
    raise InvalidOption(
        f"{_describe(value)} does not fit a model with {len(names)} inputs",
        hint=f"give a dict with the keys {', '.join(names)}",
    )


def _matching(columns: dict[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    missing = [name for name in names if name not in columns]
    if missing:
        raise InvalidOption(
            f"input {missing[0]!r} is missing; given are {', '.join(map(str, columns)) or 'none'}",
            hint=f"give all of: {', '.join(names)}",
        )
    extra = [str(name) for name in columns if name not in names]
    if extra:
        raise InvalidOption(f"the model has no input {extra[0]!r}", hint=f"its inputs are: {', '.join(names)}")
    return columns


def _fit(value: object, spec: TensorSpec) -> np.ndarray:
    array = _cast(as_array(value)[0], spec)
    if spec.shape is None:
        return array[:MAX_CHECKED_ROWS] if array.ndim else array
    if array.ndim == len(spec.shape) - 1:
        # One row, or a column of numbers for an input that wants each of them in a list of its own.
        array = array[:, np.newaxis] if spec.shape[1:] == (1,) else array[np.newaxis]
    sizes_fit = array.ndim == len(spec.shape) and all(
        wanted is None or wanted == size for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not sizes_fit:
        raise InvalidOption(
            f"input {spec.name!r} wants {spec}, and the batch has the shape {list(array.shape)}",
            hint="give rows as the model takes them, the first dimension counts the rows",
        )
    return array[:MAX_CHECKED_ROWS] if spec.is_batched else array


def _cast(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    wanted = spec.numpy_dtype
    if array.dtype == wanted:
        return array
    is_whole = array.dtype.kind == "f" and wanted.kind in "iu" and bool(np.all(array == np.floor(array)))
    if array.dtype.kind not in _ALLOWED_CASTS.get(wanted.kind, "") and not is_whole:
        given = _KIND_WORDS.get(array.dtype.kind, str(array.dtype))
        raise InvalidOption(
            f"input {spec.name!r} wants {spec.dtype}, and the batch holds {given} values",
            hint=f"convert it: numpy.asarray(x, dtype={'str' if wanted.kind == 'O' else spec.dtype!r})",
        )
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidOption(
                f"input {spec.name!r} wants {spec.dtype}, and the batch holds {array.min()} to {array.max()}",
                hint=f"allowed are {limits.min} to {limits.max}",
            )
    return array.astype(wanted)


def _begins_with_text(value: object) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes)


def _as_bytes(array: np.ndarray, value: object) -> np.ndarray:
    encoded = np.empty(array.shape, dtype=object)
    flat: Iterable[object] = array.ravel().tolist()
    for position, item in enumerate(flat):
        if not isinstance(item, str | bytes):
            raise InvalidOption(
                f"{_describe(value)} mixes text with {type(item).__name__} values, such as {item!r}",
                hint="give arrays of one type; for several inputs a dict with one array each",
            )
        encoded.flat[position] = item.encode() if isinstance(item, str) else item
    return encoded


def _describe(value: object) -> str:
    kind = type(value).__name__
    text = short_repr(value)
    return f"{kind} {text}" if text else f"the {kind}"
