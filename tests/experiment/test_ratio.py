"""The sample-ratio light: silent when shares are right, and red when requests get lost."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, binom

from tfserve_nb.experiment.state import SRM_LIMIT
from tfserve_nb.experiment.statistics.ratio import CONCENTRATION, MOST_KEYS, Assigned, log_evidence


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.05, 0.5, 0.9]))
def test_evidence_is_the_likelihood_ratio_averaged_over_shares(num_a: int, num_b: int, share: float) -> None:
    prior = beta(CONCENTRATION * share, CONCENTRATION * (1 - share))
    likeliest = (CONCENTRATION * share + num_b) / (CONCENTRATION + num_a + num_b)

    averaged, _ = quad(lambda s: prior.pdf(s) * binom.pmf(num_b, num_a + num_b, s), 0, 1, points=[likeliest], limit=300)

    expected = averaged / binom.pmf(num_b, num_a + num_b, share)
    assert math.exp(log_evidence(num_a, num_b, share)) == pytest.approx(expected, rel=1e-4)


def test_watching_right_shares_after_each_request_hardly_ever_turns_the_light_red(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(100):
        hits = np.cumsum(rng.random(2000) < 0.1)
        alarms += any(log_evidence(n - int(hits[n - 1]), int(hits[n - 1]), 0.1) > -math.log(0.05)
                      for n in range(1, 2001))  # fmt: skip

    assert alarms <= 5  # the bound is 5 %


def test_one_lost_answer_in_five_is_seen_within_two_thousand_requests(rng: np.random.Generator) -> None:
    assigned = Assigned(0.5)
    for _ in range(2000):
        arm = "ab"[rng.integers(2)]
        if arm == "a" or rng.random() > 0.2:
            assigned.add(arm, 1.0, 1.0, "")

    assigned.settle(99.0)
    assert assigned.p_value() < SRM_LIMIT


def test_a_batch_of_one_arm_is_no_mismatch_while_the_other_arms_is_being_answered() -> None:
    assigned = Assigned(0.5)
    for number in range(32):
        assigned.add("a", 0.001 * number, 0.1, "")
    early = assigned.counts(), assigned.p_value()
    for number in range(32):
        assigned.add("b", 0.001 * number, 0.15, "")
    assigned.settle(10.0)

    assert early == ((0, 0), 1.0)
    assert assigned.counts() == (32, 32)


def test_requests_that_are_never_answered_are_missed() -> None:
    assigned = Assigned(0.5)
    for number in range(200):
        assigned.add("a", 0.01 * number, 0.01 * number + 0.005, "")

    assert assigned.p_value() < SRM_LIMIT


def test_a_client_counts_once_however_much_it_asks() -> None:
    assigned = Assigned(0.5)
    for number in range(5000):
        assigned.add("b", 1.0, 1.0, f"client-{number % 2}")
        assigned.add("a", 1.0, 1.0, f"client-{2 + number % 2}")
        assigned.add("b", 1.0, 1.0, "client-0")

    assigned.settle(99.0)
    assert assigned.counts() == (2, 2)
    assert assigned.p_value() == 1.0
    assert assigned.has_keys


def test_requests_count_for_the_share_of_the_moment_in_which_they_came() -> None:
    assigned = Assigned(0.1)
    for number in range(1000):
        assigned.add("b" if number % 10 == 0 else "a", 1.0, 1.0, "")
    assigned.set_share(0.5, 10.0)
    assigned.add("a", 9.9, 10.1, "")  # came before the change, was answered after it
    for number in range(1000):
        assigned.add("ab"[number % 2], 11.0, 11.0, "")

    assigned.settle(99.0)
    expected = assigned.expected()
    assert assigned.counts() == (900 + 1 + 500, 100 + 500)
    assert expected == pytest.approx((0.9 * 1001 + 500, 0.1 * 1001 + 500))
    assert assigned.p_value() == 1.0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_split_of_all_or_nothing_is_not_judged(share: float) -> None:
    assert log_evidence(10, 1, share) == 0.0


def test_counts_and_known_keys_survive_as_json() -> None:
    assigned = Assigned(0.2)
    assigned.add("a", 0.0, 0.0, "one")
    assigned.set_share(0.5, 5.0)
    assigned.add("b", 6.0, 6.0, "")

    assigned.settle(7.0)
    again = Assigned.from_json(json.loads(json.dumps(assigned.to_json())))
    again.add("a", 7.0, 7.0, "one")

    assert again.counts() == (1, 1)
    assert again.expected() == assigned.expected()
    assert again.has_keys


def test_the_number_of_remembered_keys_is_bounded() -> None:
    assigned = Assigned(0.5)
    for number in range(MOST_KEYS + 500):
        assigned.add("a", 0.0, 0.0, str(number))

    assigned.settle(99.0)
    assert assigned.counts() == (MOST_KEYS, 0)
