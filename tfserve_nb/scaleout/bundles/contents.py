"""What a bundle holds: models, their versions on this machine, labels, and how they batch. Values only.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InvalidOption
from ...serving.batching.options import BatchingOptions
from ...serving.telemetry.capture import CapturedRequests
from ...types import PLAIN


@dataclass(frozen=True, slots=True)
class Batching:
    """How the other server batches.

    Attributes:
        options: the limits; None where requests are not put together.
        origin: where that comes from, in words: what was measured, or that it is a default.
        text: the `BatchingParameters` that was given, word for word; "" to write one from `options`.
    """

    options: BatchingOptions | None
    origin: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class BundledVersion:
    """One version.

    Attributes:
        number: its number.
        folder: its folder on this machine, which is only read.
        file: `model.onnx` or `model.tflite` of a version that is such a file; "" for a SavedModel.
        variant: what it is stored as, such as `float16`.
        engine: what runs it here: `tensorflow`, `onnx` or `litert`.
        alone: signature -> why its rows never share a run with those of other requests.
    """

    number: int
    folder: Path
    file: str = ""
    variant: str = PLAIN
    engine: str = "tensorflow"
    alone: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One model.

    Attributes:
        name: the name that clients use.
        versions: by increasing number, at least one.
        labels: label -> number of a version that is bundled.
        default_version: the promoted one; the highest where none is.
        traffic: number -> percent of the requests that name no version.
        model_dir: the folder that holds the version folders, on this machine.
        captured: requests that can warm up versions without a warm-up file; or None.
    """

    name: str
    versions: tuple[BundledVersion, ...]
    labels: Mapping[str, int]
    default_version: int
    traffic: Mapping[int, float]
    model_dir: Path
    captured: CapturedRequests | None = field(default=None, compare=False, repr=False)

    def version(self, number: int) -> BundledVersion:
        """The version of this number, which must be bundled."""
        return next(one for one in self.versions if one.number == number)

    @property
    def default(self) -> BundledVersion:
        """The promoted version."""
        return self.version(self.default_version)

    @property
    def served(self) -> tuple[BundledVersion, ...]:
        """The versions up to the promoted one: servers that answer with the highest version answer with that one."""
        return tuple(one for one in self.versions if one.number <= self.default_version)


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What a bundle is made of.

    Attributes:
        models: by name, at least one.
        batching: how they batch.
    """

    models: tuple[BundledModel, ...]
    batching: Batching

    @property
    def model(self) -> BundledModel:
        """The only model.

        Raises:
            InvalidOption: if there are several.
        """
        if len(self.models) > 1:
            names = ", ".join(model.name for model in self.models)
            raise InvalidOption(
                f"this target takes one model; these are {names}", hint="--model_name and --model_base_path"
            )
        return self.models[0]

    @property
    def title(self) -> str:
        """What it is called where one name is needed: the model's name, or those of all."""
        return "-".join(model.name for model in self.models)
