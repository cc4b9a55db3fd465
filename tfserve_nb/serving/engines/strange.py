"""Values that an engine treats otherwise than TensorFlow are left to TensorFlow.

A negative index is an error in TensorFlow and counts from the end in ONNX; NaN passes through some operations and not
through others. Such values are tried once, and where the answers differ, a look at the input decides for each run.
Inputs without any values never reach an engine: ONNX Runtime ends the process when an LSTM gets no rows.

Thread: any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ...errors import ServingError
from ...types import SignatureSpec, Tensors
from .compare import Run, difference
from .engine import Engine

NEGATIVE, NOT_FINITE = "negative", "not finite"


class LeftToTensorFlow(Exception):
    """An engine does not run these values."""


class GuardedEngine:
    """An engine that leaves some values to TensorFlow.

    Args:
        engine: runs all others.
        guards: input -> kinds of values.
    """

    def __init__(self, engine: Engine, guards: Mapping[str, Sequence[str]]) -> None:
        self.name, self.num_threads = engine.name, engine.num_threads
        self._engine = engine
        self._guards = [(name, _HOLDS[kind]) for name, kinds in guards.items() for kind in kinds]

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Engine.run`.

        Raises:
            LeftToTensorFlow: if an input holds such values, or none.
        """
        for array in inputs.values():
            if not array.size:
                raise LeftToTensorFlow("inputs without values are left to TensorFlow")
        for name, holds in self._guards:
            if holds(inputs[name]):
                raise LeftToTensorFlow(f"such values in {name} are left to TensorFlow")
        return self._engine.run(inputs)


def guards_for(signature: SignatureSpec, reference: Run, engine: Engine, batch: Tensors) -> dict[str, tuple[str, ...]]:
    """Input -> the kinds of values that an engine treats otherwise than TensorFlow.

    Args:
        signature: what is run.
        reference: TensorFlow.
        engine: agrees with it on usual values.
        batch: usual values.
    """
    found: dict[str, list[str]] = {}
    for name in signature.inputs:
        for kind, strange in strange_values(batch[name]):
            is_known = kind in found.get(name, ())
            if not is_known and not _is_same(reference, engine, {**batch, name: strange}):
                found.setdefault(name, []).append(kind)
    return {name: tuple(kinds) for name, kinds in found.items()}


def strange_values(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Copies of an input with one value of a kind in them: the kind, and the copy."""
    if not array.size:
        return
    values: tuple[tuple[str, float | int], ...] = ()
    if array.dtype.kind == "f":
        values = ((NOT_FINITE, np.nan), (NOT_FINITE, np.inf), (NOT_FINITE, -np.inf))
    elif array.dtype.kind == "i":
        values = ((NEGATIVE, -1), (NEGATIVE, int(np.iinfo(array.dtype).min)))
    for kind, value in values:
        changed = array.copy()
        changed.flat[0] = value
        yield kind, changed


def _is_same(reference: Run, engine: Engine, inputs: Tensors) -> bool:
    try:
        expected = reference(inputs)
    except ServingError:
        try:
            engine.run(inputs)
        except Exception:  # noqa: BLE001 - runtimes raise types of their own
            return True  # TensorFlow is asked for the error then
        return False
    return not difference(engine, inputs, expected)


def _is_not_finite(array: np.ndarray) -> bool:
    """One pass, as fast as there is one; numbers whose squares overflow are left to TensorFlow too."""
    flat = array.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return not math.isfinite(flat.sum(dtype=np.float32) if array.dtype == np.float16 else np.dot(flat, flat))


_HOLDS: Mapping[str, Callable[[np.ndarray], bool]] = {
    NEGATIVE: lambda array: bool(array.min() < 0),
    NOT_FINITE: _is_not_finite,
}
