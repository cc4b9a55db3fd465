"""The availability-preserving policy as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.serving.versions.lifecycle import Load, Unload, next_action
from tfserve_nb.types import VersionState

START, LOADING, AVAILABLE, UNLOADING, END = VersionState


@pytest.mark.parametrize(
    ("states", "aspired", "expected"),
    [
        ({}, set(), None),
        ({1: START}, {1}, Load(1)),
        ({1: START}, set(), None),
        ({1: START, 2: START}, {1, 2}, Load(2)),
        ({1: AVAILABLE, 2: START}, {2}, Load(2)),
        ({1: AVAILABLE, 2: LOADING}, {2}, None),
        ({1: AVAILABLE, 2: END}, {2}, None),
        ({1: AVAILABLE, 2: AVAILABLE}, {2}, Unload(1)),
        ({1: AVAILABLE, 2: AVAILABLE, 3: START}, {3}, Unload(1)),
        ({1: AVAILABLE}, set(), Unload(1)),
        ({1: AVAILABLE, 2: AVAILABLE}, {1, 2}, None),
        ({1: UNLOADING, 2: AVAILABLE}, {2}, None),
    ],
)
def test_next_action(states: dict[int, VersionState], aspired: set[int], expected: Load | Unload | None) -> None:
    assert next_action(states, aspired) == expected


@given(
    st.dictionaries(st.integers(1, 5), st.sampled_from([START, AVAILABLE]), max_size=5),
    st.sets(st.integers(1, 5), max_size=3),
)
def test_steps_lead_to_the_aspired_versions_without_a_gap(states: dict[int, VersionState], aspired: set[int]) -> None:
    states = {**dict.fromkeys(aspired, START), **states}
    had_one = AVAILABLE in states.values()
    for _ in range(20):
        action = next_action(states, aspired)
        if action is None:
            break
        states[action.version] = AVAILABLE if isinstance(action, Load) else END
        if had_one and aspired:
            assert AVAILABLE in states.values(), "nothing could answer"

    assert {version for version, state in states.items() if state is AVAILABLE} == aspired
