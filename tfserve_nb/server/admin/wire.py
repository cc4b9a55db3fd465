"""Snapshots as JSON for the admin API, and back.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any  # JSON values

import numpy as np

from ... import errors
from ...errors import NotAvailable, ServingError
from ...serving.telemetry.batch_summary import BatchSummary
from ...serving.telemetry.histogram import NUM_BUCKETS
from ...serving.telemetry.model_metrics import ModelMetrics, Series, VersionMetrics
from ...types import HistoryEvent, ModelStatus, VersionState, VersionStatus

_SERIES = ("rps", "rows_ps", "p50_ms", "p95_ms", "p99_ms", "waiting")
_COUNTS = ("num_requests", "num_errors", "num_recent", "num_recent_errors", "p50_ms", "p95_ms", "p99_ms")
_BY_SIZE = ("sizes", "run_ms")


def status_to_json(status: ModelStatus) -> dict[str, Any]:
    """A JSON object that `status_from_json` reads."""
    return {
        "name": status.name,
        "versions": [
            {
                "version": one.version,
                "state": one.state.name,
                "error_code": one.error_code,
                "error_message": one.error_message,
                "detail": one.detail,
                "deployed_at": one.deployed_at,
                "weights_bytes": one.weights_bytes,
                "done": one.done,
                "total": one.total,
            }
            for one in status.versions
        ],
        "default_version": status.default_version,
        "traffic": {str(version): percent for version, percent in status.traffic.items()},
        "labels": dict(status.labels),
        "problem": status.problem,
        "on_disk": list(status.on_disk),
        "shadow": None if status.shadow is None else list(status.shadow),
        "key_header": status.key_header,
    }


def status_from_json(value: Mapping[str, Any]) -> ModelStatus:
    """The inverse of `status_to_json`."""
    shadow = value.get("shadow")
    return ModelStatus(
        name=value["name"],
        versions=tuple(VersionStatus(**{**one, "state": VersionState[one["state"]]}) for one in value["versions"]),
        default_version=value["default_version"],
        traffic={int(version): percent for version, percent in value["traffic"].items()},
        labels=value["labels"],
        problem=value["problem"],
        on_disk=tuple(value["on_disk"]),
        shadow=None if shadow is None else (int(shadow[0]), float(shadow[1])),
        **{name: value[name] for name in ("key_header",) if name in value},
    )


def metrics_to_json(metrics: ModelMetrics) -> dict[str, Any]:
    """A JSON object that `metrics_from_json` reads; numbers that are none are null."""
    return {
        "name": metrics.name,
        "span_s": metrics.span_s,
        "step_s": metrics.step_s,
        "age_s": _numbers(metrics.age_s),
        "total": metrics.total,
        "num_unrouted_errors": metrics.num_unrouted_errors,
        "errors_ps": {code: _numbers(values) for code, values in metrics.errors_ps.items()},
        "signatures": list(metrics.signatures),
        "versions": {str(version): _version_to_json(one) for version, one in metrics.versions.items()},
    }


def metrics_from_json(value: Mapping[str, Any]) -> ModelMetrics:
    """The inverse of `metrics_to_json`."""
    return ModelMetrics(
        name=value["name"],
        span_s=value["span_s"],
        step_s=value["step_s"],
        age_s=_array(value["age_s"]),
        total=value["total"],
        num_unrouted_errors=value["num_unrouted_errors"],
        errors_ps={code: _array(values) for code, values in value["errors_ps"].items()},
        signatures=tuple(value["signatures"]),
        versions={int(version): _version_from_json(int(version), one) for version, one in value["versions"].items()},
    )


def _version_to_json(one: VersionMetrics) -> dict[str, Any]:
    series = one.series
    return {
        **{field: getattr(one, field) for field in _COUNTS},
        "histogram": {str(bucket): int(one.histogram[bucket]) for bucket in np.flatnonzero(one.histogram)},
        "series": {
            **{field: _numbers(getattr(series, field)) for field in _SERIES},
            "phases_ms": {phase: _numbers(values) for phase, values in series.phases_ms.items()},
        },
        "batches": _batches_to_json(one.batches),
    }


def _version_from_json(version: int, value: Mapping[str, Any]) -> VersionMetrics:
    histogram = np.zeros(NUM_BUCKETS, dtype=np.int64)
    for bucket, count in value["histogram"].items():
        histogram[int(bucket)] = count
    series = value["series"]
    return VersionMetrics(
        version=version,
        **{field: value[field] for field in _COUNTS},
        histogram=histogram,
        series=Series(
            **{field: _array(series[field]) for field in _SERIES},
            phases_ms={phase: _array(values) for phase, values in series["phases_ms"].items()},
        ),
        batches=_batches_from_json(value["batches"]),
    )


def _batches_to_json(batches: BatchSummary) -> dict[str, Any]:
    return {**asdict(batches), **{field: _with_text_keys(getattr(batches, field)) for field in _BY_SIZE}}


def _batches_from_json(value: Mapping[str, Any]) -> BatchSummary:
    by_size = {field: {int(size): one for size, one in value[field].items()} for field in _BY_SIZE}
    return BatchSummary(**{**value, **by_size})


def _with_text_keys(values: Mapping[int, float]) -> dict[str, float]:
    return {str(size): one for size, one in values.items()}


def event_to_json(event: HistoryEvent) -> dict[str, Any]:
    """A JSON object that `event_from_json` reads."""
    return {
        "at": event.at,
        "action": event.action,
        "version": event.version,
        "detail": event.detail,
        "actor": event.actor,
    }


def event_from_json(value: Mapping[str, Any]) -> HistoryEvent:
    """The inverse of `event_to_json`."""
    return HistoryEvent(**value)


def error_to_json(error: ServingError) -> dict[str, Any]:
    """An error as the admin API tells it; the hint is for the person at the other end."""
    return {"error": error.message, "hint": error.hint, "code": error.code, "kind": type(error).__name__}


def error_from_json(value: Mapping[str, Any]) -> ServingError:
    """The inverse of `error_to_json`: of the same class, if there is one of that name."""
    kind = getattr(errors, str(value.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, ServingError)):
        kind = NotAvailable
    error: ServingError = kind(str(value.get("error")), hint=str(value.get("hint", "")))
    return error


def _numbers(array: np.ndarray) -> list[float | None]:
    return [None if math.isnan(number) else number for number in array.tolist()]


def _array(numbers: list[float | None]) -> np.ndarray:
    return np.array([math.nan if number is None else number for number in numbers], dtype=np.float64)
