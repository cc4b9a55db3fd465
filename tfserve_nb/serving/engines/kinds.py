"""The engines that there are.

Thread: any; immutable.
"""

from __future__ import annotations

from ...errors import InvalidOption
from . import litert, onnx
from .engine import AUTO, TENSORFLOW, EngineKind

KINDS: dict[str, EngineKind] = {kind.name: kind for kind in (onnx.KIND, litert.KIND)}
"""Name -> engine."""

NAMES = (TENSORFLOW, AUTO, *KINDS)
"""What `engine=` may be."""


def wanted_kinds(engine: str) -> list[EngineKind]:
    """The engines that are tried when `engine` was asked for, installed or not."""
    return [kind for kind in KINDS.values() if engine in (AUTO, kind.name)]


def check_engine(name: object) -> str:
    """The name of an engine as it was given, if there is such an engine.

    Raises:
        InvalidOption: naming those that there are.
    """
    if name not in NAMES:
        raise InvalidOption(f"engine={name!r} must be one of {', '.join(NAMES)}", hint=f"--engine {AUTO}")
    return str(name)


def check_installed(name: str) -> None:
    """Refuse an engine that was asked for by its name and is not installed.

    Raises:
        InvalidOption: with what installs it.
    """
    kind = KINDS.get(name)
    if kind is not None and kind.missing:
        raise InvalidOption(f"engine={name!r}: {name} is not installed", hint=kind.installation)


def check_single_file(runtime: str, wanted: str | None, model: str) -> None:
    """Refuse another engine than the one that alone can run a model.

    Args:
        runtime: that one.
        wanted: what was asked for; None to measure those that there are.
        model: what it is called in messages.

    Raises:
        InvalidOption: naming both.
    """
    if wanted not in (AUTO, runtime):
        what = "there is nothing to measure it against" if wanted is None else f"not {wanted}"
        raise InvalidOption(
            f"{model} is run by {runtime} alone, {what}", hint=f"leave --engine out, or --engine {runtime}"
        )
