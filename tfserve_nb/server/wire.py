"""Snapshots as JSON for the admin API, and back.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any  # JSON values

import numpy as np

from .. import errors
from ..errors import NotAvailable, ServingError
from ..serving.batch_summary import BatchSummary
from ..serving.metrics import LatencySeries, ModelMetrics, VersionMetrics
from ..types import HistoryEvent, ModelStatus, VersionState, VersionStatus

_SERIES = ("age_s", "rps", "p50_ms", "p99_ms")
_COUNTS = ("num_requests", "num_errors", "num_recent", "p50_ms", "p99_ms")


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
            }
            for one in status.versions
        ],
        "default_version": status.default_version,
        "traffic": {str(version): percent for version, percent in status.traffic.items()},
        "labels": dict(status.labels),
        "problem": status.problem,
    }


def status_from_json(value: Mapping[str, Any]) -> ModelStatus:
    """The inverse of `status_to_json`."""
    return ModelStatus(
        name=value["name"],
        versions=tuple(VersionStatus(**{**one, "state": VersionState[one["state"]]}) for one in value["versions"]),
        default_version=value["default_version"],
        traffic={int(version): percent for version, percent in value["traffic"].items()},
        labels=value["labels"],
        problem=value["problem"],
    )


def metrics_to_json(metrics: ModelMetrics) -> dict[str, Any]:
    """A JSON object that `metrics_from_json` reads; numbers that are none are null."""
    return {
        "name": metrics.name,
        "span_s": metrics.span_s,
        "total": metrics.total,
        "num_unrouted_errors": metrics.num_unrouted_errors,
        "versions": {
            str(version): {
                **{field: getattr(one, field) for field in _COUNTS},
                "series": {field: _numbers(getattr(one.series, field)) for field in _SERIES},
                "batches": _batches_to_json(one.batches),
            }
            for version, one in metrics.versions.items()
        },
    }


def metrics_from_json(value: Mapping[str, Any]) -> ModelMetrics:
    """The inverse of `metrics_to_json`."""
    return ModelMetrics(
        value["name"],
        value["span_s"],
        value["total"],
        value["num_unrouted_errors"],
        {
            int(version): VersionMetrics(
                version=int(version),
                **{field: one[field] for field in _COUNTS},
                series=LatencySeries(**{field: _array(one["series"][field]) for field in _SERIES}),
                batches=_batches_from_json(one["batches"]),
            )
            for version, one in value["versions"].items()
        },
    )


def _batches_to_json(batches: BatchSummary) -> dict[str, Any]:
    return {**asdict(batches), "run_ms": {str(size): one for size, one in batches.run_ms.items()}}


def _batches_from_json(value: Mapping[str, Any]) -> BatchSummary:
    return BatchSummary(**{**value, "run_ms": {int(size): one for size, one in value["run_ms"].items()}})


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
