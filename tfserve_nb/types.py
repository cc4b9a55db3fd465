"""The vocabulary that the layers share: tensors, signatures, versions and their states.

Thread: any; everything here is immutable.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Tensors: TypeAlias = Mapping[str, np.ndarray]
"""Input or output name -> array; arrays that crossed a thread are read-only by convention."""

Shape: TypeAlias = tuple[int | None, ...]
"""Dimensions with None for the unknown ones."""

DEFAULT_SIGNATURE = "serving_default"

_NUMBER = re.compile(r"([0-9]+)")
_TF_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}


def tf_name(dtype: str) -> str:
    """TensorFlow's word for a dtype in its messages, such as `float` for `float32`; others have the same name."""
    return _TF_NAMES.get(dtype, dtype)


@lru_cache(maxsize=64)
def numpy_dtype(name: str) -> np.dtype:
    """The numpy type for TensorFlow's name of a type; strings travel as `object` arrays of `bytes`.

    Raises:
        TypeError: if numpy has no such type, also not with `ml_dtypes`.
    """
    if name == "string":
        return np.dtype(object)
    try:
        return np.dtype(name)
    except TypeError:
        # numpy knows `bfloat16` and the like once this is imported, which TensorFlow does and workers do not.
        import ml_dtypes  # noqa: F401

        return np.dtype(name)


def array_of(value: Any) -> np.ndarray:
    """The array of a tensor, or of what a session returned.

    Text without dimensions comes as `bytes`, and numpy's own type for text would cut zero bytes off its end.
    """
    is_text = isinstance(value, bytes) or getattr(getattr(value, "dtype", None), "name", "") == "string"
    return np.asarray(value, dtype=object if is_text else None)


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people count.

    Example:
        >>> in_order(["output_10", "output_2", "a"])
        ['a', 'output_2', 'output_10']
    """

    def parts(name: str) -> tuple[list[tuple[int, str]], str]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(name)], name

    return sorted(names, key=parts)


class VersionState(enum.Enum):
    """The states of a servable version, one way only, as TensorFlow Serving publishes them.

    Reference: tensorflow_serving/core/servable_state.h and apis/get_model_status.proto (the numbers).
    """

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        name: the name that clients use (the signature's key).
        dtype: TensorFlow's name of the type, such as `float32`, `int64`, `string`, `bool`.
        shape: dimensions, None where unknown; None altogether for an unknown rank.
        tensor_name: the tensor in the SavedModel's graph, such as `serving_default_x:0`.
    """

    name: str
    dtype: str
    shape: Shape | None
    tensor_name: str = ""

    @property
    def numpy_dtype(self) -> np.dtype:
        """The numpy type of arrays for this tensor; strings travel as `object` arrays of `bytes`."""
        return numpy_dtype(self.dtype)

    @property
    def is_batched(self) -> bool:
        """Whether dimension 0 is free, so that rows of several requests can share a run."""
        return self.shape is None or (len(self.shape) > 0 and self.shape[0] is None)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    """A signature of a SavedModel: what it takes and what it gives.

    Attributes:
        name: such as `serving_default`.
        inputs: name -> spec.
        outputs: name -> spec.
        method_name: such as `tensorflow/serving/predict`.
        defaults: input name -> the array that stands in for it when a request leaves it out.
        order: the inputs as a list of them is taken, `model([a, b])`; empty when there is one, or that is not known.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"
    defaults: Tensors = field(default_factory=dict, compare=False)
    order: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class SignatureDefs:
    """All signatures of a SavedModel as TensorFlow wrote them, for clients that ask for a model's metadata.

    Attributes:
        proto: a serialized `tensorflow.serving.SignatureDefMap`.
        json: the same in protobuf's JSON: `{"signature_def": {name: {"inputs": ..., ...}}}`.
        platform: what the Open Inference Protocol calls the model's file.
    """

    proto: bytes
    json: Mapping[str, Any]
    platform: str = "tensorflow_savedmodel"


@dataclass(frozen=True, slots=True)
class EngineMeasurement:
    """What is known of one engine, for one signature and batch size, on the machine that serves.

    Attributes:
        engine: `tensorflow`, `onnx` or `litert`.
        signature: the signature's name.
        batch_size: rows of a run; 0 for an engine that ran none.
        ms: the median time of a run, in milliseconds; None where none was measured.
        agrees: whether its outputs are TensorFlow's, for every row and batch size that was tried; None where nothing
            was compared, since it could not be converted or loaded, or no rows are known that the model can run.
        reason: why it was not chosen, in words; "" for the one that answers.
        is_chosen: whether it answers.
    """

    engine: str
    signature: str
    batch_size: int
    ms: float | None
    agrees: bool | None
    reason: str = ""
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class VariantMeasurement:
    """What is known of one variant of a model, run by one engine, on this machine.

    Attributes:
        variant: its name, such as `int8`.
        engine: what ran it: `tensorflow`, `onnx` or `litert`.
        disk_bytes: size of the version's files, those of the engine included; 0 when it was not made.
        memory_bytes: what loading it and running it added to the memory of a process; None when it was not loaded.
        load_s: from its files to the first answer, in seconds.
        ms: rows of a run -> median time of such a run, in milliseconds.
        agreement: the share of the rows on which it predicts what the model does, 0 to 1; None when that is not known.
        largest_difference: of any two numbers of both outputs, on these rows.
        accuracy: the share of the rows for which it predicts the label; None without labels.
        in_tensorflow_serving: whether TensorFlow Serving runs it so: what TensorFlow runs, and no other engine.
        reason: why it was not made, does not run or is refused, in words; "" where it may be deployed.
        is_usable: whether it may be deployed.
        is_chosen: whether `--optimize auto` takes it.
    """

    variant: str
    engine: str
    disk_bytes: int = 0
    memory_bytes: int | None = None
    load_s: float | None = None
    ms: Mapping[int, float] = field(default_factory=dict)
    agreement: float | None = None
    largest_difference: float | None = None
    accuracy: float | None = None
    in_tensorflow_serving: bool = True
    reason: str = ""
    is_usable: bool = True
    is_chosen: bool = False


PLAIN = "float32"
"""What a version is stored as that is no variant: as it was exported, whatever its types are."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What is known of one version of a model: a snapshot, not a promise.

    Attributes:
        version: the number of the folder.
        state: the state at the moment of the snapshot.
        error_code: `OK`, or the gRPC code name of what ended the version.
        error_message: public text for `error_code`.
        detail: progress in words while LOADING, such as `warming up`; later a run that takes long or hangs.
        done: how many parts of what `detail` names are done.
        total: how many parts it has, 1 when that is not known.
        deployed_at: seconds since the epoch (wall clock, for display), or None when unknown.
        weights_bytes: size of the loaded version's files, in bytes, which is about what its weights take in memory; 0
            when it is not loaded.
        changes: what a run of the loaded version leaves behind, in words: in its own state, in files or elsewhere; ""
            for most models. It gets neither copies of requests nor replays.
        draws: signature -> why its answers to the same request differ each time, in words; without those that do not.
        problem: why it is given no requests although it is loaded: all rows that were tried failed; or "".
        notes: what users have to know of the loaded version, one line each.
        variant: what it is stored as: `PLAIN`, or a variant such as `float16`.
        engine: what runs requests that name no signature: `tensorflow`, `onnx` or `litert`.
        engines: what was measured of the engines when one was to be chosen; empty while only TensorFlow was asked for.
        batching: the limits of its batch queues, with the names of `BatchingOptions`; empty when it is not loaded.
    """

    version: int
    state: VersionState
    error_code: str = "OK"
    error_message: str = ""
    detail: str = ""
    deployed_at: float | None = None
    weights_bytes: int = 0
    done: int = 0
    total: int = 1
    changes: str = ""
    draws: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    notes: tuple[str, ...] = ()
    alone: Mapping[str, str] = field(default_factory=dict)
    variant: str = PLAIN
    engine: str = "tensorflow"
    engines: tuple[EngineMeasurement, ...] = ()
    batching: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named_variant(self) -> str:
        """The variant; "" for a plain version, of which nothing has to be said."""
        return "" if self.variant == PLAIN else self.variant


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What one model serves: a snapshot.

    Attributes:
        name: the model's name.
        versions: newest first, the ended ones included.
        default_version: the promoted version, or None while nothing serves.
        traffic: version -> percent (sums to 100) for requests that name no version.
        labels: label -> version.
        problem: one line about something that needs a person, such as a state file that cannot be written; or empty.
        on_disk: the versions in the model's folder, loaded or not, in increasing order.
        shadow: the version that gets copies of requests, and the percentage that is copied; or None.
        key_header: the header (gRPC: metadata) whose value keeps a client with its version.
        base_path: the folder that the versions lie in, on the server's machine.
        highest_version: the highest version that was ever served; 0 when there is none.
        used: the loaded versions that traffic, a label or the stage needs, in increasing order.
    """

    name: str
    versions: tuple[VersionStatus, ...]
    default_version: int | None
    traffic: Mapping[int, float]
    labels: Mapping[str, int]
    problem: str = ""
    on_disk: tuple[int, ...] = ()
    shadow: tuple[int, float] | None = None
    key_header: str = "x-tfserve-key"
    base_path: Path | None = None
    highest_version: int = 0
    used: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """A step of a long operation, for a bar or a line in a terminal.

    Attributes:
        phase: `exporting`, `checking`, `optimizing`, `converting`, `measuring`, `loading`, `warming up`, `replaying`,
            `waiting`, `comparing`, `starting Ray`, `starting replicas`, `answering`, `switching`, `done`.
        done: how many parts of the phase are done.
        total: how many parts the phase has (1 when it cannot be divided).
        detail: one line of plain text, may be empty: what is worked on, or of a phase that is done what came out.
        version: the version that was deployed, with the last step of a deploy.
    """

    phase: str
    done: int
    total: int
    detail: str = ""
    version: int | None = None


Progress: TypeAlias = Callable[[ProgressEvent], None]
"""Called with each step of a long operation, on the thread that began it."""


def no_progress(_: ProgressEvent) -> None:
    """A `Progress` that does nothing."""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of a model's stored history: who did what, and when.

    Attributes:
        at: seconds since the epoch (wall clock, for display).
        action: such as `deploy`, `promote`, `rollback`, `label`, `traffic`, `unload`, `undeploy`, `resume`.
        version: the version it was about, or None.
        detail: one line of plain text.
        actor: who, such as `alice (kernel 4711)`.
    """

    at: float
    action: str
    version: int | None
    detail: str
    actor: str
