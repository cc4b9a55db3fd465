"""Runs that take one core each go on side by side; those that may use all cores have them for themselves."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from helpers.eventually import eventually
from helpers.fake_servable import rows

from tfserve_nb.serving.backend import Answer, Outcome
from tfserve_nb.serving.batching.lane import Lane
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.queue import BatchQueue
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.types import Tensors

CORES = 2
LONG_RUN_S, SHORT_RUN_S = 0.01, 0.0001


class Device:
    """Answers with its input, and notes which lanes ran at the same time."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.seen: set[frozenset[tuple[str, int]]] = set()
        self.lets_go = threading.Event()
        self._lock = threading.Lock()

    def run(self, name: str, inputs: Tensors) -> Tensors:
        with self._lock:
            self.now[name] += 1
            self.seen.add(frozenset((+self.now).items()))
        self.lets_go.wait(0.002 if inputs["x"][0, 0] >= 0 else None)
        with self._lock:
            self.now[name] -= 1
        return {"y": inputs["x"]}


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.lets_go.set()


@pytest.fixture
def runner(device: Device) -> Iterator[Runner]:
    runner = Runner("test", num_cores=CORES)
    yield runner
    device.lets_go.set()
    runner.stop()


def lane_of(runner: Runner, device: Device, name: str, *, one_core: bool, usual_s: float = LONG_RUN_S) -> Lane:
    """A lane of single rows whose runs took so long before."""
    queue = BatchQueue(BatchingOptions(1, max_enqueued_batches=1000))
    queue.ran(1, usual_s)
    return runner.attach(queue, partial(device.run, name), takes_one_core=lambda: one_core)


def ask(runner: Runner, lane: Lane, value: float, outcomes: list[Outcome]) -> None:
    runner.submit(lane, {"x": rows(value)}, 1, deadline_s=time.perf_counter() + 120, on_done=outcomes.append)


def test_runs_of_one_core_go_on_side_by_side(runner: Runner, device: Device) -> None:
    lane, outcomes = lane_of(runner, device, "narrow", one_core=True), list[Outcome]()
    runner.start()
    for _ in range(CORES + 1):
        ask(runner, lane, -1.0, outcomes)

    eventually(lambda: device.now["narrow"] == CORES)
    assert not outcomes
    device.lets_go.set()
    eventually(lambda: len(outcomes) == CORES + 1)
    assert max(dict(seen)["narrow"] for seen in device.seen) == CORES


@pytest.mark.parametrize(("one_core", "usual_s"), [(False, LONG_RUN_S), (True, SHORT_RUN_S)])
def test_runs_that_use_all_cores_or_are_short_come_one_after_the_other(
    runner: Runner, device: Device, one_core: bool, usual_s: float
) -> None:
    lane, outcomes = lane_of(runner, device, "x", one_core=one_core, usual_s=usual_s), list[Outcome]()
    runner.start()
    for _ in range(CORES + 1):
        ask(runner, lane, -1.0, outcomes)

    eventually(lambda: device.now["x"])
    device.lets_go.wait(0.2)  # time for another thread to begin with the next one, if it could
    assert device.seen == {frozenset({("x", 1)})}
    device.lets_go.set()
    eventually(lambda: len(outcomes) == CORES + 1)


def test_a_run_that_uses_all_cores_gets_its_turn_among_those_that_do_not(runner: Runner, device: Device) -> None:
    """Each finds one core free again and again, and never all of them unless the others wait for it."""
    names = {"narrow": True, "other": True, "wide": False}
    lanes = {name: lane_of(runner, device, name, one_core=one_core) for name, one_core in names.items()}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for name, lane in lanes.items():
        for value in range(100):
            ask(runner, lane, float(value), outcomes[name])
    runner.start()

    eventually(lambda: len(outcomes["wide"]) >= 10)
    assert min(len(outcomes["narrow"]), len(outcomes["other"])) < 100  # it did not have to wait until they were done
    eventually(lambda: all(len(found) == 100 for found in outcomes.values()))
    for seen in device.seen:
        assert sum(CORES if name == "wide" else num for name, num in seen) <= CORES, seen


@pytest.mark.parametrize("hanging", ["wide", "narrow"])
def test_a_run_that_hangs_holds_up_no_other_lane_though_a_thread_is_idle(
    runner: Runner, device: Device, hanging: str
) -> None:
    lanes = {name: lane_of(runner, device, name, one_core=name == "narrow") for name in ("narrow", "wide")}
    other = "wide" if hanging == "narrow" else "narrow"
    runner.start()
    ask(runner, lanes[hanging], -1.0, [])
    eventually(lambda: device.now[hanging])
    outcomes: list[Outcome] = []
    for value in (1.0, 2.0):
        ask(runner, lanes[other], value, outcomes)

    assert all(isinstance(outcome, Answer) for outcome in eventually(lambda: len(outcomes) == 2 and outcomes))
    assert device.now[hanging] == 1
