"""The garbage collector's long pauses stay away from requests, and nothing else changes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tfserve_nb.server import interpreter


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    assert gc.get_threshold() == before


class Node:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


def old_garbage() -> weakref.ref[Node]:
    """Garbage that only a full collection finds."""
    node = Node()
    gc.collect()
    gc.collect()
    return weakref.ref(node)


def test_the_thresholds_come_back_with_the_last_server(thresholds) -> None:
    interpreter.server_starts()
    interpreter.server_starts()
    assert gc.get_threshold() != thresholds
    interpreter.server_stopped()
    assert gc.get_threshold() != thresholds
    interpreter.server_stopped()
    assert gc.get_threshold() == thresholds


def test_what_the_user_sets_meanwhile_stays(thresholds) -> None:
    interpreter.server_starts()
    gc.set_threshold(123, 4, 5)
    interpreter.server_stopped()
    assert gc.get_threshold() == (123, 4, 5)
    gc.set_threshold(*thresholds)


def test_a_collector_that_is_switched_off_stays_off() -> None:
    gc.disable()
    try:
        interpreter.server_starts()
        interpreter.server_stopped()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_old_garbage_goes_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter.server_starts()
    try:
        found = old_garbage()
        monkeypatch.setattr(interpreter, "PENDING", 0)
        monkeypatch.setattr(interpreter._state, "done_s", 0.0)  # noqa: SLF001 - as if the last one was long ago
        monkeypatch.setattr(interpreter._state, "took_s", 0.0)  # noqa: SLF001
        monkeypatch.setattr(interpreter, "LONGEST_S", float("inf"))

        interpreter.collect_when_idle(is_idle=False)
        assert found() is not None

        interpreter.collect_when_idle(is_idle=True)
        assert found() is None
    finally:
        interpreter.server_stopped()


def test_nothing_is_collected_for_a_user_with_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = old_garbage()
    monkeypatch.setattr(interpreter, "PENDING", 0)

    interpreter.collect_when_idle(is_idle=True)

    assert found() is not None
    gc.collect()
