"""Versions with known faults: slow, failing, drifting, or answering with NaN, from a moment that the test chooses.

`y = 2 x`, row by row, without TensorFlow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfserve_nb.errors import RunFailed
from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.types import SignatureDefs, SignatureSpec, Tensors, TensorSpec

RUN_S = 0.0005

Fault = Callable[[np.ndarray], np.ndarray]
"""What happens to the outputs of a run."""


def signature(width: int = 2, name: str = "y") -> SignatureSpec:
    """Takes `(None, width)` numbers and gives as many."""
    return SignatureSpec(
        "serving_default",
        inputs={"x": TensorSpec("x", "float32", (None, width))},
        outputs={name: TensorSpec(name, "float32", (None, width))},
    )


def fine(outputs: np.ndarray) -> np.ndarray:
    """No fault."""
    return outputs


def slow(outputs: np.ndarray) -> np.ndarray:
    """Five times the time."""
    time.sleep(4 * RUN_S)
    return outputs


def nan(outputs: np.ndarray) -> np.ndarray:
    """Not a number."""
    return np.full_like(outputs, np.nan)


def raising(_: np.ndarray) -> np.ndarray:
    """Every run fails."""
    raise RunFailed("injected")


def far(outputs: np.ndarray) -> np.ndarray:
    """Numbers that no version gave before."""
    return outputs * 100


def drifting(outputs: np.ndarray) -> np.ndarray:
    """The other class wins."""
    return outputs[:, ::-1].copy()


class FaultyServable:
    """A version.

    Args:
        spec: its signature.
        fault: what happens to its outputs, once `is_on` is set.
        is_on: when.
    """

    def __init__(self, spec: SignatureSpec, fault: Fault, is_on: threading.Event) -> None:
        self.signatures = {spec.name: spec}
        self.signature_defs = SignatureDefs(b"", {"signature_def": {}})
        self.effects = Effects()
        self._spec = spec
        self._fault = fault
        self._is_on = is_on

    def run(self, _: str, inputs: Tensors) -> Tensors:
        time.sleep(RUN_S)
        outputs = inputs["x"] * 2
        (name,) = self._spec.outputs
        return {name: self._fault(outputs) if self._is_on.is_set() else outputs}

    def restore(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Nothing is held."""


class FaultyLoader:
    """Loads versions by the number of their folder.

    Args:
        faults: version -> its fault.
        signatures: version -> its signature, when it has another one.

    Attributes:
        is_on: sets the faults off.
    """

    def __init__(
        self, faults: dict[int, Fault] | None = None, signatures: dict[int, SignatureSpec] | None = None
    ) -> None:
        self._faults = faults or {}
        self._signatures = signatures or {}
        self.is_on = threading.Event()

    def __call__(self, path: Path, _: str | None) -> FaultyServable:
        version = int(path.name)
        spec = self._signatures.get(version, signature())
        return FaultyServable(spec, self._faults.get(version, fine), self.is_on)
