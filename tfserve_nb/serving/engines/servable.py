"""A servable: what the core needs of a version that is loaded and can run.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...export.graph.effects import Effects
from ...types import SignatureDefs, SignatureSpec, Tensors


class Servable(Protocol):
    """What the core needs of a loaded version."""

    @property
    def signatures(self) -> Mapping[str, SignatureSpec]:
        """The signatures by name."""

    @property
    def signature_defs(self) -> SignatureDefs:
        """The signatures as the model's file has them."""

    @property
    def effects(self) -> Effects:
        """What running it does besides answering."""

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one batch: name -> array `(b, ...)` in, name -> array `(b, ...)` out."""

    def restore(self) -> None:
        """Make what runs changed what it was when the version was loaded. Once, and while nothing runs."""

    def close(self) -> None:
        """Free what the version holds."""


@runtime_checkable
class StoppableServable(Protocol):
    """A servable whose runs can be given up at their deadline."""

    @property
    def is_stoppable(self) -> bool:
        """Whether that has any effect on this one."""

    def run_within(self, signature: str, inputs: Tensors, limit_s: float) -> Tensors:
        """As `Servable.run`, but raises `DeadlineExceeded` when it is not done within `limit_s` seconds."""


@runtime_checkable
class SingleFileServable(Protocol):
    """A servable whose model is a file that one runtime alone can run."""

    @property
    def engine(self) -> str:
        """What that is called, such as `onnx`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What users have to know of that, one line each."""


Loader = Callable[[Path, str | None], Servable]
"""(version folder, device or None) -> servable."""
