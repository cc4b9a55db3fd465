"""An engine: runs one signature of a version in TensorFlow's place, from a file that was converted from the SavedModel.

The SavedModel stays the truth: an engine that was not seen to agree with TensorFlow is not used, and what an engine
cannot run, TensorFlow runs.

Thread: any.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...types import SignatureSpec, Tensors

TENSORFLOW = "tensorflow"
"""TensorFlow's own session: what runs a version unless an engine was asked for."""

AUTO = "auto"
"""The fastest on this machine of those that agree with TensorFlow."""

_GPU = re.compile(r"GPU:(\d+)$", re.IGNORECASE)

_NUMBERS = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)


class Engine(Protocol):
    """Runs one signature. It is freed when the last reference to it goes.

    Attributes:
        name: what users call it.
        num_threads: of one run.
    """

    name: str
    num_threads: int

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch, as `Servable.run`; may be called from several threads. Raises whatever the runtime raises."""


@dataclass(frozen=True, slots=True)
class EngineKind:
    """What is known of an engine before anything is converted.

    Attributes:
        name: what users call it.
        extra: the extra of this package that installs it.
        packages: the distributions whose versions matter to what was converted.
        runtime: the module that runs it.
        converter: the module that converts for it.
        suffix: of its files.
        needs_sizes: whether it needs memory, and time, for each batch size that it meets for the first time.
        load: makes an engine of a file: (file, signature, number of threads, number of the GPU or None); one that
            cannot use the GPU runs on the processor.
        options: what the converter is told beside the graph.
    """

    name: str
    extra: str
    packages: tuple[str, ...]
    runtime: str
    converter: str
    suffix: str
    needs_sizes: bool
    load: Callable[[Path, SignatureSpec, int, int | None], Engine]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """Why it cannot be used here, in words; "" when it is installed."""
        return "" if importlib.util.find_spec(self.runtime) else f"{self.name} is not installed: {self.installation}"

    @property
    def missing_converter(self) -> str:
        """Why nothing can be converted for it here, in words; "" when it can be."""
        is_there = importlib.util.find_spec(self.converter)
        return "" if is_there else f"{self.converter} is not installed: {self.installation}"

    @property
    def installation(self) -> str:
        """What installs it."""
        return f"pip install 'tfserve_nb[{self.extra}]'"


def versions_of(kinds: Iterable[EngineKind]) -> dict[str, str]:
    """Distribution -> installed version, of those that engines are made of."""
    found = {}
    for name in sorted({package for kind in kinds for package in kind.packages}):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def num_threads(num_runs: int = 1) -> int:
    """Threads of one run: the cores that this process may use, shared by the runs that may go on at the same time.

    Args:
        num_runs: how many those are.
    """
    return max(1, len(os.sched_getaffinity(0)) // max(1, num_runs))


def gpu_of(device: str | None) -> int | None:
    """The number of the GPU that a TensorFlow device names, such as `/GPU:0`; None for the processor and for None."""
    found = _GPU.search(device or "")
    return None if found is None else int(found.group(1))


def unsuited(signature: SignatureSpec) -> str:
    """Why no engine is tried for a signature, in words; "" when some may suit."""
    if not signature.inputs:
        return "it has no inputs"
    for role, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if spec.dtype not in _NUMBERS:
                kind = "text" if spec.dtype == "string" else spec.dtype
                return f"{role} {spec.name!r} is {kind}, which only TensorFlow runs"
    return ""
