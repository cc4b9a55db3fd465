"""Sampled and captured requests, and resources, as JSON for the admin API, and back.

Thread: any; pure functions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any  # JSON values

import numpy as np

from ...errors import InvalidOption
from ...serving.telemetry.captured import CapturedRequest, CapturedRequests, CaptureSettings
from ...serving.telemetry.request_samples import PhaseTimes, RequestSample
from ...serving.telemetry.resources import Gpu, Resources
from ...types import Tensors

_SERIES = ("age_s", "cpu_series", "rss_series")
_PLAIN = ("number", "at", "version", "signature", "entrypoint", "code", "message", "num_rows", "is_cut", "total_ms")

_CAPTURED = ("number", "at", "arrived_s", "version", "signature", "api", "entrypoint", "num_rows", "latency_ms",
             "is_redacted")  # fmt: skip
_KEPT = ("num_kept", "num_bytes", "num_left_out", "problem")
_LIMITS = ("max_requests", "max_rows", "max_mib")


def sample_to_json(sample: RequestSample) -> dict[str, Any]:
    """A JSON object that `sample_from_json` reads."""
    return {
        **{name: getattr(sample, name) for name in _PLAIN},
        "inputs": tensors_to_json(sample.inputs),
        "outputs": tensors_to_json(sample.outputs),
        "parts": list(sample.parts),
    }


def sample_from_json(value: Mapping[str, Any]) -> RequestSample:
    """The inverse of `sample_to_json`."""
    plain = {name: value[name] for name in _PLAIN}
    return RequestSample(
        **plain,
        inputs=tensors_from_json(value["inputs"]),
        outputs=tensors_from_json(value["outputs"]),
        parts=PhaseTimes(*value["parts"]),
    )


def captured_to_json(captured: CapturedRequests) -> dict[str, Any]:
    """A JSON object that `captured_from_json` reads."""
    return {
        "model": captured.model,
        "settings": None if captured.settings is None else _settings_told(captured.settings),
        **{name: getattr(captured, name) for name in _KEPT},
        "requests": [
            {
                **{name: getattr(one, name) for name in _CAPTURED},
                "inputs": tensors_to_json(one.inputs),
                "outputs": tensors_to_json(one.outputs),
            }
            for one in captured
        ],
    }


def captured_from_json(value: Mapping[str, Any]) -> CapturedRequests:
    """The inverse of `captured_to_json`."""
    requests = [
        CapturedRequest(
            **{name: one[name] for name in _CAPTURED},
            inputs=tensors_from_json(one["inputs"]),
            outputs=tensors_from_json(one["outputs"]),
        )
        for one in value["requests"]
    ]
    settings = settings_from_json(value["settings"])
    return CapturedRequests(value["model"], tuple(requests), settings, **{name: value[name] for name in _KEPT})


def settings_to_json(settings: CaptureSettings) -> dict[str, Any]:
    """A JSON object that `settings_from_json` reads.

    Raises:
        InvalidOption: for a function that redacts, which cannot leave its process.
    """
    if callable(settings.redact):
        raise InvalidOption(
            "a function that redacts works only for a model that is served in this kernel",
            hint='redact=["name", ...], the inputs to replace by zeros',
        )
    return _settings_told(settings)


def settings_from_json(value: Mapping[str, Any] | None) -> CaptureSettings | None:
    """The inverse of `settings_to_json`; None stays None."""
    if value is None:
        return None
    return CaptureSettings(**{name: value[name] for name in _LIMITS if name in value}, redact=tuple(value["redact"]))


def _settings_told(settings: CaptureSettings) -> dict[str, Any]:
    return {**{name: getattr(settings, name) for name in _LIMITS}, "redact": list(settings.names)}


def resources_to_json(resources: Resources) -> dict[str, Any]:
    """A JSON object that `resources_from_json` reads."""
    return {**asdict(resources), **{name: getattr(resources, name).tolist() for name in _SERIES}}


def resources_from_json(value: Mapping[str, Any]) -> Resources:
    """The inverse of `resources_to_json`."""
    series = {name: np.array(value[name], dtype=np.float64) for name in _SERIES}
    num, cpu, rss = value["children"]
    gpus = tuple(Gpu(**gpu) for gpu in value["gpus"])
    return Resources(**{**value, **series, "gpus": gpus, "children": (num, cpu, rss)})


def tensors_to_json(tensors: Tensors) -> dict[str, Any]:
    """A JSON object that `tensors_from_json` reads."""
    return {name: _array_to_json(array) for name, array in tensors.items()}


def tensors_from_json(value: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `tensors_to_json`."""
    return {name: _array_from_json(array) for name, array in value.items()}


def _array_to_json(array: np.ndarray) -> dict[str, Any]:
    """Raw bytes in base64; texts one by one."""
    if array.dtype == object:
        data: Any = [_coded(item if isinstance(item, bytes) else str(item).encode()) for item in array.reshape(-1)]
    else:
        data = _coded(np.ascontiguousarray(array).tobytes())
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _array_from_json(value: Mapping[str, Any]) -> np.ndarray:
    if value["dtype"] == "object":
        array = np.empty(len(value["data"]), dtype=object)
        array[:] = [base64.b64decode(item) for item in value["data"]]
    else:
        array = np.frombuffer(base64.b64decode(value["data"]), dtype=np.dtype(value["dtype"]))
    return array.reshape(value["shape"])


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()
