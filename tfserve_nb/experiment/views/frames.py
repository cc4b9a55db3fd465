"""Disagreements as a table for further work.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any  # a DataFrame, where there is pandas

import numpy as np

from ...agreement.result import Disagreement


def frame_of(found: Sequence[Disagreement]) -> Any:
    """One row for each disagreement, the worst first.

    Args:
        found: rows of one signature.

    Returns:
        A pandas `DataFrame`; without pandas a dict of arrays of equal length. Columns: `score`, `at` (seconds since
        the epoch), the inputs by their names, and the outputs as `NAME_a` and `NAME_b`; an input that is named so too
        is called `NAME_in`. Cells hold numbers, texts, or arrays without the batch dimension.
    """
    columns = columns_of(found)
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame({name: list(values) if values.ndim > 1 else values for name, values in columns.items()})


def columns_of(found: Sequence[Disagreement]) -> dict[str, np.ndarray]:
    """The columns as arrays of shape `(n, ...)`; `object` where rows have different shapes."""
    columns = {
        "score": np.array([one.score for one in found], dtype=np.float64),
        "at": np.array([one.at for one in found], dtype=np.float64),
    }
    if not found:
        return columns
    arms = {"a": [one.outputs_a for one in found], "b": [one.outputs_b for one in found]}
    outputs = {
        f"{name}_{arm}": [tensors.get(name) for tensors in answers]
        for name in found[0].outputs_a
        for arm, answers in arms.items()
    }
    taken = {*columns, *outputs}
    for name in found[0].inputs:
        column = f"{name}_in" if name in taken else name
        columns[column] = _stacked([one.inputs.get(name) for one in found])
    return columns | {name: _stacked(rows) for name, rows in outputs.items()}


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray:
    """Rows of shape `(1, ...)` as one array; ragged ones as an array of objects."""
    known = [None if row is None else row[0] if row.ndim else row[()] for row in rows]
    kinds = {None if one is None else (np.shape(one), np.asarray(one).dtype) for one in known}
    if len(kinds) == 1 and None not in kinds:
        return np.stack([np.asarray(one) for one in known])
    found = np.empty(len(known), dtype=object)
    for place, one in enumerate(known):
        found[place] = one
    return found
