"""Models that were made for a fixed number of rows; those for a single row answer any number, one after the other.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ....types import SignatureSpec, Tensors, TensorSpec


def built_in_rows(signature: SignatureSpec) -> int | None:
    """The number of rows that is built in: dimension 0 of all inputs and outputs; None when it is free."""
    specs = (*signature.inputs.values(), *signature.outputs.values())
    sizes = {spec.shape[0] if spec.shape else None for spec in specs}
    return sizes.pop() if len(sizes) == 1 else None


def with_free_rows(signature: SignatureSpec) -> SignatureSpec:
    """The same signature with a free dimension 0 everywhere."""

    def freed(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {name: replace(one, shape=(None, *(one.shape or (None,))[1:])) for name, one in specs.items()}

    return replace(signature, inputs=freed(signature.inputs), outputs=freed(signature.outputs))


def run_row_by_row(run: Callable[[Tensors], Tensors], signature: SignatureSpec, inputs: Tensors) -> Tensors:
    """Run a model for a single row once for each row.

    Args:
        run: runs it.
        signature: with its own shapes.
        inputs: name -> array `(n, ...)`.
    """
    num_rows = len(next(iter(inputs.values())))
    rows = [run({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(num_rows)]
    return {name: _joined([row[name] for row in rows], spec) for name, spec in signature.outputs.items()}


def _joined(rows: list[np.ndarray], spec: TensorSpec) -> np.ndarray:
    if not rows:
        return np.empty((0, *(size or 0 for size in (spec.shape or ())[1:])), spec.numpy_dtype)
    return np.concatenate(rows)
