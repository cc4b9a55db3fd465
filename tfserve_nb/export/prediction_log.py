"""Requests on disk: TFRecord files of TensorFlow Serving's `PredictionLog`.

The same records warm a version up, see `warmup_requests`.

Thread: each writer belongs to one thread; functions any.

Reference: tensorflow_serving/apis/prediction_log.proto and input.proto.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # protobuf messages

import numpy as np

from ..types import Tensors

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

    Args:
        prefix: path and start of the files' names; its folder is made.
        max_bytes: size after which the next file is begun.
        max_files: how many of its own files stay.
    """

    def __init__(self, prefix: str, *, max_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._files: deque[Path] = deque()
        self._num_files = 0
        self._num_bytes = 0
        self._writer: Any = None

    def write(self, record: bytes) -> None:
        """Append one record; it is in the file when this returns.

        Raises:
            OSError: if it cannot be written.
        """
        if self._writer is None or self._num_bytes >= self._max_bytes:
            self._begin()
        try:
            self._writer.write(record)
            self._writer.flush()
        except Exception as error:
            self.close()
            raise OSError(f"{self._files[-1]}: {error}") from error
        self._num_bytes += len(record)

    def close(self) -> None:
        """Close the file; the next record begins another. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _begin(self) -> None:
        import tensorflow as tf

        self.close()
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self._num_files += 1
        path = Path(f"{self._prefix}-{stamp}-{os.getpid()}-{self._num_files:04d}.tfrecord")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._writer = tf.io.TFRecordWriter(str(path))
        self._num_bytes = 0
        self._files.append(path)
        while len(self._files) > self._max_files:
            self._files.popleft().unlink(missing_ok=True)


def _fill_predict(log: Any, call: LoggedCall) -> None:
    import tensorflow as tf

    for target, tensors in ((log.request.inputs, call.inputs), (log.response.outputs, call.outputs)):
        for name, array in tensors.items():
            target[name].CopyFrom(tf.make_tensor_proto(array))


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
