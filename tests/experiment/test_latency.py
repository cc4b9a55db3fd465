"""Times of runs: only like is compared with like, and the estimate is that of a linear model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfserve_nb.experiment.statistics import latency
from tfserve_nb.experiment.statistics.latency import MAX_SIZES, WARM_UP, Cell, Strata, Sums
from tfserve_nb.experiment.statistics.sequential import Effect

ALPHA = 0.05
NUM_CELLS = 20
Run = tuple[str, int, float]


def fill(runs: list[Run], gap_s: float = 0.01) -> Strata:
    strata = Strata()
    for number, (arm, size, run_s) in enumerate(runs):
        strata.add(arm, number * gap_s, size, run_s)
    return strata


def found(strata: Strata) -> Effect | None:
    return latency.effect(strata.sums().values(), ALPHA)


def draw(rng: np.random.Generator, num: int, *, effect: float = 0.0, share: float = 0.5, sd: float = 0.2) -> list[Run]:
    runs = []
    for is_b, size in zip(rng.random(num) < share, rng.choice([1, 2, 4], num), strict=True):
        time = math.log(1e-3 * size) + rng.normal() * sd + effect * is_b
        runs.append(("b" if is_b else "a", int(size), math.exp(time)))
    return runs


def test_the_estimate_is_that_of_a_regression_with_a_constant_for_each_cell(rng: np.random.Generator) -> None:
    cells, rows = [], []
    for number in range(NUM_CELLS):
        cell = Cell(0.0)
        for arm, num in ((0, 4), (1, 3)):
            for _ in range(num):
                last, level = rng.normal(size=2)
                time = number + 0.3 * arm + 0.5 * last - 0.2 * level + rng.normal() * 0.1
                cell.rows[arm].append((last, level, time))
                rows.append([arm, last, level, *(float(number == one) for one in range(NUM_CELLS)), time])
        cells.append(cell)
    sums = Sums()
    for cell in cells:
        sums.add(cell)
    table = np.array(rows)
    solution, (rest,), *_ = np.linalg.lstsq(table[:, :-1], table[:, -1], rcond=None)
    df = len(table) - 3 - NUM_CELLS
    variance = rest / df * np.linalg.inv(table[:, :-1].T @ table[:, :-1])[0, 0]

    effect = latency.effect([sums], ALPHA)

    assert effect is not None
    assert effect.value == pytest.approx(solution[0], rel=1e-4)
    assert effect.df == NUM_CELLS
    # Cells' differences scatter by chance, so the interval may be a little wider than the regression's.
    t = (effect.high - effect.value) / math.sqrt(variance)
    assert t >= 0.999 * latency.sequential.critical_t(effect.information, NUM_CELLS, ALPHA)
    assert t < 1.3 * latency.sequential.critical_t(effect.information, NUM_CELLS, ALPHA)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), share=st.sampled_from([0.3, 0.5, 0.8]))
def test_swapping_the_arms_turns_the_effect_round_and_the_unit_of_time_does_not_matter(
    seed: int, factor: float, share: float
) -> None:
    runs = draw(np.random.default_rng(seed), 400, effect=0.1, share=share)
    swapped = [("a" if arm == "b" else "b", size, run_s * factor) for arm, size, run_s in runs]

    one, other = found(fill(runs)), found(fill(swapped))

    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(-other.value, abs=1e-6)
    assert one.high == pytest.approx(-other.low, abs=1e-6)


def test_a_real_difference_is_found_and_its_size_is_right(rng: np.random.Generator) -> None:
    effect = found(fill(draw(rng, 4000, effect=math.log(1.1))))

    assert effect is not None
    assert effect.low > 0
    assert math.expm1(effect.value) == pytest.approx(0.1, abs=0.02)


def test_an_arm_that_gets_small_batches_only_is_compared_with_small_batches(rng: np.random.Generator) -> None:
    # A runs 32 rows in 8 ms; B gets single rows, which both run in 1 ms.
    runs = [
        ("a", size, time * math.exp(rng.normal() * 0.05)) for size, time in [(32, 8e-3)] * 300 + [(1, 1e-3)] * 100
    ] + [("b", 1, 1e-3 * math.exp(rng.normal() * 0.05)) for _ in range(100)]
    rng.shuffle(runs)
    strata = fill([(str(arm), int(size), float(time)) for arm, size, time in runs])

    effect = found(strata)

    assert effect is not None
    assert abs(math.expm1(effect.value)) < 0.03
    assert effect.num_b <= 100


def test_nothing_is_said_about_arms_that_share_no_size(rng: np.random.Generator) -> None:
    runs: list[Run] = [("a" if one % 2 else "b", 1 + one % 2, 1e-3 * math.exp(rng.normal())) for one in range(500)]

    assert found(fill(runs)) is None


def test_a_machine_that_slows_down_while_the_shares_change_is_not_the_candidates_fault(
    rng: np.random.Generator,
) -> None:
    """B gets 2 %, then 60 %, of a machine that becomes twice as slow: without cells B would look 60 % slower."""
    strata = Strata()
    naive: dict[str, list[float]] = {"a": [], "b": []}
    for number in range(6000):
        if number == 3000:
            strata.close()
        arm = "b" if rng.random() < (0.02 if number < 3000 else 0.6) else "a"
        time = 1e-3 * math.exp(rng.normal() * 0.1 + math.log(2) * number / 6000)
        naive[arm].append(math.log(time))
        strata.add(arm, number * 0.01, 4, time)

    effect = found(strata)

    assert np.mean(naive["b"]) - np.mean(naive["a"]) > 0.2
    assert effect is not None
    assert effect.low < 0 < effect.high
    assert abs(effect.value) < 0.02


def test_runs_that_take_twenty_times_as_long_neither_hide_an_effect_nor_make_one(rng: np.random.Generator) -> None:
    plain = draw(rng, 3000, effect=math.log(1.1), sd=0.1)
    spiked = [(arm, size, time * (20 if rng.random() < 0.02 else 1)) for arm, size, time in plain]

    without, with_spikes = found(fill(plain)), found(fill(spiked))

    assert without is not None
    assert with_spikes is not None
    assert with_spikes.low > 0
    assert math.expm1(with_spikes.value) == pytest.approx(0.1, abs=0.02)
    assert with_spikes.high - with_spikes.low < 2 * (without.high - without.low)


def test_a_candidate_that_takes_many_times_as_long_is_not_pulled_in(rng: np.random.Generator) -> None:
    effect = found(fill(draw(rng, 2000, effect=math.log(5), share=0.1, sd=0.05)))

    assert effect is not None
    assert math.exp(effect.value) == pytest.approx(5, rel=0.1)


def test_more_scatter_in_a_small_arm_widens_the_interval(rng: np.random.Generator) -> None:
    def run(sd_b: float) -> Effect:
        runs: list[Run] = []
        for _ in range(6000):
            arm = "b" if rng.random() < 0.1 else "a"
            runs.append((arm, 1, 1e-3 * math.exp(rng.normal() * (sd_b if arm == "b" else 0.1))))
        effect = found(fill(runs))
        assert effect is not None
        return effect

    even, uneven = run(0.1), run(0.3)

    assert uneven.high - uneven.low > 1.8 * (even.high - even.low)


def test_the_first_batches_of_each_arm_and_size_are_not_counted() -> None:
    strata = fill([("a", 8, 5.0)] * WARM_UP + [("b", 8, 5.0)] * WARM_UP)

    assert all(sums.counts.sum() == 0 for sums in strata.sums().values())


def test_memory_is_bounded_by_sizes_not_by_batches(rng: np.random.Generator) -> None:
    strata = fill([("ab"[one % 2], 1 + one % 200, 1e-3) for one in range(20_000)])

    sums = strata.sums()
    assert len(sums) == MAX_SIZES
    assert len(json.dumps(strata.to_json())) < 100_000


def test_what_was_seen_survives_as_json(rng: np.random.Generator) -> None:
    strata = fill(draw(rng, 500))

    again = Strata.from_json(json.loads(json.dumps(strata.to_json())))

    assert found(again) == found(strata)


def test_moments_that_favour_one_arm_are_noise_and_no_difference() -> None:
    """A moment on a busy machine slows all runs of one arm; the next, those of the other."""

    def is_wrong(seed: int) -> bool:
        rng, strata, shift = np.random.default_rng(seed), Strata(), 0.0
        for number in range(1500):
            if number % 12 == 0:
                shift = rng.normal() * 0.115  # as much as chance makes of two times six runs
            is_b = rng.random() < 0.5
            strata.add("ab"[is_b], number * 0.01, 1, 1e-3 * math.exp(rng.normal() * 0.2 + shift * is_b))
            effect = found(strata) if number % 100 == 99 else None
            if effect is not None and (effect.low > 0 or effect.high < 0):
                return True
        return False

    assert sum(map(is_wrong, range(100))) <= 5
