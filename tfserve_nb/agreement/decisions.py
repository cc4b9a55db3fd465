"""The decisions of a version for each row, to be compared with its label once that is known.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

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
