"""Arrivals and what is concluded from samples."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.bench.comparison import effects_of
from tfserve_nb.bench.load.samples import GRPC, TIMED_OUT, UNREACHABLE, Samples, joined, status_text
from tfserve_nb.bench.load.schedule import Load, schedule
from tfserve_nb.bench.result import BenchmarkResult, curve_of, timeline_of
from tfserve_nb.bench.statistics import FEWEST, interval_ranks, percentiles, stability, summarise
from tfserve_nb.errors import InvalidOption
from tfserve_nb.serialization import from_json

LOAD = Load(rate=100, seconds=10.0)


def samples(latencies_s: list[float], *, gap_s: float = 0.01, lag_s: float = 0.0, status: int = 200) -> Samples:
    due = [number * gap_s for number in range(len(latencies_s))]
    rows = [(at, at + lag_s, at + lag_s, at + took, status) for at, took in zip(due, latencies_s, strict=True)]
    return Samples.of(rows, {})


@given(st.sampled_from(["poisson", "constant"]), st.floats(1, 2000), st.floats(0.1, 5), st.integers(0, 9))
def test_a_schedule_is_made_before_and_is_the_same_for_the_same_seed(
    kind: str, rate: float, seconds: float, seed: int
) -> None:
    times = schedule(kind, rate, seconds, seed)

    assert times.tolist() == schedule(kind, rate, seconds, seed).tolist()
    assert (np.diff(times) >= 0).all()
    assert not len(times) or 0 <= times[0] <= times[-1] < seconds
    assert abs(len(times) - rate * seconds) <= 6 * math.sqrt(rate * seconds) + 2


def test_poisson_gaps_are_exponential_and_constant_ones_equal() -> None:
    poisson, constant = (np.diff(schedule(kind, 1000, 20, 1)) for kind in ("poisson", "constant"))

    assert poisson.std() / poisson.mean() == pytest.approx(1.0, abs=0.05)
    assert constant.std() < 1e-9


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=300))
def test_percentiles_are_order_statistics_inside_their_intervals(latencies_s: list[float]) -> None:
    ordered = sorted(1e3 * one for one in latencies_s)

    for one in percentiles(np.array(latencies_s)):
        assert one.ms == pytest.approx(ordered[math.ceil(one.quantile * len(ordered) - 1e-9) - 1])
        assert one.low_ms <= one.ms <= one.high_ms
        assert len(latencies_s) >= FEWEST[one.quantile]


@pytest.mark.parametrize(("n", "quantile"), [(100, 0.5), (700, 0.99), (200, 0.95)])
def test_intervals_cover_the_true_percentile_as_often_as_they_say(n: int, quantile: float) -> None:
    generator = np.random.default_rng(0)
    low, high = interval_ranks(n, quantile)
    draws = np.sort(generator.exponential(size=(4000, n)), axis=1)
    truth = -math.log(1 - quantile)

    below = draws[:, low - 1] <= truth if low >= 1 else np.ones(4000, dtype=bool)
    above = draws[:, high - 1] >= truth if high <= n else np.ones(4000, dtype=bool)

    assert 0.945 <= (below & above).mean() <= 0.99


def test_latency_counts_from_the_moment_at_which_a_request_was_due() -> None:
    rows = [(number * 0.01, number * 0.01, number * 0.01 + 0.5, number * 0.01 + 0.501, 200) for number in range(700)]

    summary = summarise(Samples.of(rows, {}), LOAD)

    assert summary.percentile(0.99).ms == pytest.approx(501)
    assert summary.uncorrected_p99_ms == pytest.approx(1.0)


def test_the_warm_up_is_counted_apart() -> None:
    rows = [(at, at, at, at + 0.001, 200) for at in (np.arange(-10, 90) / 10).tolist()]

    summary = summarise(Samples.of(rows, {}), LOAD)

    assert (summary.num_warmup, summary.num_due) == (10, 90)


def test_failures_are_results_and_not_latencies() -> None:
    found = joined([samples([0.001] * 50), samples([5.0] * 10, status=503), samples([10.0] * 5, status=TIMED_OUT)])

    summary = summarise(found, LOAD, slo_ms=20)

    assert summary.errors == {"503": 10, "timed out": 5}
    assert (summary.num_due, summary.num_ok, summary.rate, summary.goodput) == (65, 50, 5.0, 5.0)
    assert summary.percentile(0.5).ms == pytest.approx(1.0)
    assert "15 of 65 requests failed" in " ".join(summary.warnings)


def test_a_late_generator_makes_a_run_invalid() -> None:
    assert summarise(samples([0.01] * 100, lag_s=0.0005), LOAD).is_valid
    late = joined([samples([0.01] * 98), samples([0.01] * 2, lag_s=0.002)])

    summary = summarise(late, LOAD)

    assert not summary.is_valid
    assert any(text.startswith("INVALID") for text in summary.warnings)


def test_a_run_that_gets_slower_is_unstable_and_one_that_does_not_is_stable() -> None:
    generator = np.random.default_rng(0)
    due_s = np.arange(0, 10, 0.01)

    assert stability(due_s, generator.normal(1.0, 0.01, 1000), 10.0)[1] <= 1.1
    name, ratio = stability(due_s, 1 + due_s / 10, 10.0)

    assert name == "p95"
    assert ratio > 1.1
    assert stability(due_s[:20], due_s[:20], 10.0) is None


@pytest.mark.parametrize(
    ("status", "text"),
    [(503, "503"), (UNREACHABLE, "no connection"), (GRPC + 14, "UNAVAILABLE"), (GRPC + 99, "gRPC 99")],
)
def test_a_status_is_told_in_words(status: int, text: str) -> None:
    assert status_text(status) == text


def result_of(latencies_s: list[float]) -> BenchmarkResult:
    found = samples(latencies_s)
    summary = summarise(found, LOAD)
    return BenchmarkResult(
        "net", "json", "1 row", 3, LOAD, summary, curve_of(found), timeline_of(found, 10.0), samples=found
    )


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=900))
def test_a_result_survives_the_history(latencies_s: list[float]) -> None:
    result = result_of(latencies_s)

    back = from_json(json.loads(json.dumps(result.stored())), BenchmarkResult)

    assert back.summary == result.summary
    assert back.curve.tolist() == result.curve.tolist()
    assert str(back.timeline) == str(result.timeline)
    assert (back.load, back.title, back.samples) == (result.load, result.title, None)


def test_pairs_tell_a_difference_only_when_they_agree() -> None:
    generator = np.random.default_rng(0)

    def pair(factor: float) -> tuple[BenchmarkResult, BenchmarkResult]:
        first = generator.lognormal(-6, 0.2, 200)
        return result_of(first.tolist()), result_of((factor * generator.lognormal(-6, 0.2, 200)).tolist())

    slower = effects_of([pair(1.5) for _ in range(4)])[0]
    same = effects_of([pair(1.0) for _ in range(4)])[0]
    alone = effects_of([pair(1.5)])[0]

    assert slower.verdict == "B is slower"
    assert slower.low < 1.5 < slower.high
    assert same.verdict == "no difference was shown"
    assert "--repeats" in alone.verdict


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": 0}, "rate=0 must be a positive number"),
        ({"rate": 1, "concurrency": 1}, "a load has one of them"),
        ({"rate": 1, "arrivals": "bursts"}, "must be one of poisson, constant"),
        ({"rate": 1, "seconds": float("inf")}, "seconds=inf"),
        ({"rate": 1e6, "seconds": 60}, "more than 2000000 requests"),
        ({"concurrency": 5000}, "1 to 900"),
    ],
)
def test_a_load_that_cannot_be_is_refused_with_its_value(options: dict[str, float], text: str) -> None:
    with pytest.raises(InvalidOption, match=text.replace("(", r"\(")):
        Load(**options)
