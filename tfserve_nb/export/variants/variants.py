"""The variants that there are: what each is, what it needs, who loads it, and whether it can be made here.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...errors import InvalidOption
from ...types import PLAIN
from . import bfloat16, tflite


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A form of a version that is smaller or faster, and whose answers may differ a little.

    Attributes:
        name: the value of `--optimize`.
        does: what is done, in one sentence.
        needs_rows: whether it is made from rows of the user.
        needs_model: whether it is made from the model in memory; the others are made from a version's folder.
        is_exact: whether its answers should be those of the plain version but for the order of sums.
        loads_in_tensorflow_serving: whether TensorFlow Serving loads it as it is started by default.
        runtime: the engine that alone runs it; "" for TensorFlow, and engines made from its SavedModel.
        find_missing: finds what this machine lacks to make or run it, in words; "" for nothing.
    """

    name: str
    does: str
    needs_rows: bool = False
    needs_model: bool = False
    is_exact: bool = False
    loads_in_tensorflow_serving: bool = True
    runtime: str = ""
    find_missing: Callable[[], str] = _nothing

    @property
    def missing(self) -> str:
        """What this machine lacks to make or run it, in words; "" for nothing."""
        return self.find_missing()


VARIANTS: dict[str, Variant] = {
    one.name: one
    for one in (
        Variant(PLAIN, "The model as it is, each weight once.", is_exact=True),
        Variant("float16", "Weights are stored as float16, half as large, and unpacked to float32 when loaded."),
        Variant("int8", "Weights are stored as int8, a quarter as large, and unpacked to float32 when loaded."),
        Variant("xla", "The graph is compiled by XLA, once for each batch size.", is_exact=True),
        Variant(
            "bfloat16",
            "A copy of the Keras model computes in bfloat16, with float32 weights: Keras' mixed precision.",
            needs_model=True,
            find_missing=bfloat16.missing,
        ),
        Variant(
            "tflite-int8",
            "LiteRT computes in int8, whose ranges are found from real rows; float32 in and out.",
            needs_rows=True,
            loads_in_tensorflow_serving=False,
            runtime="litert",
            find_missing=tflite.missing,
        ),
    )
}
"""Name -> variant, the plain version first."""


def check_variant(name: object) -> str:
    """The name of a variant as it was given, if there is one.

    Raises:
        InvalidOption: naming those that there are.
    """
    if name not in VARIANTS:
        raise InvalidOption(f"optimize={name!r} must be one of {', '.join(VARIANTS)}, auto", hint="--optimize float16")
    return str(name)


def no_variants_of(description: str) -> InvalidOption:
    """The error for a model that is a single file.

    Args:
        description: the model in words.
    """
    return InvalidOption(
        f"variants are made of SavedModels, and {description} is served as it is",
        hint="make a smaller file with the tools of its format, and deploy that",
    )


def check_possible(name: str) -> None:
    """Refuse a variant that cannot be made or run on this machine.

    Raises:
        InvalidOption: with the reason.
    """
    missing = VARIANTS[name].missing
    if missing:
        raise InvalidOption(f"optimize={name!r}: {missing}", hint="--optimize float16")
