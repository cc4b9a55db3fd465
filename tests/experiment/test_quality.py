"""Labels that come later: clients are the unit, and sureness is compared with being right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfserve_nb.experiment.statistics import quality
from tfserve_nb.experiment.statistics.quality import Labelled


def labelled(rights: np.ndarray, keys: list[str]) -> Labelled:
    found = Labelled()
    for is_right, key in zip(rights, keys, strict=True):
        found.add(key, bool(is_right), None)
    return found


def test_labels_of_one_client_count_as_one_unit(rng: np.random.Generator) -> None:
    rights = rng.random(100) < 0.7
    once = labelled(rights, [f"client-{one}" for one in range(100)])
    often = labelled(np.tile(rights, 5), [f"client-{one % 100}" for one in range(500)])
    strangers = labelled(np.tile(rights, 5), [""] * 500)

    assert often.num_units == once.num_units == 100
    assert often.variance() == pytest.approx(once.variance(), rel=0.1)
    assert strangers.variance() == pytest.approx(once.variance() / 5, rel=0.1)


def test_the_variance_is_that_of_a_ratio_over_clients() -> None:
    found = labelled(np.array([1, 1, 0, 1, 0]), ["x", "x", "x", "y", "z"])
    right, rows = np.array([2, 1, 0, 1, 0]), np.array([3, 1, 1, 1, 1])  # with one right and one wrong added
    p = right.sum() / rows.sum()

    assert found.variance() == pytest.approx(((right - p * rows) ** 2).sum() / rows.sum() ** 2 * 5 / 4)


def test_a_better_version_is_seen_and_identical_ones_are_not_told_apart(rng: np.random.Generator) -> None:
    keys = [""] * 1500
    a, same, better = (labelled(rng.random(1500) < p, keys) for p in (0.8, 0.8, 0.9))

    none, found = quality.effect(a, same, 0.05), quality.effect(a, better, 0.05)

    assert none is not None
    assert none.low < 0 < none.high
    assert found is not None
    assert found.low > 0


def test_looking_after_each_label_of_clustered_clients_raises_few_alarms(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(100):
        arms = Labelled(), Labelled()
        skill = rng.beta(2, 1, 400)
        for number in range(1200):
            client = int(rng.integers(400))
            arms[client % 2].add(str(client), bool(rng.random() < skill[client]), None)
            if number % 50 == 49:
                found = quality.effect(*arms, 0.05)
                if found is not None and (found.low > 0 or found.high < 0):
                    alarms += 1
                    break

    assert alarms <= 5


def test_calibration_error_of_known_bins() -> None:
    found = Labelled()
    for is_right in (True, True, True, False):
        found.add("", is_right, 0.95)
    for is_right in (True, False):
        found.add("", is_right, 0.55)

    calibration = Labelled.from_json(json.loads(json.dumps(found.to_json()))).calibration()

    assert calibration is not None
    assert calibration.num_rows == 6
    assert calibration.accuracy == pytest.approx(4 / 6)
    assert calibration.error == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)


def test_nothing_is_said_about_few_clients() -> None:
    few = labelled(np.ones(500), ["only one"] * 500)

    assert quality.effect(few, few, 0.05) is None
    assert few.calibration() is None
