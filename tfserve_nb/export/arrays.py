"""The one reader of rows: what users pass (arrays, lists, dicts, tensors, data frames) as a signature's named arrays.

Check, warm-up, `predict`, differences, A/B comparisons and benchmarks all read their rows here, so what one of them
takes the others take too.

Thread: any; pure functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn  # what users pass

import numpy as np

from ..errors import InvalidOption, InvalidRequest
from ..types import SignatureSpec, TensorSpec, array_of
from .endpoint import Structure, free_batch, leaves
from .reasons import short_repr

MAX_CHECKED_ROWS = 64
"""Rows of a user's batch that are used; a check of a whole test set would only take longer."""

_KIND_WORDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float", "c": "complex", "O": "string"}
_ALLOWED_CASTS = {"f": "biuf", "c": "biufc", "i": "biu", "u": "biu", "b": "b", "O": "O", "V": "biufV"}
"""Kind of numpy type that a signature asks for -> kinds that may become it without being changed in meaning."""

_MOST_WHOLE = 2.0**63
"""From which on numpy makes floats of a list that has smaller whole numbers, too."""

_NOT_DENSE = {
    "RaggedTensor": "pad its rows to one length as in training: x.to_tensor()",
    "SparseTensor": "tf.sparse.to_dense(x)",
    "KerasTensor": "give values: a symbolic tensor has none",
    "SymbolicTensor": "give values: a symbolic tensor has none",
}


def read_rows(signature: SignatureSpec, value: object) -> dict[str, np.ndarray]:
    """Turn what users pass as rows into named arrays of a signature; as `named_batch`, for a model that is served.

    Args:
        signature: what the version takes.
        value: for one input anything array-like; for several a dict or a data frame with one entry per input, or, where
            the signature has an order, a list or tuple of arrays in it. What is None in a dict is not given.

    Returns:
        name -> array of exactly the spec's type and rank; shape `(n, ...)` for inputs with a free dimension 0.

    Raises:
        InvalidRequest: if the value does not fit; the message names the input, what came and what it expects.
    """
    return _read(_columns(value, signature), signature)


def named_batch(
    value: object, signature: SignatureSpec, *, most: int | None = MAX_CHECKED_ROWS
) -> dict[str, np.ndarray]:
    """Turn a user's batch into one array per input of a model, to try it with.

    Args:
        value: as for `read_rows`. One row without the batch dimension is taken as a batch of one, numbers for an input
            `[None, 1]` as a column.
        signature: what the model takes.
        most: of a long batch the first rows are taken, this many; as many as the model takes where that is fixed.

    Returns:
        name -> array of the spec's numpy type, shape `(n, ...)` with the same n >= 1 for all inputs whose dimension 0
        is free.

    Raises:
        InvalidRequest: if the value does not fit; the message names the input, what came and what it expects.
    """
    batch = _read(_columns(value, signature), signature, most)
    batched = [name for name, spec in signature.inputs.items() if spec.is_batched and batch[name].ndim]
    rows = {name: len(batch[name]) for name in batched}
    if len(set(rows.values())) > 1:
        counted = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise InvalidRequest(f"the inputs have different numbers of rows: {counted}", hint="give each input every row")
    if 0 in rows.values():
        raise InvalidRequest("the batch has no rows", hint="give at least one row")
    return batch


@contextlib.contextmanager
def given_as(option: str) -> Iterator[None]:
    """What does not fit in the body is an error of the option that it was given with.

    Raises:
        InvalidOption: naming the option, instead of `InvalidRequest`.
    """
    try:
        yield
    except InvalidRequest as error:
        raise InvalidOption(f"{option}: {error.message}", hint=error.hint) from error


def as_array(value: object) -> tuple[np.ndarray, str]:
    """Turn anything array-like into an array and TensorFlow's name of its type.

    Plain Python numbers become `float32` and `int32`, as TensorFlow makes them (`int64` where they need it); text
    becomes `string`, an object array of bytes (UTF-8). What has a type of its own (arrays, tensors, columns) keeps it.

    Raises:
        InvalidRequest: if it is no regular array of numbers, booleans or text.

    Example:
        >>> as_array(["day", "night"])
        (array([b'day', b'night'], dtype=object), 'string')
    """
    array = _plain_array(value, "the value")
    if array.dtype == object:
        return array, "string"
    if not hasattr(value, "dtype") and not hasattr(value, "dtypes"):
        plain = {"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype.type)
        if array.dtype.kind == "i" and array.size and not np.array_equal(array.astype(np.int32), array):
            plain = np.int64
        array = array.astype(plain)
    return array, array.dtype.name


def specs_of(example: object) -> Structure:
    """The structure of an example, with a spec in place of each array: its type and shape, dimension 0 left free.

    Dicts stay dicts, and so do named tuples and lists of arrays; a list of numbers or text is an array.

    Raises:
        InvalidRequest: if a part of it is no regular array.
    """
    if isinstance(example, Mapping):
        return {str(key): specs_of(value) for key, value in example.items()}
    if hasattr(example, "_fields"):
        return type(example)(*map(specs_of, example))  # type: ignore[call-overload]  # a named tuple
    if is_list_of_arrays(example):
        parts = [specs_of(value) for value in example]  # type: ignore[attr-defined]
        return tuple(parts) if isinstance(example, tuple) else parts
    array, dtype = as_array(example)
    return TensorSpec("", dtype, free_batch(array.shape))


def is_list_of_arrays(value: object) -> bool:
    """Whether a list or tuple holds arrays, tensors or dicts of them, not numbers or text."""
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(hasattr(item, "shape") or isinstance(item, Mapping) for item in value)  # type: ignore[attr-defined]


def without_none(value: Sequence[Any]) -> Sequence[Any]:
    """The parts of a list of arrays without those that are None: optional inputs that are not given."""
    arrays = [item for item in value if item is not None]
    return arrays if len(arrays) < len(value) and is_list_of_arrays(arrays) else value


def by_name(value: object, order: Sequence[str]) -> object:
    """A list of arrays in which some are None, as a dict: the model that is exported takes no list with these.

    Args:
        value: what a user gives as rows; all else stays as it is.
        order: see `ExportSource`.
    """
    is_list = isinstance(value, list | tuple) and not hasattr(value, "_fields")
    is_call = is_list and len(value) <= len(order) and without_none(value) is not value  # type: ignore[arg-type]
    return dict(zip(order, value, strict=False)) if is_call else value  # type: ignore[call-overload]  # a list


def given_batch(
    option: str, value: object, order: Sequence[str], signature: SignatureSpec, *, most: int | None = MAX_CHECKED_ROWS
) -> dict[str, np.ndarray]:
    """`named_batch` of the rows that an option was given, which `by_name` took by their names.

    Args:
        option: its name, for messages.
        value: what it was given.
        order: see `ExportSource`.
        signature: what the model takes.
        most: as for `named_batch`.

    Raises:
        InvalidOption: if the rows do not fit.
    """
    with given_as(option):
        return named_batch(by_name(value, order), signature, most=most)


def columns_of(value: object) -> dict[str, Any] | None:
    """The named parts of a dict, named tuple, data frame or record array, in order; None for what has no names.

    What is None in a dict or named tuple is not given.
    """
    if hasattr(value, "_fields"):
        value = value._asdict()  # type: ignore[attr-defined]  # a named tuple
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items() if item is not None}
    if isinstance(value, np.ndarray):
        return {name: value[name] for name in value.dtype.names} if value.dtype.names else None
    return {str(label): column for label, column in _frame_columns(value)} if _is_frame(value) else None


def _columns(value: object, signature: SignatureSpec) -> dict[str, Any]:
    """Input name -> what was given for it."""
    names = list(signature.inputs)
    found = columns_of(value)
    if isinstance(value, Mapping) or hasattr(value, "_fields"):
        # A model that takes a nested structure has one name for each path in it.
        flat = {"_".join(map(str, path)): leaf for path, leaf in leaves(value) if leaf is not None}
        return flat if flat.keys() == set(names) else _matching(found or {}, names)
    if hasattr(value, "iloc") and len(names) > 1 and not _is_frame(value):
        return _matching({str(label): item for label, item in value.items()}, names)  # type: ignore[attr-defined]  # a row
    if found is not None and (len(names) > 1 or list(found) == names):
        return _matching(found, names)
    if len(names) == 1:
        return {names[0]: value}
    why = f"does not fit a model with {len(names)} inputs"
    if isinstance(value, list | tuple) and len(value) == len(names):
        if not signature.order:
            why += ", of which no order is known"
        elif _may_be_rows(value, signature):
            why = f"may be {len(names)} inputs or {len(names)} rows"
        else:
            return dict(zip(signature.order, value, strict=True))
    listed = f"a list of {', '.join(signature.order)}, or " if signature.order and "may be" not in why else ""
    entries = ", ".join(f"{name!r}: ..." for name in names)
    raise InvalidRequest(f"{_describe(value)} {why}", hint=f"give {listed}a dict: {{{entries}}}")


def _may_be_rows(value: Sequence[Any], signature: SignatureSpec) -> bool:
    """Whether a list, with one entry for each input, fits as well when each entry is a row with a value of each."""
    if not all(isinstance(row, list | tuple) and len(row) == len(value) for row in value):
        return False
    with contextlib.suppress(InvalidRequest):
        _read(dict(zip(signature.order, zip(*value, strict=True), strict=True)), signature)
        return True
    return False


def _matching(columns: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    missing = [name for name in names if name not in columns]
    if missing:
        raise InvalidRequest(
            f"input {missing[0]!r} is missing; given are {', '.join(columns) or 'none'}",
            hint=f"give all of: {', '.join(names)}",
        )
    extra = [name for name in columns if name not in names]
    if extra:
        raise InvalidRequest(f"the model has no input {extra[0]!r}", hint=f"its inputs are: {', '.join(names)}")
    return columns


def _read(columns: Mapping[str, Any], signature: SignatureSpec, most: int | None = None) -> dict[str, np.ndarray]:
    return {name: _fit(columns[name], spec, most) for name, spec in signature.inputs.items()}


def _fit(value: object, spec: TensorSpec, most: int | None) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.dtype == spec.numpy_dtype and value.dtype != object:
        array = value
    else:
        array = _cast(_plain_array(value, f"Input {spec.name}"), spec)
    array = _shaped(array, spec, most)
    if most is not None and spec.is_batched and array.ndim:
        array = array[:most]
    # `np.ascontiguousarray` would give an array without dimensions one.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _shaped(array: np.ndarray, spec: TensorSpec, most: int | None) -> np.ndarray:
    """The array with the spec's number of dimensions, as Keras adapts it, or as one row."""
    shape = spec.shape
    if shape is None:
        return array
    if most is not None and shape and shape[0] is not None and array.ndim == len(shape) and len(array) > shape[0]:
        array = array[: shape[0]]
    for candidate in _ranked(array, shape):
        sizes = zip(shape, candidate.shape, strict=True)
        if all(wanted is None or wanted == size for wanted, size in sizes):
            return candidate
    raise InvalidRequest(
        f"Input {spec.name} has shape [{', '.join(map(str, array.shape))}], expected {spec}",
        hint="give rows as the model takes them; dimension 0 counts the rows, and ? is any size"
        if shape
        else "give one value for all rows, not a list of them",
    )


def _ranked(array: np.ndarray, shape: Sequence[int | None]) -> Iterable[np.ndarray]:
    """The readings of an array that have as many dimensions as a shape, best first."""
    missing = len(shape) - array.ndim
    if missing == 0:
        yield array
    elif missing == -1 and array.shape[-1] == 1 and array.ndim > 1:
        yield array[..., 0]
    elif missing >= 1 and array.ndim == 0 and all(size in (None, 1) for size in shape):
        yield array.reshape([1] * len(shape))
    elif array.shape == (0,) and shape[0] is None:
        yield array.reshape(0, *(size or 0 for size in shape[1:]))
    elif missing == 1:
        if shape[-1] == 1:
            yield array[..., np.newaxis]
        yield array[np.newaxis]


def _cast(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    wanted = spec.numpy_dtype
    if array.dtype == wanted or not array.size:  # an empty list is of no type
        return array.astype(wanted, copy=False)
    is_whole = False
    if array.dtype.kind == "f" and wanted.kind in "iu":
        missing = np.flatnonzero(np.isnan(array))
        if missing.size:
            _refuse(np.nan, f"Input {spec.name}", int(missing[0]), array.shape)
        is_whole = bool(np.all(array == np.floor(array)))
        largest = float(np.abs(array).max())
        if is_whole and np.isfinite(largest) and largest > 2 ** (np.finfo(array.dtype).nmant + 1):
            raise InvalidRequest(
                f"Input {spec.name} holds {largest:.0f}, which {array.dtype} rounds, expected {spec}",
                hint=f"make it whole numbers from the start: numpy.asarray(x, dtype={spec.dtype!r})",
            )
    if array.dtype.kind not in _ALLOWED_CASTS.get(wanted.kind, "") and not is_whole:
        given = _KIND_WORDS.get(array.dtype.kind, str(array.dtype))
        raise InvalidRequest(
            f"Input {spec.name} holds {given} values, expected {spec}",
            hint=f"convert it: numpy.asarray(x, dtype={'str' if wanted.kind == 'O' else spec.dtype!r})",
        )
    if wanted.kind in "iu" and array.size:
        limits, least, largest = np.iinfo(wanted), array.min().item(), array.max().item()
        if least < limits.min or largest > limits.max:
            raise InvalidRequest(
                f"Input {spec.name} holds {least} to {largest}, expected {spec}",
                hint=f"allowed are {limits.min} to {limits.max}",
            )
    return array.astype(wanted)


def _plain_array(value: object, what: str) -> np.ndarray:
    """An array of numbers or booleans, or an object array of bytes.

    Args:
        value: anything.
        what: it is called in errors, such as `Input x`.

    Raises:
        InvalidRequest: if it is neither.
    """
    kind = type(value).__name__
    if kind == "RaggedTensor" and _is_even(value):
        value = value.to_tensor()  # type: ignore[attr-defined]
    elif kind in _NOT_DENSE:
        raise InvalidRequest(f"{what} is a {kind}; requests carry dense tensors", hint=_NOT_DENSE[kind])
    try:
        # numpy's own types for text cut zero bytes off and cannot mix bytes with str.
        if _is_frame(value):
            array = _stacked(value, what)
        else:
            array = np.asarray(value, dtype=object) if _begins_with_text(value) else array_of(value)
            if array.dtype == np.float64 and isinstance(value, list | tuple) and np.any(np.abs(array) >= _MOST_WHOLE):
                array = np.asarray(value, dtype=object)  # whole numbers of both halves of 64 bits
    except (ValueError, TypeError, RuntimeError) as error:
        # numpy names the depth at which lists differ, in words about its own types.
        why = "its rows have different shapes" if "inhomogeneous" in str(error) else str(error)
        raise InvalidRequest(
            f"{what} is no regular array: {_describe(value)}: {why}",
            hint="give an array whose rows all have the same shape",
        ) from error
    if array.dtype.kind in "OUST":
        return _of_items(array, what)
    if array.dtype.kind not in "biufc" and array.dtype.name not in {"bfloat16", "half"}:
        raise InvalidRequest(
            f"{what} has the type {array.dtype}, which TensorFlow does not have",
            hint="convert it to numbers, booleans or text",
        )
    return array


def _stacked(frame: Any, what: str) -> np.ndarray:
    """A data frame as a matrix; pandas would make objects out of columns of different types."""
    columns = [(label, _plain_array(item, f"column {str(label)!r} of {what}")) for label, item in _frame_columns(frame)]
    with_text = [label for label, column in columns if column.dtype == object]
    if 0 < len(with_text) < len(columns):
        raise InvalidRequest(
            f"{what} mixes numbers with text, in column {str(with_text[0])!r}",
            hint="give the columns that the model takes, all of one type",
        )
    return np.stack([column for _, column in columns], axis=1) if columns else np.asarray(frame)


def _is_frame(value: object) -> bool:
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def _frame_columns(frame: Any) -> list[tuple[Any, Any]]:
    """The labels and columns of a data frame, also of one with the same label twice."""
    if hasattr(frame, "iloc"):
        return [(label, frame.iloc[:, position]) for position, label in enumerate(frame.columns)]
    return [(label, frame[label]) for label in frame.columns]


def _is_even(ragged: Any) -> bool:
    return all(len(set(np.asarray(lengths).tolist())) <= 1 for lengths in ragged.nested_row_lengths())


def _begins_with_text(value: object) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes)


def _of_items(array: np.ndarray, what: str) -> np.ndarray:
    """Text as bytes; numbers that came as objects, as columns of mixed or nullable types have them, as numbers."""
    items: list[object] = array.ravel().tolist()
    if any(isinstance(item, str | bytes) for item in items) or not items:
        encoded = np.empty(array.shape, dtype=object)
        for position, item in enumerate(items):
            encoded.flat[position] = _encoded(item, what, position, array.shape)
        return encoded
    for position, item in enumerate(items):
        if not isinstance(item, bool | int | float | complex | np.generic):
            _refuse(item, what, position, array.shape)
    numbers = np.asarray(items).reshape(array.shape)
    wholes = [int(item) for item in items if isinstance(item, int | np.integer)]
    if numbers.dtype.kind == "f" and len(wholes) == len(items):
        fits = min(wholes) >= 0 and max(wholes) < 2**64
        numbers = np.asarray(wholes, dtype=np.uint64 if fits else object).reshape(array.shape)
    if numbers.dtype == object:
        raise InvalidRequest(f"{what} holds numbers beyond 64 bits", hint="smaller numbers, or text")
    return numbers


def _encoded(item: object, what: str, position: int, shape: tuple[int, ...]) -> bytes:
    if not isinstance(item, str | bytes):
        _refuse(item, what, position, shape)
    try:
        return item.encode() if isinstance(item, str) else bytes(item)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{what} holds text that UTF-8 cannot have: {error}", hint="give it as bytes") from error


def _refuse(item: object, what: str, position: int, shape: tuple[int, ...]) -> NoReturn:
    row = f" in row {np.unravel_index(position, shape)[0]}" if shape else ""
    if item is None or type(item).__name__ in {"NAType", "NaTType"} or (isinstance(item, float) and np.isnan(item)):
        raise InvalidRequest(f"{what} has no value{row}: {item!r}", hint="fill it as in training: x.fillna(...)")
    raise InvalidRequest(
        f"{what} holds {short_repr(item) or f'a {type(item).__name__}'}{row}, which is neither text nor a number",
        hint="give arrays of one type: numbers, booleans or text; for several inputs a dict with one array each",
    )


def _describe(value: object) -> str:
    kind = "array" if isinstance(value, np.ndarray) else type(value).__name__
    text = short_repr(value)
    return f"{kind} {text}" if text else f"the {kind}"
