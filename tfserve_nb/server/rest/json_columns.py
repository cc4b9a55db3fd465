"""Requests with several named inputs: plain inputs of one type and shape become one array, and each a part of it.

So a row of ten numbers by name costs about what a row of ten numbers costs. What is not plain takes the careful path,
which knows all rules and all errors.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from operator import itemgetter
from typing import Any  # JSON values

import numpy as np

from ...errors import ServingError
from ...types import TensorSpec
from .json_tensors import plain_array, shape_along_first, to_array


def from_rows(rows: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray] | None:
    """The tensors of rows that are objects, or None for rows that need the careful path.

    Args:
        rows: JSON values, at least one.
        specs: the signature's inputs, by name.
    """
    first = rows[0]
    if set(map(type, rows)) != {dict} or set(map(len, rows)) != {len(specs)} or first.keys() != specs.keys():
        return None
    num_rows = len(rows)
    found: dict[str, np.ndarray] = {}
    try:
        for shape, alike in _groups(first, specs):
            values = _values(rows, alike)
            array = plain_array(values, shape, specs[alike[0]].dtype)
            if array is not None:
                by_row = array.reshape(num_rows, len(alike), *shape)
                found.update(zip(alike, np.ascontiguousarray(by_row.swapaxes(0, 1)), strict=True))
                continue
            for name in alike:
                column = [row[name] for row in rows]
                found[name] = to_array(column, specs[name])
    except (KeyError, ServingError):
        return None
    return {name: found[name] for name in specs}


def from_columns(columns: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """The tensors of inputs that are given by name; each is there.

    Args:
        columns: name -> JSON value.
        specs: the signature's inputs, by name.

    Raises:
        ServingError: as `to_array`.
    """
    found: dict[str, np.ndarray] = {}
    for shape, alike in _groups(columns, specs):
        array = None
        if shape and len(alike) > 1:
            values = [columns[name] for name in alike]
            array = plain_array(values, shape, specs[alike[0]].dtype)
        if array is not None:
            found.update(zip(alike, array.reshape(len(alike), *shape), strict=True))
    # What is left, in the signature's order: the first one that is wrong gets the error.
    return {name: found[name] if name in found else to_array(columns[name], spec) for name, spec in specs.items()}


def _groups(values: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> list[tuple[tuple[int, ...], list[str]]]:
    """The names of inputs of one type whose values have one shape, as far as their first elements show it."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, value in values.items():  # names of the values: the keys of all rows are the same objects
        spec = specs.get(name)
        if spec is not None:
            groups.setdefault((spec.dtype, shape_along_first(value)), []).append(name)
    return [(shape, names) for (_, shape), names in groups.items()]


def _values(rows: list[dict[str, Any]], names: list[str]) -> list[Any]:
    """The values of some names, row by row."""
    found = map(itemgetter(*names), rows)
    return list(found if len(names) == 1 else chain.from_iterable(found))
