"""The slowest requests: blocks of time are the unit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tfserve_nb.experiment.statistics import tail
from tfserve_nb.experiment.statistics.tail import MOST, STEPS, WARM_UP, Blocks
from tfserve_nb.serving.telemetry.histogram import counts_of


def fill(
    rng: np.random.Generator, seconds: int, *, factor: float = 1.0, per_s: int = 40, together: float = 0.3
) -> Blocks:
    """Latencies with a part that all requests of a second share."""
    blocks = Blocks()
    for second in range(seconds):
        common = rng.normal() * together
        for arm, slower in (("a", 1.0), ("b", factor)):
            for value in np.exp(common + rng.normal(size=per_s) * 0.4):
                blocks.add(arm, second + 0.5, 5e-3 * slower * float(value))
    return blocks


def bootstrap(counts: np.ndarray, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    """The usual interval for one look: blocks, of shape `(k, 2, WIDTH)`, are drawn with replacement."""
    blocks = len(counts)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=1000)
    found = [tail.Tails(np.tensordot(weights, counts, axes=1)[None], 0.95).ratio() for weights in drawn]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(2 ** (low / STEPS)) - 1, float(2 ** (high / STEPS)) - 1


def test_the_ratio_of_the_percentiles_is_found_within_its_interval(rng: np.random.Generator) -> None:
    found = tail.effect(fill(rng, 200, factor=1.3).counts(), 0.05)

    assert found is not None
    assert found.low < math.log(1.3) < found.high
    assert found.low > 0
    assert found.p_value < 0.05


def test_the_ratio_is_that_of_the_samples_to_within_a_bucket(rng: np.random.Generator) -> None:
    blocks = Blocks()
    values = {arm: np.exp(rng.normal(size=6000) * 0.5) * 1e-2 for arm in ("a", "b")}
    for arm, drawn in values.items():
        for number, value in enumerate(drawn):
            blocks.add(arm, number / 100, float(value))
    exact = math.log(np.quantile(values["b"][WARM_UP:], 0.95) / np.quantile(values["a"][WARM_UP:], 0.95))

    found = tail.effect(blocks.counts(), 0.05)

    assert found is not None
    assert found.value == pytest.approx(exact, abs=0.01)


def test_identical_tails_are_told_apart_in_few_of_many_watched_comparisons(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(60):
        blocks = Blocks()
        for second in range(60):
            for arm in ("a", "b"):
                # Batches of ten that share their latency: taken for independent, they would be told apart.
                for value in np.repeat(np.exp(rng.normal(size=4) * 0.5), 10):
                    blocks.add(arm, second + 0.5, 5e-3 * float(value))
            if second % 10 == 9:
                found = tail.effect(blocks.counts(), 0.05)
                if found is not None and (found.low > 0 or found.high < 0):
                    alarms += 1
                    break

    assert alarms <= 5  # 3 are expected at most


def test_little_is_not_judged(rng: np.random.Generator) -> None:
    assert tail.effect(fill(rng, 5).counts(), 0.05) is None
    assert tail.effect(fill(rng, 20, per_s=2).counts(), 0.05) is None


def test_blocks_are_joined_when_time_goes_on_and_nothing_is_lost() -> None:
    blocks = Blocks()
    for second in range(10 * MOST):
        blocks.add("ab"[second % 2], float(second), 1e-3)

    assert blocks.length_s == 16.0
    assert len(blocks.counts()) in (79, 80)  # the first one was warm-up
    assert blocks.totals().sum() == 10 * MOST - 2 * WARM_UP


def test_totals_have_the_buckets_of_the_servers_histograms(rng: np.random.Generator) -> None:
    blocks = Blocks()
    values = np.exp(rng.normal(size=500)) * 1e-3
    for value in values:
        blocks.add("b", 0.0, float(value))

    assert blocks.totals()[1].tolist() == counts_of(values[WARM_UP:]).tolist()


def test_blocks_survive_as_json(rng: np.random.Generator) -> None:
    blocks = fill(rng, 300)

    again = Blocks.from_json(json.loads(json.dumps(blocks.to_json())))
    again.add("a", 300.0, 1e-3)

    assert again.length_s == blocks.length_s
    assert again.counts().sum() == blocks.counts().sum() + 1


def test_the_bootstrap_of_blocks_covers_the_ratio_and_is_narrower_than_the_always_valid_band(
    rng: np.random.Generator,
) -> None:
    counts = fill(rng, 120, factor=1.2).counts()

    low, high = bootstrap(counts, rng)

    found = tail.effect(counts, 0.05)
    assert found is not None
    assert low < 0.2 < high
    assert high - low < math.expm1(found.high) - math.expm1(found.low)
