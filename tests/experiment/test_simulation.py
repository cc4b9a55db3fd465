"""Whole comparisons on the real batch queues, watched all the time: few false alarms, and harm is found soon.

These are the reduced runs; `benchmarks/experiments.py` does them in full.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.traffic_world import Traffic, World, plan_for
from scipy.stats import binom, mannwhitneyu

from tfserve_nb.experiment.engine.evaluate import evaluate

RUNS = 50
REQUESTS = 1200
EVERY = 100
CALM = int(binom.ppf(0.999, RUNS, 0.05))
"""Alarms that a method with 5 % of false ones exceeds in one of a thousand test runs."""


def has_alarmed(world: World, seed: int) -> tuple[bool, Traffic]:
    """Whether a difference of run times, or a roll-back, was seen at any look."""
    traffic = Traffic(world, plan_for(world), seed)
    alarmed = False
    for _ in traffic.looks(REQUESTS, EVERY):
        reading = evaluate(traffic.observations, traffic.now_s)
        effect = reading.effect
        alarmed |= reading.verdict.decision in ("rollback", "blocked")
        alarmed |= effect is not None and (effect.low > 0 or effect.high < 0)
    return alarmed, traffic


def test_identical_versions_are_not_told_apart_but_a_test_of_requests_tells_them_apart_all_the_time() -> None:
    found = [has_alarmed(World(), seed) for seed in range(RUNS)]
    naive = [mannwhitneyu(*traffic.latencies.values()).pvalue < 0.05 for _, traffic in found]

    assert sum(alarmed for alarmed, _ in found) <= CALM
    # One look at the end is enough for it; requests of a batch are no independent witnesses.
    assert sum(naive) > CALM


@pytest.mark.parametrize(
    "world",
    [
        World(percent=10),
        World(percent=90),
        World(rate=1200),
        World(clients=150),
        World(wave=0.3, drift=0.3, outliers=0.02),
        World(fails_a=0.05, fails_b=0.05),
    ],
    ids=["ten to ninety", "ninety to ten", "large batches", "clients", "a restless machine", "failures"],
)
def test_nor_are_they_under_harder_conditions(world: World) -> None:
    runs = 15
    alarms = sum(has_alarmed(world, 1000 + seed)[0] for seed in range(runs))

    assert alarms <= binom.ppf(0.999, runs, 0.05)


def test_nor_while_a_canary_steps_up_on_a_machine_that_slows_down() -> None:
    alarms = 0
    for seed in range(15):
        world = World(percent=5, drift=0.4)
        traffic = Traffic(world, plan_for(world), seed)
        for requests in traffic.looks(2 * REQUESTS, EVERY):
            if requests // 600 != (requests - EVERY) // 600:
                traffic.set_percent({1: 25, 2: 50, 3: 75}.get(requests // 600, 75))
            reading = evaluate(traffic.observations, traffic.now_s)
            if reading.verdict.decision in ("rollback", "blocked"):
                alarms += 1
                break

    assert alarms <= binom.ppf(0.999, 15, 0.05)


@pytest.mark.parametrize(
    "world",
    [
        World(rate=100, shadow=100, rivals=3, contention=0.5),
        World(rate=100, shadow=100, rivals=3, contention=1.0, wave=0.5, white=0.4, drift=0.4, outliers=0.05),
        World(rate=100, shadow=20, rivals=3, contention=0.5),
        World(rate=100, shadow=100, rivals=3, contention=0.5, percent=40),
        World(rate=150, shadow=100, contention=0.5),
    ],
    ids=["another model", "a loaded machine", "some copies", "forty to sixty", "alone"],
)
def test_nor_while_copies_keep_the_machine_busy(world: World) -> None:
    runs = 8
    alarms = sum(has_alarmed(world, 2000 + seed)[0] for seed in range(runs))

    assert alarms <= binom.ppf(0.999, runs, 0.05)


def test_copies_of_one_versions_requests_only_would_make_the_other_one_slower() -> None:
    world = World(rate=100, shadow=100, rivals=3, contention=0.5, is_one_sided=True)
    found = [has_alarmed(world, 2000 + seed)[0] for seed in range(3)]

    assert all(found)


def test_ten_percent_more_time_is_found_within_six_hundred_requests_of_each_version_in_most_comparisons() -> None:
    needed = []
    for seed in range(25):
        world = World(effect=0.1)
        traffic = Traffic(world, plan_for(world), seed)
        for _ in traffic.looks(3000, 40):
            if evaluate(traffic.observations, traffic.now_s).verdict.decision == "rollback":
                break
        needed.append(max(len(one) for one in traffic.latencies.values()))

    assert np.median(needed) <= 600


def test_a_version_that_fails_now_and_then_is_found() -> None:
    world = World(fails_b=0.1)
    traffic = Traffic(world, plan_for(world), 1)
    decisions = [evaluate(traffic.observations, traffic.now_s).verdict for _ in traffic.looks(2000, EVERY)]

    assert any(one.decision == "rollback" and "failing" in one for one in decisions)
