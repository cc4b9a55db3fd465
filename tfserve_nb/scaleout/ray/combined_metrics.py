"""The numbers of several replicas as those of one server.

Counts and rates are sums. Percentiles over the whole span come from the summed histograms. A percentile of one step
cannot be had from those of the replicas: the series show the slowest replica's.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...serving.telemetry.histogram import percentile_s
from ...serving.telemetry.model_metrics import ModelMetrics, Series, VersionMetrics, combined


def combined_metrics(parts: Sequence[ModelMetrics]) -> ModelMetrics:
    """The sum of some replicas' numbers, over the same span and step; at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    codes = sorted({code for part in parts for code in part.errors_ps})
    zeros = np.zeros(len(first.age_s))
    versions = sorted({version for part in parts for version in part.versions})
    return replace(
        first,
        total=sum(part.total for part in parts),
        num_unrouted_errors=sum(part.num_unrouted_errors for part in parts),
        errors_ps={code: sum((part.errors_ps.get(code, zeros) for part in parts), zeros) for code in codes},
        signatures=tuple(sorted({name for part in parts for name in part.signatures})),
        versions={
            version: _version([part.versions[version] for part in parts if version in part.versions])
            for version in versions
        },
    )


def _version(parts: Sequence[VersionMetrics]) -> VersionMetrics:
    histogram = sum((part.histogram for part in parts[1:]), parts[0].histogram)
    found = [percentile_s(histogram, quantile) for quantile in (0.5, 0.95, 0.99)]
    p50, p95, p99 = (None if seconds is None else 1e3 * seconds for seconds in found)
    return VersionMetrics(
        version=parts[0].version,
        num_requests=sum(part.num_requests for part in parts),
        num_errors=sum(part.num_errors for part in parts),
        num_recent=sum(part.num_recent for part in parts),
        num_recent_errors=sum(part.num_recent_errors for part in parts),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        histogram=histogram,
        series=_series([part.series for part in parts]),
        batches=combined(part.batches for part in parts),
    )


def _series(parts: Sequence[Series]) -> Series:
    def total(of: Callable[[Series], np.ndarray]) -> np.ndarray:
        return np.asarray(np.sum([of(part) for part in parts], axis=0))

    def slowest(of: Callable[[Series], np.ndarray]) -> np.ndarray:
        return np.asarray(np.fmax.reduce([of(part) for part in parts]))  # passes over NaN

    return Series(
        rps=total(lambda part: part.rps),
        rows_ps=total(lambda part: part.rows_ps),
        p50_ms=slowest(lambda part: part.p50_ms),
        p95_ms=slowest(lambda part: part.p95_ms),
        p99_ms=slowest(lambda part: part.p99_ms),
        phases_ms={name: slowest(_phase(name)) for name in parts[0].phases_ms},
        waiting=total(lambda part: part.waiting),
    )


def _phase(name: str) -> Callable[[Series], np.ndarray]:
    return lambda part: part.phases_ms[name]
