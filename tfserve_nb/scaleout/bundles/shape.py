"""A small language for what a document may look like, and the check.

A shape is a type (`str`, `int`, `float`, `bool`; `object` for anything); a dict of key -> shape, whose keys that end in
`!` must be there; a list of one shape; a tuple of shapes, any of which fits; a frozenset of the texts that are allowed;
or `Keys`, for keys that users choose.

Thread: any.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias  # documents

from ...errors import ExportFailed

Shape: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Keys:
    """A mapping whose keys are free texts.

    Attributes:
        value: the shape of each value.
    """

    value: Shape


def check(value: Any, shape: Shape, where: str) -> None:
    """See that a document has the shape.

    Args:
        value: the document, or a part of it.
        shape: what it may look like.
        where: the place, for the error.

    Raises:
        ExportFailed: naming the place and the key, and the key that it is close to.
    """
    problem = problem_of(value, shape, where)
    if problem:
        raise ExportFailed(problem, hint="report this as a defect of tfserve_nb; the bundle was not written")


def problem_of(value: Any, shape: Shape, where: str) -> str:
    """What does not fit, in words; "" when all does."""
    if isinstance(shape, tuple):
        problems = [problem_of(value, one, where) for one in shape]
        return "" if "" in problems else problems[0]
    if isinstance(shape, frozenset):
        return "" if value in shape else f"{where} is {value!r}, and not one of {', '.join(sorted(shape))}"
    if isinstance(shape, type):
        is_right = isinstance(value, shape) and (shape in (bool, object) or not isinstance(value, bool))
        return "" if is_right else f"{where} is {value!r}, and no {shape.__name__}"
    return _problem_inside(value, shape, where)


def _problem_inside(value: Any, shape: Shape, where: str) -> str:
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {value!r}, and no list"
        return _first(problem_of(one, shape[0], f"{where}[{number}]") for number, one in enumerate(value))
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return f"{where} is {value!r}, and no mapping of texts"
    if isinstance(shape, Keys):
        return _first(problem_of(one, shape.value, f"{where}.{key}") for key, one in value.items())
    return _problem_of_keys(value, shape, where)


def _problem_of_keys(value: Mapping[str, Any], shape: Mapping[str, Shape], where: str) -> str:
    known = {key.removesuffix("!"): one for key, one in shape.items()}
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            return f"{where} has no key {key!r}{meant}"
    missing = [key[:-1] for key in shape if key.endswith("!") and key[:-1] not in value]
    if missing:
        return f"{where} lacks the key {missing[0]!r}"
    return _first(problem_of(one, known[key], f"{where}.{key}") for key, one in value.items())


def _first(problems: Iterable[str]) -> str:
    return next((problem for problem in problems if problem), "")
