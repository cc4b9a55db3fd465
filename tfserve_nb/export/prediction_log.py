"""Requests on disk: TFRecord files of TensorFlow Serving's `PredictionLog`.

The same records warm a version up, see `warmup_requests`.

Thread: each writer belongs to one thread; functions any.

Reference: tensorflow_serving/apis/prediction_log.proto and input.proto.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO  # Any: protobuf messages

import numpy as np

from ..protos.records import write_record
from ..protos.tensors import fill
from ..types import Tensors
from .reasons import disk_reason

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FILES = 16


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One request with its outputs.

    Attributes:
        api: `predict`, `classify` or `regress`.
        model: the model's name.
        version: the version that ran it.
        signature: the signature's name.
        inputs: name -> array; for classify and regress the one array holds serialized `tf.Example`s.
        outputs: name -> array.
        at: seconds since the epoch.
        sampling_rate: the share of requests that are logged.
    """

    api: str
    model: str
    version: int
    signature: str
    inputs: Tensors
    outputs: Tensors
    at: float
    sampling_rate: float


def to_message(call: LoggedCall) -> Any:
    """The `PredictionLog` of a call."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    log = PredictionLog()
    metadata = log.log_metadata
    metadata.timestamp_secs = int(call.at)
    metadata.sampling_config.sampling_rate = call.sampling_rate
    metadata.saved_model_tags.append("serve")
    kind = getattr(log, f"{call.api}_log")
    for spec in (metadata.model_spec, kind.request.model_spec, kind.response.model_spec):
        spec.name, spec.signature_name, spec.version.value = call.model, call.signature, call.version
    if call.api == "predict":
        _fill_predict(kind, call)
    else:
        _fill_examples(kind, call)
    return log


def fill_tensor(proto: Any, array: np.ndarray) -> None:
    """Write an array into an empty `TensorProto` as TensorFlow does: numbers as `tensor_content`, texts one by one."""
    fill(proto, array, as_content=array.dtype.kind not in "OSU")


def serialized_examples(value: Any) -> np.ndarray:
    """The examples of a `tensorflow.serving.Input`, each with its context, as serialized `tf.Example`s.

    Args:
        value: an `Input` message.

    Returns:
        object array `(n,)` of bytes; n is 0 for an input without examples.
    """
    kind = value.WhichOneof("kind")
    if kind == "example_list_with_context":
        group = value.example_list_with_context
        # Two serialized messages, one after the other, are their merger.
        context = group.context.SerializeToString()
        texts = [context + example.SerializeToString() for example in group.examples]
    else:
        texts = [example.SerializeToString() for example in value.example_list.examples]
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


class RotatingWriter:
    """Writes records into files of bounded size, and keeps the newest of its files.

    Files hold whole records only, also when the disk is full, and older ones go only for records that newer ones hold.

    Args:
        prefix: path and start of the files' names; its folder is made.
        max_bytes: size after which the next file is begun.
        max_files: how many of its own files stay; more, when a full disk ended some of them early.
    """

    def __init__(self, prefix: str, *, max_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._sizes: dict[Path, int] = {}  # of the whole records in each file, oldest first
        self._num_files = 0
        self._path: Path | None = None
        self._writer: BinaryIO | None = None

    def write(self, record: bytes) -> None:
        """Append one record; it is in the file when this returns.

        Raises:
            OSError: if it cannot be written.
        """
        path = self._path
        if path is None or self._sizes[path] >= self._max_bytes:
            path = self._begin()
        try:
            self._append(path, record)
        except Exception as error:
            self._give_up(path)
            raise OSError(f"{self._prefix}: {disk_reason(error) or error}") from error
        self._sizes[path] = path.stat().st_size
        self._remove_oldest()

    def close(self) -> None:
        """Close the file; the next record begins another. Idempotent."""
        writer, self._writer, self._path = self._writer, None, None
        if writer is not None:
            writer.close()

    def _begin(self) -> Path:
        """Make the next file."""
        self.close()
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = Path(f"{self._prefix}-{stamp}-{os.getpid()}-{self._num_files + 1:04d}.tfrecord")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._num_files += 1
        self._path, self._sizes[path] = path, 0
        return path

    def _append(self, path: Path, record: bytes) -> None:
        if self._writer is None:
            self._writer = path.open("ab")
        write_record(self._writer, record)
        self._writer.flush()

    def _give_up(self, path: Path) -> None:
        """Leave the records that are whole in the file, or no file."""
        with contextlib.suppress(Exception):  # it may try once more to write what it could not write
            self.close()
        with contextlib.suppress(OSError):
            if self._sizes[path]:
                os.truncate(path, self._sizes[path])
            else:
                del self._sizes[path]
                path.unlink()

    def _remove_oldest(self) -> None:
        while sum(min(size, self._max_bytes) for size in self._sizes.values()) > self._max_files * self._max_bytes:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            oldest.unlink(missing_ok=True)


def _fill_predict(log: Any, call: LoggedCall) -> None:
    for target, tensors in ((log.request.inputs, call.inputs), (log.response.outputs, call.outputs)):
        for name, array in tensors.items():
            fill_tensor(target[name], array)


def _fill_examples(log: Any, call: LoggedCall) -> None:
    (serialized,) = call.inputs.values()
    for text in serialized:
        log.request.input.example_list.examples.add().ParseFromString(text)
    if call.api == "regress":
        (values,) = call.outputs.values()
        for value in values.reshape(-1).tolist():
            log.response.result.regressions.add(value=value)
        return
    labels, scores = call.outputs.get("classes"), call.outputs.get("scores")
    shape = (scores if scores is not None else labels).shape if call.outputs else (0, 0)  # type: ignore[union-attr]
    for row in np.ndindex(*shape[:1]):
        row_classes = log.response.result.classifications.add()
        for column in range(shape[1]):
            index = (*row, column)
            row_classes.classes.add(
                label="" if labels is None else bytes(labels[index]).decode("utf-8", "replace"),
                score=0.0 if scores is None else float(scores[index]),
            )
