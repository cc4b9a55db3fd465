"""The mixture behind all intervals: against integration, against simulation, and against published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from tfserve_nb.experiment.statistics import sequential
from tfserve_nb.experiment.statistics.sequential import PRIOR

ALPHA = 0.05


@pytest.mark.parametrize(
    ("value", "variance", "information"), [(0.1, 0.001, 40.0), (-0.3, 0.02, 10.0), (0.0, 1.0, 3.0)]
)
def test_evidence_is_the_likelihood_ratio_averaged_over_normal_effects(
    value: float, variance: float, information: float
) -> None:
    tau = math.sqrt(variance * information / PRIOR)
    error = math.sqrt(variance)

    averaged, _ = quad(lambda d: norm.pdf(value, d, error) * norm.pdf(d, 0, tau), -9, 9, points=[value, 0], limit=500)

    found = math.exp(sequential.log_evidence(value / error, information, math.inf))
    assert found == pytest.approx(averaged / norm.pdf(value, 0, error), rel=1e-6)


def test_evidence_with_estimated_variance_is_the_ratio_of_integrated_likelihoods() -> None:
    """One sample of normal values: mean and variance integrated out, the variance with Jeffreys' prior."""
    values = np.array([0.3, -0.1, 0.8, 0.5, 0.2])
    n, mean, rest = len(values), values.mean(), ((values - values.mean()) ** 2).sum()

    def integrated(spread: float) -> float:
        # Given sigma, the mean is normal with variance sigma^2 (1/n + spread); the sum of squares is its own factor.
        def density(log_sigma: float) -> float:
            sigma = math.exp(log_sigma)
            return (
                sigma ** -(n - 1)
                * math.exp(-rest / (2 * sigma**2))
                * norm.pdf(mean, 0, sigma * math.sqrt(1 / n + spread))
            )

        return quad(density, -8, 8, limit=400)[0]

    t = mean / math.sqrt(rest / (n - 1) / n)

    found = math.exp(sequential.log_evidence(t, n, n - 1))
    assert found == pytest.approx(integrated(1 / PRIOR) / integrated(0.0), rel=1e-6)


@given(st.floats(0.5, 1e5), st.floats(1, 1e6) | st.just(math.inf), st.floats(1e-4, 0.5))
def test_the_critical_distance_is_where_evidence_reaches_one_over_alpha(
    information: float, df: float, alpha: float
) -> None:
    critical = sequential.critical_t(information, df, alpha)

    if math.isinf(critical):
        assert sequential.log_evidence(1e9, information, df) <= -math.log(alpha) + 1e-6
    else:
        assert sequential.log_evidence(critical, information, df) == pytest.approx(-math.log(alpha), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("n", [5, 100, 10_000])
def test_the_interval_is_the_asymptotic_confidence_sequence_as_published(n: int) -> None:
    rho_squared = 1 / PRIOR
    published = math.sqrt(
        2 * (n * rho_squared + 1) / (n**2 * rho_squared) * math.log(math.sqrt(n * rho_squared + 1) / ALPHA)
    )

    found = sequential.effect(0.0, 1 / n, n, math.inf, alpha=ALPHA, num_a=n, num_b=n)

    assert found.high == pytest.approx(published)


def test_looking_after_each_value_raises_false_alarms_in_less_than_five_percent_although_the_variance_is_estimated(
    rng: np.random.Generator,
) -> None:
    runs, length = 4000, 400
    values = rng.normal(size=(runs, length)) * 7
    n = np.arange(1, length + 1)
    means = values.cumsum(axis=1) / n
    rests = (values**2).cumsum(axis=1) - n * means**2
    alarmed = np.zeros(runs, bool)
    for at in range(2, length):
        t = means[:, at] / np.sqrt(rests[:, at] / at / n[at])
        alarmed |= np.abs(t) > sequential.critical_t(float(n[at]), float(at), ALPHA)

    # The bound is 5 %; a naive test at each look alarms in more than half of the runs.
    assert 0.005 < alarmed.mean() < 0.05


def test_evidence_grows_with_an_effect_and_more_data_makes_the_interval_narrow() -> None:
    early = sequential.effect(0.1, 0.01, 50, 98, alpha=ALPHA, num_a=100, num_b=100)
    late = sequential.effect(0.1, 0.0001, 5000, 9998, alpha=ALPHA, num_a=10_000, num_b=10_000)

    assert early.low < 0 < early.high
    assert late.low > 0
    assert late.p_value < ALPHA < early.p_value
    assert early.half_width(100, ALPHA) == pytest.approx((late.high - late.low) / 2, rel=0.02)


def test_two_values_are_no_evidence() -> None:
    found = sequential.effect(1.0, 1e-9, 0.5, 1, alpha=ALPHA, num_a=1, num_b=1)

    assert math.isinf(found.high)
    assert found.half_width(10, ALPHA) == math.inf
