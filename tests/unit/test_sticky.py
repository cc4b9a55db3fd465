"""Clients with a key stay with their version, and move only as far as weights do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.models.routing import Routing
from tfserve_nb.serving.traffic import choose_by_key

NET = ModelSpec("net")
KEYS = [f"user-{number}" for number in range(4000)]

weights = st.dictionaries(st.integers(1, 9), st.floats(0.01, 100), min_size=2, max_size=5)


def never() -> float:
    raise AssertionError("no random number is needed")


@given(weights, st.text(), st.text())
def test_the_same_key_always_gets_the_same_version(given_weights: dict[int, float], salt: str, key: str) -> None:
    chosen = choose_by_key(given_weights, salt, key)

    assert chosen in given_weights
    assert chosen == choose_by_key(dict(reversed(given_weights.items())), salt, key)


@given(weights, st.data(), st.floats(1, 1000), st.text(max_size=5), st.lists(st.text(), min_size=1, max_size=30))
def test_a_version_whose_weight_grows_only_wins_keys(
    before: dict[int, float], data: st.DataObject, factor: float, salt: str, keys: list[str]
) -> None:
    grown = data.draw(st.sampled_from(sorted(before)))
    after = {**before, grown: before[grown] * factor}
    total = sum(after.values())
    after = {version: 100 * weight / total for version, weight in after.items()}

    for key in keys:
        old, new = choose_by_key(before, salt, key), choose_by_key(after, salt, key)
        assert new in (old, grown)


@pytest.mark.parametrize("split", [{1: 50.0, 2: 50.0}, {1: 99.0, 2: 1.0}, {1: 20.0, 2: 30.0, 3: 50.0}])
def test_each_version_gets_its_share_of_the_keys(split: dict[int, float]) -> None:
    chosen = [choose_by_key(split, "salt", key) for key in KEYS]

    for version, percent in split.items():
        share = percent / 100
        spread = (share * (1 - share) / len(KEYS)) ** 0.5
        assert abs(chosen.count(version) / len(KEYS) - share) < 4 * spread


def test_another_salt_draws_anew() -> None:
    split = {1: 50.0, 2: 50.0}
    same = sum(choose_by_key(split, "one", key) == choose_by_key(split, "two", key) for key in KEYS)

    assert 0.45 < same / len(KEYS) < 0.55
    assert choose_by_key(split, "1:a", "b") in split


def test_canary_steps_only_move_clients_to_the_candidate() -> None:
    routing = Routing("net").promote(1).with_split({1: 100}, salt="s", arms={1: "a", 2: "b"})
    before: set[str] = set()
    for percent in (1, 5, 25, 50, 100):
        routing = routing.with_traffic({1: 100 - percent, 2: percent})
        with_b = {key for key in KEYS if routing.version_for(NET, never, None, key) == 2}
        assert before <= with_b
        assert abs(len(with_b) / len(KEYS) - percent / 100) < 0.03
        before = with_b


def test_what_the_request_names_and_what_a_worker_prefers_comes_before_the_key() -> None:
    routing = Routing("net").promote(1).with_traffic({1: 50, 2: 50}).with_label("old", 1)

    assert {routing.version_for(ModelSpec("net", 1), never, None, key) for key in KEYS[:50]} == {1}
    assert {routing.version_for(ModelSpec("net", label="old"), never, None, key) for key in KEYS[:50]} == {1}
    assert {routing.version_for(NET, never, 2, key) for key in KEYS[:50]} == {2}
