"""Routing values: promotion, rollback, labels, traffic and what must stay loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import ConfigRejected, InvalidOption, LabelNotFound, ModelNotFound, ServingError, VersionNotFound
from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.models.model_config import ModelConfig, check_configs
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.models.routing import Routing
from tfserve_nb.serving.traffic import Shadow, choose

NET = ModelSpec("net")


def test_promoted_version_gets_all_traffic() -> None:
    routing = Routing("net").promote(1).promote(2)

    assert routing.default_version == 2
    assert routing.version_for(NET, lambda: 0.99) == 2


def test_rollback_goes_back_step_by_step_and_then_says_so() -> None:
    routing = Routing("net").promote(1).promote(2).promote(3)

    routing = routing.roll_back()
    assert routing.default_version == 2
    routing = routing.roll_back()
    assert routing.default_version == 1

    with pytest.raises(VersionNotFound, match="no earlier version"):
        routing.roll_back()


def test_rollback_during_a_comparison_gives_everything_to_a_whatever_was_promoted_last() -> None:
    routing = Routing("net").promote(1).promote(2).with_split({1: 50, 2: 50}, arms={1: "a", 2: "b"})

    routing = routing.roll_back()

    assert (routing.traffic, routing.default_version, routing.arms) == ({1: 100.0}, 1, {})


@pytest.mark.parametrize("end", [lambda one: one.with_split({1: 100}), lambda one: one.roll_back()])
def test_after_a_rejected_candidate_the_version_before_stays_loaded(end: Callable[[Routing], Routing]) -> None:
    routing = Routing("net").promote(1).used(2).with_split({1: 90, 2: 10}, arms={1: "a", 2: "b"})

    routing = end(routing).promote(3)

    assert routing.aspired(2) == {1, 3}
    assert routing.roll_back().default_version == 1


def test_rollback_during_a_split_ends_the_split_first() -> None:
    routing = Routing("net").promote(3).with_traffic({3: 90, 4: 10})

    routing = routing.roll_back()

    assert routing.traffic == {3: 100.0}
    assert routing.default_version == 3


def test_rollback_to_a_version_forgets_what_came_after_it() -> None:
    routing = Routing("net").promote(1).promote(2).promote(3).roll_back(to=1)

    assert routing.promoted == (1,)


def test_rolled_back_version_stays_loaded() -> None:
    routing = Routing("net").promote(1).promote(2).roll_back()

    assert routing.aspired(keep=2) == {1, 2}


def test_keep_limits_what_stays_loaded_but_never_what_is_used() -> None:
    routing = Routing("net").promote(1).promote(2).promote(3).promote(4)

    assert routing.aspired(keep=2) == {3, 4}
    assert routing.aspired(keep=1) == {4}
    assert routing.with_label("old", 1).stage(2).aspired(keep=1) == {1, 2, 4}


def test_labels_lead_to_versions_and_unknown_ones_are_refused() -> None:
    routing = Routing("net").promote(2).with_label("stable", 1)

    assert routing.version_for(ModelSpec("net", label="stable"), lambda: 0.0) == 1
    with pytest.raises(LabelNotFound, match="Unrecognized servable version label: beta"):
        routing.version_for(ModelSpec("net", label="beta"), lambda: 0.0)
    with pytest.raises(LabelNotFound):
        routing.with_label("beta", None)
    assert routing.with_label("stable", None).labels == {}


@pytest.mark.parametrize("label", ["7", "007", "-7", "+7", "1_0", "\uff17"])
def test_labels_that_are_whole_numbers_are_refused_and_old_ones_can_be_removed(label: str) -> None:
    for refused in (lambda: Routing("net").with_label(label, 1), lambda: Placement(label)):
        with pytest.raises(InvalidOption, match=f"label {re.escape(repr(label))} is a whole number"):
            refused()
    config = ModelConfig("net", "/models/net", labels={label: 1})
    with pytest.raises(ConfigRejected, match=f"Model net: label {re.escape(repr(label))} is a whole number"):
        check_configs([config], {})

    assert Routing("net", labels={label: 1}).with_label(label, None).labels == {}


def test_copies_go_both_ways_while_versions_are_compared() -> None:
    routing = Routing("net").promote(1).promote(2)
    alone = routing.with_shadow(Shadow(1, 20.0))
    compared = routing.with_split({1: 50.0, 2: 50.0}, arms={1: "a", 2: "b"}, shadow=Shadow(2, 20.0))

    assert (alone.copies_of(2), alone.copies_of(1), alone.copied_to) == (Shadow(1, 20.0), None, {1})
    assert (compared.copies_of(1), compared.copies_of(2)) == (Shadow(2, 20.0), Shadow(1, 20.0))
    assert (compared.copied_to, routing.copied_to) == ({1, 2}, frozenset())


@pytest.mark.parametrize("label", ["", "a b", "a/b", "a:b", 7, None, ["a"]])
def test_labels_that_cannot_stand_in_a_url_are_refused(label: str) -> None:
    for version in (1, None):
        with pytest.raises(InvalidOption, match="label"):
            Routing("net").with_label(label, version)


@pytest.mark.parametrize(
    "label",
    [".", "..", ".a", "%2e", "a%2fb", "a#b", "?", "/", ":", "a\\b", "a\n", "a\0", "\u2028", "x" * 201, "\uff0e"],
)
def test_labels_have_the_rule_of_names_and_old_ones_answer_and_can_be_removed(label: str) -> None:
    shown = re.escape(f"label {label!r} cannot be a label")
    for refused in (lambda: Routing("net").with_label(label, 1), lambda: Placement(label)):
        with pytest.raises(InvalidOption, match=shown) as caught:
            refused()
        assert len(str(caught.value.message).splitlines()) == 1
    with pytest.raises(ConfigRejected, match="label"):
        check_configs([ModelConfig("net", "/models/net", labels={label: 1})], {})

    old = Routing("net", labels={label: 1}).restricted_to(frozenset({1}))
    assert old.version_for(ModelSpec("net", label=label), lambda: 0.0) == 1
    assert old.with_label(label, None).labels == {}


def test_version_in_use_cannot_be_removed() -> None:
    routing = Routing("net").promote(1).promote(2).with_label("stable", 1)

    with pytest.raises(InvalidOption, match="version 2 of net still has 100 % of the traffic"):
        routing.without(2)
    with pytest.raises(InvalidOption, match="label stable"):
        routing.without(1)


def test_nothing_promoted_means_not_found_with_the_word_servable() -> None:
    with pytest.raises(ModelNotFound, match=r"Servable not found for request: Latest\(net\)"):
        Routing("net").version_for(NET, lambda: 0.5)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ({1: 90, 2: 5}, "sums to 95"),
        ({1: 101}, "percentage"),
        ({1: -1, 2: 101}, "percentage"),
        ({1: True}, "percentage"),
        ({}, "sums to 0"),
    ],
)
def test_weights_that_are_no_percentages_are_refused(weights: dict[int, float], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        Routing("net").with_traffic(weights)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_split_gives_each_version_its_share(parts: list[int]) -> None:
    weights = {version: part * 100 / sum(parts) for version, part in enumerate(parts, 1)}
    draws = [choose(weights, (index + 0.5) / 2000) for index in range(2000)]

    for version, percent in weights.items():
        assert abs(draws.count(version) / 20 - percent) <= 0.2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.integers(1, 5)),
        st.tuples(st.just("stage"), st.integers(1, 5)),
        st.tuples(st.just("roll_back"), st.one_of(st.none(), st.integers(1, 5))),
        st.tuples(st.just("label"), st.integers(1, 5)),
        st.tuples(st.just("split"), st.integers(1, 4)),
        st.tuples(st.just("without"), st.integers(1, 5)),
        st.tuples(st.just("shadow"), st.one_of(st.none(), st.integers(1, 5))),
        st.tuples(st.just("compare"), st.integers(1, 4)),
    ),
    max_size=25,
)


@given(STEPS, st.integers(1, 3))
def test_any_sequence_keeps_used_versions_loaded_and_survives_storage(steps: list[tuple[str, int]], keep: int) -> None:
    routing = Routing("net")
    for action, version in steps:
        try:
            if action == "label":
                routing = routing.with_label("stable", version)
            elif action == "split":
                routing = routing.with_traffic({version: 30, version + 1: 70})
            elif action == "shadow":
                routing = routing.with_shadow(None if version is None else Shadow(version, 20.0))
            elif action == "compare":
                arms = {version: "a", version + 1: "b"}
                routing = routing.with_split({version: 100}, salt="s", arms=arms, shadow=Shadow(version + 1))
            else:
                routing = getattr(routing, action)(version)
        except ServingError:
            continue
        for left in (routing, *(routing.restricted_to(frozenset(range(1, one))) for one in (3, 5))):
            if left.shadow is not None:
                assert left.shadow.version != left.sole
                assert left.shadow.version in left.aspired(keep)
            assert left.arms.keys() <= left.aspired(keep)
            assert left.is_plain == (len(left.traffic) < 2 and not left.arms and left.shadow is None)
        if routing.promoted:
            assert abs(sum(routing.traffic.values()) - 100) < 1e-6
            assert routing.version_for(NET, lambda: 0.3) in routing.aspired(keep)
            assert routing.default_version in routing.aspired(keep)
        assert set(routing.labels.values()) <= routing.aspired(keep)
        assert len(set(routing.promoted)) == len(routing.promoted)
        assert from_json(json.loads(json.dumps(to_json(routing))), Routing) == routing


def test_stored_routing_is_cut_down_to_what_is_still_on_disk() -> None:
    routing = Routing("net").promote(1).promote(2).promote(3).with_label("old", 2)

    left = routing.restricted_to(frozenset({1, 3}))

    assert (left.promoted, left.labels, left.traffic) == ((1, 3), {}, {3: 100.0})
    assert routing.restricted_to(frozenset({1})).traffic == {1: 100.0}


def test_promoting_or_going_back_ends_the_comparison_and_its_copies() -> None:
    compared = (
        Routing("net")
        .promote(1)
        .with_split({1: 90, 2: 10}, salt="s", key_header="X-User", arms={1: "a", 2: "b"}, shadow=Shadow(2, 20))
    )

    for ended in (compared.promote(1), compared.promote(2), compared.promote(3), compared.roll_back()):
        assert (ended.arms, ended.shadow, ended.is_plain) == ({}, None, True)
        assert (ended.salt, ended.key_header) == ("s", "x-user")
    assert compared.promote(1).default_version == compared.roll_back().default_version == 1


def test_copies_beside_a_comparison_stay_when_another_version_is_promoted() -> None:
    routing = Routing("net").promote(1).with_shadow(Shadow(2, 50))

    assert routing.promote(3).shadow == (2, 50)
    assert routing.promote(2).shadow is None
    assert routing.with_shadow(None).shadow is None
    assert routing.with_traffic({2: 100}).shadow is None
    with pytest.raises(InvalidOption, match=r"copies of other versions' requests"):
        routing.without(2)


def test_changing_the_traffic_keeps_salt_arms_and_copies() -> None:
    routing = Routing("net").promote(1).with_split({1: 99, 2: 1}, salt="s", arms={1: "a", 2: "b"}, shadow=Shadow(2, 20))

    after = routing.with_traffic({1: 50, 2: 50})

    assert (after.salt, after.arms, after.shadow) == ("s", {1: "a", 2: "b"}, (2, 20))
    assert routing.with_split({1: 50, 2: 50}).salt == "s"
    assert routing.with_split({1: 50, 2: 50}).shadow is None
    assert routing.with_split({2: 100}, arms={1: "a", 2: "b"}, shadow=Shadow(2, 20)).shadow is None


@pytest.mark.parametrize(
    "wrong", [{"key_header": name} for name in ("", "a b", "a:b", "a\r\nb", "é", 7)] + [{"salt": 7}]
)
def test_what_every_request_would_stumble_over_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Routing("net").with_split({1: 50, 2: 50}, **wrong)


def test_arms_have_the_names_a_and_b() -> None:
    with pytest.raises(InvalidOption, match="arm 'control'"):
        Routing("net").with_split({1: 50, 2: 50}, arms={1: "control", 2: "b"})


def test_routing_that_was_stored_before_there_were_comparisons_is_read() -> None:
    stored = to_json(Routing("net").promote(1))
    for name in ("salt", "key_header", "arms", "shadow"):
        del stored[name]

    assert from_json(stored, Routing) == Routing("net").promote(1)
