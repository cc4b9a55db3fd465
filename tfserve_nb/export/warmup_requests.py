"""Warm-up requests beside a version: `assets.extra/tf_serving_warmup_requests`, as TensorFlow Serving reads them.

The file is a TFRecord of `PredictionLog` messages. Of each, only the request is used.

Thread: any.

Reference: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # protobuf messages

import numpy as np

from ..errors import ExportFailed, InvalidOption
from ..protos.records import DamagedRecord, read_records, write_record
from ..protos.tensors import to_array
from ..temporary import replacing
from ..types import DEFAULT_SIGNATURE, Tensors
from .prediction_log import LoggedCall, fill_tensor, serialized_examples, to_message

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_RECORDS = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One request of the file.

    Attributes:
        signature: the signature's name.
        inputs: name -> array; for examples the one entry "" holds the serialized `tf.Example`s, object array `(n,)`.
        is_examples: whether it was a classify or regress request.
    """

    signature: str
    inputs: Tensors
    is_examples: bool = False


def read_warmup_requests(version_dir: Path) -> Iterator[WarmupRequest]:
    """The stored requests of a version, in order; none when it has no such file.

    Raises:
        ExportFailed: naming the file, if it is damaged, too long or holds a kind of request that cannot warm up.
    """
    path = version_dir / WARMUP_FILE
    if path.is_file():
        yield from read_request_file(path)
    else:
        _log.info("No warmup data file found at %s", path)


def read_request_file(path: Path) -> Iterator[WarmupRequest]:
    """The requests of a warm-up file, or of a file of logged requests; errors as `read_warmup_requests`."""
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    _log.info("Starting to read warmup data for model at %s", path)
    started_s, count = time.perf_counter(), 0
    try:
        for count, record in enumerate(read_records(path), 1):
            if count > MAX_WARMUP_RECORDS:
                raise ExportFailed(
                    f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {path}",
                    hint="keep the most typical requests only",
                )
            yield from _requests(PredictionLog.FromString(record))
    except DecodeError as error:
        raise ExportFailed(f"Failed to parse warmup record: {count} from {path}", hint="write the file anew") from error
    except (DamagedRecord, OSError) as error:
        raise ExportFailed(
            f"{path} is damaged after record {count}. Please verify your warmup data is in TFRecord format.",
            hint="write the file anew",
        ) from error
    took_us = int((time.perf_counter() - started_s) * 1e6)
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. "
        "Elapsed time (microseconds): %d.",
        path,
        count,
        took_us,
    )


def write_warmup_requests(version_dir: Path, name: str, rows: Tensors, signature: str = DEFAULT_SIGNATURE) -> Path:
    """Store one predict request that warms the version up wherever it is loaded.

    Args:
        version_dir: the version's folder.
        name: the model's name.
        rows: input name -> array.
        signature: the signature's name.

    Returns:
        The file.
    """
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, array in rows.items():
        fill_tensor(request.inputs[key], array)
    return _write(version_dir, [log])


def write_warmup_calls(version_dir: Path, calls: Iterable[LoggedCall]) -> Path:
    """Store requests with their outputs; a file that is there already is replaced.

    Args:
        version_dir: the version's folder.
        calls: at most `MAX_WARMUP_RECORDS`.

    Returns:
        The file.

    Raises:
        InvalidOption: if the folder holds no SavedModel, or the file cannot be written.
    """
    if not (version_dir / "saved_model.pb").is_file():
        raise InvalidOption(f"{version_dir} is no version of a model", hint="the number of a version, or its folder")
    try:
        return _write(version_dir, [to_message(call) for call in calls])
    except OSError as error:
        raise InvalidOption(f"{version_dir} cannot be written: {error}", hint="a folder of this machine") from error


def _write(version_dir: Path, logs: Iterable[Any]) -> Path:
    """All of them or nothing: a server may load the version at the same moment."""
    path = version_dir / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as stream:
        for log in logs:
            write_record(stream, log.SerializeToString())
    return path


def _requests(log: Any) -> Iterator[WarmupRequest]:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind == "predict_log":
        yield _predict(log.predict_log.request)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        yield _examples(request.model_spec, request.input)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            yield _examples(task.model_spec, request.input)
    else:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise ExportFailed(f"Unsupported log_type for warmup: {number}", hint="store predict requests")


def _predict(request: Any) -> WarmupRequest:
    inputs: Mapping[str, np.ndarray] = {name: to_array(value, name) for name, value in request.inputs.items()}
    return WarmupRequest(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)


def _examples(spec: Any, value: Any) -> WarmupRequest:
    return WarmupRequest(spec.signature_name or DEFAULT_SIGNATURE, {"": serialized_examples(value)}, is_examples=True)
