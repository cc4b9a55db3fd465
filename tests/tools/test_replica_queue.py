"""The simulation behind docs/scaling.md, where the answer is known without one."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("replica_queue")


def test_one_at_a_time_it_is_the_queue_of_pollaczek_and_khinchine(queue: ModuleType) -> None:
    """Constant service of 1 s, 0.8 of the time busy: a request takes 1 + 0.8 / (2 · 0.2) = 3 s in the mean."""
    taken = queue.latencies(0.8, 1, queue.Cost(turn_s=0.0, request_s=1.0), requests=60_000, max_batch=1)

    assert np.mean(taken) == pytest.approx(3.0, rel=0.1)
    assert np.min(taken) == pytest.approx(1.0)


def test_turns_without_a_limit_make_a_request_wait_for_half_a_turn(queue: ModuleType) -> None:
    """Turns of 1 s that follow each other: a request waits 0.5 s in the mean for the end of one, and takes the next."""
    taken = queue.latencies(100.0, 1, queue.Cost(turn_s=1.0, request_s=0.0), requests=20_000)

    assert np.mean(taken) == pytest.approx(1.5, rel=0.02)
    assert np.max(taken) <= 2.0


def test_every_request_is_answered_once_and_more_replicas_answer_sooner(queue: ModuleType) -> None:
    cost = queue.Cost(turn_s=0.001, request_s=0.01)
    p99 = {
        replicas: np.percentile(queue.latencies(90.0 * replicas, replicas, cost, requests=20_000), 99)
        for replicas in (1, 8)
    }

    assert len(queue.latencies(90.0, 1, cost, requests=1000)) == 900
    assert p99[8] < p99[1] / 2, "the shorter of two queues"


def test_the_replicas_that_are_needed_are_the_fewest(queue: ModuleType) -> None:
    cost = queue.Cost(turn_s=0.001, request_s=0.01)
    found = queue.needed(400.0, cost, limit_s=0.1)

    assert np.percentile(queue.latencies(400.0, found, cost, requests=10_000), 99) <= 0.1
    assert np.percentile(queue.latencies(400.0, found - 1, cost, requests=10_000), 99) > 0.1
    assert queue.needed(400.0, cost, limit_s=0.1, at_most=2) is None
