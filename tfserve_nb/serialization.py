"""Values as JSON and back: one converter for files, the admin API and what is kept of experiments and benchmarks.

Dataclasses become objects, named tuples lists, enums their names, paths text, sets sorted lists, bytes base64. A class
whose JSON is not simply its fields has `to_json` and `from_json`, which the converter calls. Of numbers and arrays:

* JSON has no NaN and no infinity. A `float` that is either becomes null, and null becomes NaN; `LowEnd`, `HighEnd` and
  `TextFloat` write it otherwise.
* `np.ndarray` is a tensor of any type: an object with `dtype`, `shape` and base64 `data` (texts: a list of base64).
* `NDArray[np.float64]` and other arrays whose type is annotated are lists of numbers; `SparseCounts` an object with
  the counts that are not 0.

Thread: any; pure functions.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints  # JSON values

import numpy as np

from .errors import ServingError
from .types import numpy_dtype

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NullIs:
    """Marks a float: null stands for this number, and any number without a place in JSON becomes null."""

    number: float


@dataclass(frozen=True, slots=True)
class AsText:
    """Marks a float: NaN and infinities are text, such as `inf`."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """Marks an int64 array of shape `(size,)`: an object that holds place -> count for the counts that are not 0."""

    size: int


LowEnd: TypeAlias = Annotated[float, NullIs(-math.inf)]
"""The lower end of an interval: null is minus infinity."""
HighEnd: TypeAlias = Annotated[float, NullIs(math.inf)]
"""The upper end of an interval: null is infinity."""
TextFloat: TypeAlias = Annotated[float, AsText()]
"""A number whose NaN and infinities must come back as they were."""


def to_json(value: Any, kind: Any = None) -> Any:
    """What `json.dumps` writes for a value.

    Args:
        value: of a kind that is described above.
        kind: its annotation, when that holds more than its class, such as `tuple[LowEnd, HighEnd]`.
    """
    return _converter(False).unstructure(value, unstructure_as=kind)


def from_json(value: Any, kind: type[T], *, is_strict: bool = False) -> T:
    """The inverse of `to_json`.

    Args:
        value: as `json.loads` gives it.
        kind: the type to convert to.
        is_strict: whether names that `kind` does not have are refused, as in what a person typed; otherwise they are
            left out, as in what a newer version wrote.

    Raises:
        KeyError: naming what is missing.
        TypeError: if something is of another kind, or a name is not known.
        ValueError: if a value is not allowed.
    """
    from cattrs.errors import ForbiddenExtraKeysError

    try:
        found: T = _converter(is_strict).structure(value, kind)
    except ForbiddenExtraKeysError as error:
        names = ", ".join(sorted(error.extra_fields))
        raise TypeError(f"{error.cl.__name__} has no {names}") from error
    return found


def check_format(found: object, newest: int, where: object) -> None:
    """Refuse what a newer version of this package wrote.

    Args:
        found: the format's number.
        newest: the newest that this version reads.
        where: the file.

    Raises:
        ServingError: naming both.
    """
    if not isinstance(found, int) or found > newest:
        raise ServingError(
            f"{where} has the format {found!r}, and this version of tfserve_nb reads formats up to {newest}",
            hint="pip install --upgrade tfserve_nb, or use another folder or file",
        )


@cache
def _converter(is_strict: bool) -> Any:
    """The converter; made with the first use, since cattrs takes its time to be imported."""
    from cattrs import Converter

    converter = Converter(
        detailed_validation=False, forbid_extra_keys=is_strict, unstruct_collection_overrides={AbstractSet: sorted}
    )
    converter.register_unstructure_hook_factory(
        is_dataclass, lambda kind: converter.gen_unstructure_attrs_fromdict(_resolved(kind))
    )
    converter.register_structure_hook_factory(
        is_dataclass, lambda kind: converter.gen_structure_attrs_fromdict(_resolved(kind))
    )
    converter.register_unstructure_hook(float, _float_to_json)
    converter.register_structure_hook(float, lambda value, _: _float_from_json(value))
    converter.register_structure_hook(int, lambda value, _: _int_from_json(value))
    converter.register_structure_hook(bool, lambda value, _: _bool_from_json(value))
    converter.register_unstructure_hook(bytes, _coded)
    converter.register_structure_hook(bytes, lambda value, _: base64.b64decode(value))
    converter.register_unstructure_hook(np.ndarray, _tensor_to_json)
    converter.register_structure_hook(np.ndarray, lambda value, _: _tensor_from_json(value))
    converter.register_unstructure_hook(np.generic, lambda value: value.item())
    converter.register_unstructure_hook_func(_is(Path), str)
    converter.register_structure_hook(Path, lambda value, _: _path_from_json(value))
    converter.register_unstructure_hook_func(_is(enum.Enum), lambda value: value.name)
    converter.register_structure_hook_func(_is(enum.Enum), lambda value, kind: kind[value])
    converter.register_unstructure_hook_func(_converts_itself, lambda value: value.to_json())
    converter.register_structure_hook_func(_converts_itself, lambda value, kind: kind.from_json(value))
    converter.register_unstructure_hook_func(_has_tuples_as_keys, _pairs_to_json)
    converter.register_structure_hook_func(_has_tuples_as_keys, _pairs_from_json)
    converter.register_unstructure_hook_func(_is_typed_array, _array_to_json)
    converter.register_structure_hook_func(_is_typed_array, _array_from_json)
    converter.register_unstructure_hook_factory(_is_named_tuple, lambda kind: _named_tuple_writer(kind, converter))
    converter.register_structure_hook_factory(_is_named_tuple, lambda kind: _named_tuple_reader(kind, converter))
    for mark, write, read in _MARKED:
        converter.register_unstructure_hook_func(_is_marked(mark), write)
        converter.register_structure_hook_func(_is_marked(mark), read)
    return converter


def _resolved(kind: Any) -> Any:
    """A dataclass whose annotations are no longer text: cattrs would leave out the marks when it resolves them."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        field.type = hints[field.name]
    return kind


def _is(parent: type) -> Callable[[Any], bool]:
    return lambda kind: isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, parent)


def _converts_itself(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "to_json") and hasattr(kind, "from_json")


def _has_tuples_as_keys(kind: Any) -> bool:
    origin, names = get_origin(kind), get_args(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and get_origin(names[0]) is tuple


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _is_typed_array(kind: Any) -> bool:
    return get_origin(kind) is np.ndarray


def _is_marked(mark: type) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is Annotated and isinstance(kind.__metadata__[0], mark)


def _float_to_json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _float_from_json(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return math.nan if value is None else float(value)


def _path_from_json(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise TypeError(f"{value!r:.100} is no path")
    return Path(value)


def _int_from_json(value: Any) -> int:
    """From a number, or from text, as in the query of a URL."""
    if not isinstance(value, bool) and (not isinstance(value, float) or value.is_integer()):
        with contextlib.suppress(TypeError, ValueError):
            return int(value)
    raise ValueError(f"{value!r:.100} is no integer")


def _bool_from_json(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _pairs_to_json(value: Mapping[tuple[Any, ...], Any]) -> list[list[Any]]:
    """Each entry as a list: the parts of its key, then its value."""
    return [[*key, item] for key, item in value.items()]


def _pairs_from_json(value: Any, _: Any) -> dict[tuple[Any, ...], Any]:
    return {tuple(key): item for *key, item in value}


def _named_tuple_writer(kind: Any, converter: Any) -> Callable[[Any], list[Any]]:
    """Not cattrs' own way, which does not resolve annotations that are text."""
    types = list(get_type_hints(kind, include_extras=True).values())
    return lambda value: [converter.unstructure(item, unstructure_as=of) for item, of in zip(value, types, strict=True)]


def _named_tuple_reader(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    """Values at the end may be missing, if there are defaults for them."""
    types = list(get_type_hints(kind, include_extras=True).values())
    return lambda value, _: kind(*(converter.structure(item, of) for item, of in zip(value, types, strict=False)))


def _array_to_json(array: np.ndarray) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    return np.where(np.isfinite(array), array.astype(object), None).tolist()  # type: ignore[call-overload]  # knows no None


def _array_from_json(value: Any, kind: Any) -> np.ndarray:
    (dtype,) = get_args(get_args(kind)[1])
    return np.array(value, dtype=dtype)


def _tensor_to_json(array: np.ndarray) -> dict[str, Any]:
    """Raw bytes in base64; texts one by one."""
    if array.dtype == object:
        data: Any = [_coded(item if isinstance(item, bytes) else str(item).encode()) for item in array.reshape(-1)]
    else:
        data = _coded(np.ascontiguousarray(array).tobytes())
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _tensor_from_json(value: Mapping[str, Any]) -> np.ndarray:
    if value["dtype"] == "object":
        array = np.empty(len(value["data"]), dtype=object)
        array[:] = [base64.b64decode(item) for item in value["data"]]
    else:
        array = np.frombuffer(base64.b64decode(value["data"]), dtype=numpy_dtype(value["dtype"]))
    return array.reshape(value["shape"])


def _sparse_from_json(value: Mapping[str, int], kind: Any) -> np.ndarray:
    counts = np.zeros(kind.__metadata__[0].size, dtype=np.int64)
    for place, count in value.items():
        counts[int(place)] = count
    return counts


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


_MARKED: tuple[tuple[type, Callable[[Any], Any], Callable[[Any, Any], Any]], ...] = (
    (NullIs, _float_to_json, lambda value, kind: kind.__metadata__[0].number if value is None else float(value)),
    (AsText, lambda value: float(value) if math.isfinite(value) else str(value), lambda value, _: float(value)),
    (Sparse, lambda array: {str(place): int(array[place]) for place in np.flatnonzero(array)}, _sparse_from_json),
)
"""Mark -> how a value becomes JSON, and comes back."""
