"""The decisions of a version for each row, to be compared with its label once that is known.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple  # labels of the user

import numpy as np

from ..errors import InvalidRequest
from ..types import Tensors
from .kinds import ARGMAX, DEFAULT_TOLERANCE, HALF, NUMBERS, RANDOM, SIGN, AgreementOptions, Evidence, decide
from .rows import with_rows
from .summary import Evidences

MOST_NUMBERS = 64
"""Numbers of a row that are kept; what a row of more decides is not known."""


class Decisions(NamedTuple):
    """The decisions of one output for some rows.

    Attributes:
        values: classes (int64) for scores and shares, else the rows' values; `(n,)` or `(n, k)`, object for rows of
            which nothing is known.
        classes: the same for numbers that are scores of classes only if their label is a class; int64 `(n,)`, or None.
        confidences: the highest score of each row, float64 `(n,)`; None for outputs that are no scores.
        tolerance: by how much a number may differ from its label, relative to the label; 0 for classes.
    """

    values: np.ndarray
    classes: np.ndarray | None = None
    confidences: np.ndarray | None = None
    tolerance: float = 0.0


def decisions_of(
    outputs: Tensors, rows: int, options: AgreementOptions, evidence: Evidences
) -> Mapping[str, Decisions]:
    """Output name -> what it decides for each row.

    Args:
        outputs: name -> array of `rows` rows.
        rows: rows of the request.
        options: the user's options for the outputs.
        evidence: loss and activation of the outputs, from the versions' provenance.
    """
    if options.kind == RANDOM:  # which is about two answers; this is about one and its label
        options = replace(options, kind=None)
    arrays = ((name, with_rows(array, rows)) for name, array in outputs.items())
    return {
        name: _decisions(array, options, *evidence.get(name, (None, None)))
        for name, array in arrays
        if len(array) == rows
    }


def _decisions(array: np.ndarray, options: AgreementOptions, a: Evidence | None, b: Evidence | None) -> Decisions:
    rule = decide([(array, array)], options, (a, b))
    columns = math.prod(array.shape[1:])
    flat = array.reshape(len(array), columns)
    is_table = array.ndim == 2 and columns > 1
    if rule.judged_by == ARGMAX and is_table:
        return Decisions(flat.argmax(axis=1), confidences=flat.max(axis=1).astype(np.float64))
    if rule.judged_by in (HALF, SIGN) and columns == 1:
        numbers = flat[:, 0].astype(np.float64)
        is_positive = numbers >= (0.5 if rule.judged_by == HALF else 0.0)
        sure = np.where(is_positive, numbers, 1 - numbers) if rule.judged_by == HALF else None
        return Decisions(is_positive.astype(np.int64), confidences=sure)
    if columns > MOST_NUMBERS:
        return Decisions(np.full(len(array), None, dtype=object))
    values = flat[:, 0].copy() if columns == 1 else flat.copy()  # a view would keep the whole batch alive
    if rule.judged_by != NUMBERS:
        return Decisions(values)
    tolerance = DEFAULT_TOLERANCE if options.tolerance is None else options.tolerance
    return Decisions(values, _possible_classes(flat) if rule.is_guess and array.ndim <= 2 else None, None, tolerance)


def _possible_classes(numbers: np.ndarray) -> np.ndarray | None:
    """The classes that `(n, k)` numbers decide if they were scores; None for a column that is no share."""
    if numbers.shape[1] > 1:
        found: np.ndarray = numbers.argmax(axis=1)
        return found
    is_share = bool(((numbers >= 0) & (numbers <= 1)).all())
    return (numbers[:, 0] >= 0.5).astype(np.int64) if is_share else None


def are_right(decisions: Mapping[str, Decisions], output: str, label: Any, rows: int, what: str) -> np.ndarray:
    """Whether an output is right, bool `(n,)`: the label's class, or a number within the tolerance of the label.

    Args:
        decisions: of the outputs for some rows.
        output: the name of one.
        label: the right class, number or text of each row.
        rows: how many rows there are.
        what: what has these rows, for messages: `request 7`.

    Raises:
        InvalidRequest: if there is not one label for each row.
    """
    decided = decisions.get(output)
    if decided is None:
        known = ", ".join(decisions) or "none with rows of its own"
        raise InvalidRequest(f"{what} has no output {output!r}; it has {known}", hint="label={'NAME': 1}")
    labels = _labels_by_row(label)
    values = decided.values
    is_class = labels.dtype.kind in "iubf" and bool((labels == np.round(labels)).all())
    if decided.classes is not None and (is_class or labels.shape != values.shape):
        values = decided.classes
    if values.ndim == 2 and labels.size == values.size:  # the targets of a single row
        labels = labels.reshape(values.shape)
    if labels.shape != values.shape:
        shape = "one label" if labels.shape == (1,) else f"labels of shape {labels.shape}"
        raise InvalidRequest(
            f"{what} had {rows} rows, and {shape} came; it wants one label for each row",
            hint="in the order of the rows: a class, a number or a text each, no list of zeros and a one",
        )
    if labels.dtype == object and values.dtype.kind not in "USO":
        raise InvalidRequest(
            f"label {label!r} is text, and the prediction of {what} is a number",
            hint=f"the number of the right class, such as label={values[0]}",
        )
    if values is decided.values and decided.tolerance and labels.dtype.kind in "iuf":
        close = np.isclose(values, labels, rtol=decided.tolerance, atol=0.0)
        return np.asarray(close.reshape(rows, close.size // max(1, rows)).all(axis=1))
    if values.ndim == 2:
        return np.asarray((values == labels).all(axis=1))
    return np.array([bool(_as_text(value) == right) for value, right in zip(values, labels, strict=True)], dtype=bool)


def _labels_by_row(label: Any) -> np.ndarray:
    """Labels as an array of shape `(n,)` where that is possible."""
    try:
        labels = np.atleast_1d(np.asarray(label))
        if labels.dtype.kind in "SU":  # numpy's own types for text cut zero bytes off the end
            labels = np.atleast_1d(np.asarray(label, dtype=object))
    except ValueError as error:
        raise InvalidRequest(f"the labels are no regular array: {error}", hint="one label for each row") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return np.array([_as_text(value) for value in labels], dtype=object) if labels.dtype == object else labels


def _as_text(value: Any) -> Any:
    """Bytes as `str`, different ones as different ones: models predict bytes, users give labels as `str`."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
