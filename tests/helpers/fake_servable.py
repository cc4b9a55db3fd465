"""A servable without TensorFlow, and an example of how to stand in for one: `y = 2 x + version`, row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tfserve_nb.errors import NotAvailable, RunRejected
from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.types import SignatureDefs, SignatureSpec, Tensors, TensorSpec

BAD = -1000.0
"""A value that the fake model cannot run."""

SIGNATURE = SignatureSpec(
    "serving_default",
    inputs={"x": TensorSpec("x", "float32", (None, 2))},
    outputs={"y": TensorSpec("y", "float32", (None, 2))},
)


class FakeServable:
    """Doubles its input and adds the version.

    Args:
        version: what is added.
        problem: when given, every run fails with it.
        gate: when given, each run waits until it is set (at most 60 s).
    """

    def __init__(self, version: int, gate: threading.Event | None = None, problem: str = "") -> None:
        self.signatures: Mapping[str, SignatureSpec] = {"serving_default": SIGNATURE}
        self.signature_defs = SignatureDefs(b"", {"signature_def": {}})
        self.effects = Effects()
        self.version = version
        self.gate = gate
        self.problem = problem
        self.batch_sizes: list[int] = []
        self.has_begun = threading.Event()
        self.is_closed = False

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        assert not self.is_closed, "run after close"
        assert signature == "serving_default"
        self.has_begun.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.problem:
            raise RunRejected(self.problem)
        self.batch_sizes.append(len(inputs["x"]))
        if (inputs["x"] == BAD).any():
            raise RunRejected("bad value")
        return {"y": inputs["x"] * 2 + self.version}

    def restore(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class FakeLoader:
    """Loads `FakeServable`s by the number of their folder; remembers them.

    Those of `broken` fail to load, and those of `problems` load and fail whenever they run.

    Args:
        before_load: called with the version before it is loaded, may wait or raise.
    """

    def __init__(self, before_load: Callable[[int], None] = lambda _: None) -> None:
        self.loaded: dict[int, FakeServable] = {}
        self.broken: set[int] = set()
        self.problems: dict[int, str] = {}
        self._before_load = before_load

    def __call__(self, path: Path, device: str | None) -> FakeServable:
        del device
        version = int(path.name)
        self._before_load(version)
        if version in self.broken:
            raise NotAvailable(f"{path.name} is broken")
        self.loaded[version] = FakeServable(version, problem=self.problems.get(version, ""))
        return self.loaded[version]


def rows(*values: float) -> np.ndarray:
    """One row of two equal numbers for each value, float32 `(n, 2)`."""
    return np.repeat(np.asarray(values, dtype=np.float32)[:, None], 2, axis=1)
