"""Shares of failures: against brute force, published examples and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tfserve_nb.experiment.statistics import rates
from tfserve_nb.experiment.statistics.rates import binomial_tail, difference

ALPHA = 0.05


@pytest.mark.parametrize("table", [(0, 40, 6, 50), (3, 100, 30, 200), (10, 30, 2, 25), (0, 20, 0, 20)])
def test_the_interval_holds_the_differences_that_no_pair_of_shares_contradicts(
    table: tuple[int, int, int, int],
) -> None:
    failed_a, num_a, failed_b, num_b = table
    grid = np.linspace(1e-6, 1 - 1e-6, 601)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    likelihood = binom.logpmf(failed_a, num_a, a) + binom.logpmf(failed_b, num_b, b)
    constants = [math.log(math.comb(n, k)) for k, n in ((failed_a, num_a), (failed_b, num_b))]
    mixture = rates._log_mixture(failed_a, num_a) + rates._log_mixture(failed_b, num_b)  # noqa: SLF001
    kept = (b - a)[mixture - (likelihood - sum(constants)) < -math.log(ALPHA)]

    found = difference(*table, ALPHA)

    assert found is not None
    assert found.low == pytest.approx(kept.min(), abs=4e-3)
    assert found.high == pytest.approx(kept.max(), abs=4e-3)


def test_watching_equal_shares_after_each_request_raises_few_alarms(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(60):
        fails = rng.random((2, 300)) < 0.04
        sums = fails.cumsum(axis=1)
        for n in range(10, 300, 30):
            found = difference(int(sums[0, n]), n + 1, int(sums[1, n]), n + 1, ALPHA)
            if found is not None and (found.low > 0 or found.high < 0):
                alarms += 1
                break

    assert alarms <= 3


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_swapping_the_arms_turns_the_interval_round(num_a: int, num_b: int, data: st.DataObject) -> None:
    failed_a, failed_b = data.draw(st.integers(0, num_a)), data.draw(st.integers(0, num_b))

    one, other = (
        difference(failed_a, num_a, failed_b, num_b, ALPHA),
        difference(failed_b, num_b, failed_a, num_a, ALPHA),
    )

    assert one is not None
    assert other is not None
    assert one.low <= one.value <= one.high
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-6)


def test_a_candidate_that_fails_once_in_ten_requests_is_found_out() -> None:
    found = difference(0, 150, 15, 150, ALPHA)

    assert found is not None
    assert found.low > 0
    assert found.p_value < ALPHA


def test_nothing_is_said_without_requests() -> None:
    assert difference(0, 0, 0, 10, ALPHA) is None


@given(st.integers(1, 400), st.data(), st.floats(1e-4, 0.9))
def test_the_binomial_tail_is_scipys(num: int, data: st.DataObject, p: float) -> None:
    hits = data.draw(st.integers(0, num))

    found = binomial_tail(hits, num, p)

    if hits > num * p:
        assert found == pytest.approx(binom.sf(hits - 1, num, p), rel=1e-6, abs=1e-300)
    else:
        assert found == 1.0
