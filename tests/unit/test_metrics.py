"""Counters and snapshots of requests, on a clock of our own."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.serving.telemetry.histogram import (
    FEWEST_SAMPLES,
    LOWEST_S,
    NUM_BUCKETS,
    bucket_of,
    counts_of,
    percentile_s,
)
from tfserve_nb.serving.telemetry.metrics import HISTORY_S, Metrics
from tfserve_nb.serving.telemetry.records import RequestRecord


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 10_000.5

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(now=clock)


def record(
    metrics: Metrics,
    at_s: float,
    latency_s: float = 0.001,
    *,
    version: int | None = 1,
    code: str = "OK",
    signature: str = "serving_default",
) -> None:
    received_s = at_s - latency_s
    metrics.record(RequestRecord("net", version, signature, code, 1, received_s, received_s, received_s, at_s, at_s))


@given(st.floats(LOWEST_S, 200.0))
def test_a_bucket_holds_its_latency_within_its_bounds(latency_s: float) -> None:
    bucket = bucket_of(latency_s)

    assert LOWEST_S * 2 ** (bucket / 8) <= latency_s * (1 + 1e-9)
    assert latency_s * (1 - 1e-9) < LOWEST_S * 2 ** ((bucket + 1) / 8)


@pytest.mark.parametrize(("latency_s", "bucket"), [(0.0, 0), (-1.0, 0), (1e-9, 0), (1e9, NUM_BUCKETS - 1)])
def test_latencies_beyond_the_buckets_count_in_the_outermost(latency_s: float, bucket: int) -> None:
    assert bucket_of(latency_s) == bucket


@given(st.lists(st.floats(1e-5, 10.0), min_size=7, max_size=50), st.sampled_from(sorted(FEWEST_SAMPLES)))
def test_a_percentile_is_within_half_a_bucket_of_the_sorted_samples(some_s: list[float], quantile: float) -> None:
    latencies_s = some_s * 100
    counts = np.bincount([bucket_of(value) for value in latencies_s], minlength=NUM_BUCKETS)
    exact_s = sorted(latencies_s)[math.ceil(quantile * len(latencies_s)) - 1]

    found_s = percentile_s(counts, quantile)

    assert found_s is not None
    assert abs(math.log2(found_s / exact_s)) <= 1 / 16 + 1e-9


@given(st.lists(st.floats(-1.0, 400.0), max_size=50))
def test_counting_many_at_once_is_counting_one_by_one(latencies_s: list[float]) -> None:
    wanted = np.bincount([bucket_of(value) for value in latencies_s], minlength=NUM_BUCKETS)

    assert counts_of(np.array(latencies_s)).tolist() == wanted.tolist()


@pytest.mark.parametrize(("quantile", "fewest"), FEWEST_SAMPLES.items())
def test_a_percentile_is_hidden_below_its_fewest_samples(quantile: float, fewest: int) -> None:
    counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
    counts[20] = fewest - 1
    assert percentile_s(counts, quantile) is None

    counts[20] = fewest
    assert percentile_s(counts, quantile) == pytest.approx(LOWEST_S * 2 ** (20.5 / 8))


def test_answers_errors_and_what_found_no_version_are_counted_apart(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s)
    record(metrics, clock.now_s, version=2)
    record(metrics, clock.now_s, code="INVALID_ARGUMENT")
    record(metrics, clock.now_s, version=None, code="NOT_FOUND")

    found = metrics.snapshot("net")

    assert found.total == 4
    assert found.num_unrouted_errors == 1
    assert {version: (one.num_requests, one.num_errors) for version, one in found.versions.items()} == {
        1: (1, 1),
        2: (1, 0),
    }


def test_a_series_has_the_rate_of_each_step_and_ends_with_the_last_full_second(metrics: Metrics, clock: Clock) -> None:
    for second in range(9_990, 10_000):
        for number in range(second - 9_980):
            record(metrics, second + number / 100)
    record(metrics, 10_000.2)  # in the running second

    found = metrics.snapshot("net", span_s=10, step_s=2)
    version = found.versions[1]

    assert version.series.rps.tolist() == [10.5, 12.5, 14.5, 16.5, 18.5]
    assert found.age_s.tolist() == [8.0, 6.0, 4.0, 2.0, 0.0]
    assert version.histogram.sum() == version.num_recent
    assert version.num_recent == sum(range(10, 20)) + 1


def test_a_step_with_too_few_samples_is_a_gap(metrics: Metrics, clock: Clock) -> None:
    for number in range(11):
        record(metrics, 9_998 + number / 10, latency_s=0.004)
    record(metrics, 9_996.5)

    series = metrics.snapshot("net", span_s=4, step_s=2).versions[1].series

    assert math.isnan(series.p50_ms[0])
    assert series.p50_ms[1] == pytest.approx(4.0, rel=0.05)
    assert np.isnan(series.p99_ms).all()


def test_what_is_older_than_the_ring_is_gone_and_its_slots_are_reused(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s)
    clock.now_s += HISTORY_S
    record(metrics, clock.now_s)

    version = metrics.snapshot("net").versions[1]

    assert (version.num_requests, version.num_recent) == (2, 1)


def test_a_version_that_rests_shows_no_recent_requests(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s)
    clock.now_s += 200

    version = metrics.snapshot("net", span_s=120).versions[1]

    assert (version.num_requests, version.num_recent) == (1, 0)
    assert version.series.rps.tolist() == [0.0] * 60


def test_a_forgotten_model_starts_anew(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s)
    record(metrics, clock.now_s, version=None, code="NOT_FOUND")

    metrics.forget("net")

    found = metrics.snapshot("net")
    assert (found.total, found.num_unrouted_errors, dict(found.versions)) == (0, 0, {})


def test_a_version_that_answered_for_a_moment_holds_little(metrics: Metrics, clock: Clock) -> None:
    tracemalloc.start()
    try:
        for version in range(1, 201):
            record(metrics, clock.now_s, version=version)
        metrics.snapshot("net")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 200 * 8_000


def test_old_seconds_are_dropped_when_another_version_comes(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s - 4_000, version=1)
    record(metrics, clock.now_s, version=2)

    found = metrics.snapshot("net").versions

    assert (found[1].num_requests, found[1].num_recent) == (1, 0)
    assert found[2].num_recent == 1


def test_a_version_that_nobody_knows_any_more_is_forgotten_once_its_requests_are_history(
    metrics: Metrics, clock: Clock
) -> None:
    record(metrics, clock.now_s, version=1)
    record(metrics, clock.now_s, version=2)
    metrics.forget_versions("net", {2})
    assert sorted(metrics.snapshot("net").versions) == [1, 2]

    clock.now_s += HISTORY_S + 2
    metrics.forget_versions("net", {2})

    found = metrics.snapshot("net")
    assert (sorted(found.versions), found.total) == ([2], 2)


def test_where_time_goes_and_how_many_wait_come_from_the_five_timestamps(metrics: Metrics, clock: Clock) -> None:
    for number in range(20):
        at_s = 9_998 + number / 10
        metrics.record(
            RequestRecord("net", 1, "s", "OK", 3, at_s, at_s + 0.001, at_s + 0.003, at_s + 0.006, at_s + 0.010)
        )

    series = metrics.snapshot("net", span_s=4, step_s=2).versions[1].series

    assert {phase: round(float(values[1]), 6) for phase, values in series.phases_ms.items()} == {
        "decode": 1.0, "queue": 2.0, "run": 3.0, "encode": 4.0,
    }  # fmt: skip
    assert all(math.isnan(values[0]) for values in series.phases_ms.values())
    assert series.rows_ps.tolist() == [0.0, 30.0]
    assert series.waiting[1] == pytest.approx(20 * 0.002 / 2)


def test_a_snapshot_can_be_of_one_signature(metrics: Metrics, clock: Clock) -> None:
    record(metrics, clock.now_s, signature="a")
    record(metrics, clock.now_s, signature="b")
    record(metrics, clock.now_s, signature="b", version=2)

    found = metrics.snapshot("net", signature="b")

    assert found.signatures == ("a", "b")
    assert {version: one.num_requests for version, one in found.versions.items()} == {1: 1, 2: 1}
    assert metrics.snapshot("net").versions[1].num_requests == 2


def test_failures_are_a_series_by_code(metrics: Metrics, clock: Clock) -> None:
    record(metrics, 9_999.2, code="UNAVAILABLE")
    record(metrics, 9_999.3, code="UNAVAILABLE", version=2)
    record(metrics, 9_997.0, code="NOT_FOUND", version=None)
    record(metrics, 9_000.0, code="INTERNAL")

    found = metrics.snapshot("net", span_s=4, step_s=2)

    assert {code: values.tolist() for code, values in found.errors_ps.items()} == {
        "NOT_FOUND": [0.5, 0.0],
        "UNAVAILABLE": [0.0, 1.0],
    }
    assert (found.versions[1].num_errors, found.versions[1].num_recent_errors) == (2, 1)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3), st.booleans()), max_size=60),
    st.integers(1, 30),
    st.integers(1, 10),
)
def test_nothing_is_counted_twice_or_lost(events: list[tuple[int, int, bool]], span_s: int, step_s: int) -> None:
    metrics = Metrics(now=lambda: 1040.5)
    for at, version, is_good in events:
        record(metrics, 1000.0 + at, version=version, code="OK" if is_good else "INTERNAL")

    found = metrics.snapshot("net", span_s=span_s, step_s=min(step_s, span_s))

    assert found.total == len(events)
    recent = [is_good for at, _, is_good in events if 1000 + at >= 1040 - span_s]
    assert sum(one.num_recent for one in found.versions.values()) == sum(recent)
    assert sum(one.num_recent_errors for one in found.versions.values()) == len(recent) - sum(recent)
