"""A run that takes long or hangs holds up nothing but itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.eventually import eventually
from helpers.fake_servable import rows

from tfserve_nb.errors import DeadlineExceeded, NotAvailable, RunRejected
from tfserve_nb.serving.backend import Answer, Outcome
from tfserve_nb.serving.batching.lane import Lane
from tfserve_nb.serving.batching.long_runs import MAX_OVERDUE
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.queue import BatchQueue
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.types import Tensors

HANGS = -7.0
"""A run with this value in it waits for the gate."""

LONG_S = 120.0


@dataclass
class Model:
    """Answers with its input; hangs on one value, until it is let go."""

    gate: threading.Event = field(default_factory=threading.Event)
    runs: list[list[float]] = field(default_factory=list)
    num_now: int = 0
    most_at_once: int = 0

    def run(self, inputs: Tensors, wait: Callable[[], object] | None = None) -> Tensors:
        self.num_now += 1
        self.most_at_once = max(self.most_at_once, self.num_now)
        self.runs.append([float(value) for value in inputs["x"][:, 0]])
        try:
            if (inputs["x"] == HANGS).any():
                (wait or self.gate.wait)()
        finally:
            self.num_now -= 1
        return {"y": inputs["x"]}

    def run_within(self, inputs: Tensors, limit_s: float) -> Tensors:
        """As TensorFlow with `timeout_in_ms`."""

        def wait() -> None:
            if not self.gate.wait(limit_s):
                raise DeadlineExceeded("Timed out waiting for notification")

        return self.run(inputs, wait)


class Asked:
    """A request and what came back."""

    def __init__(self, runner: Runner, lane: Lane, *values: float, limit_s: float = LONG_S) -> None:
        self.outcomes: list[Outcome] = []
        deadline_s = time.perf_counter() + limit_s
        inputs = {"x": rows(*values)}
        self.task = runner.submit(lane, inputs, len(values), deadline_s=deadline_s, on_done=self.outcomes.append)

    def outcome(self) -> Outcome:
        return eventually(lambda: self.outcomes)[0]

    def answer(self) -> np.ndarray:
        outcome = self.outcome()
        assert isinstance(outcome, Answer), outcome
        return outcome.outputs["y"][:, 0]


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.gate.set()


@pytest.fixture
def runner(model: Model) -> Iterator[Runner]:
    runner = Runner("test", num_cores=2)  # as in a kernel: one run at a time, unless each takes one core
    yield runner
    model.gate.set()
    runner.stop()


def num_threads() -> int:
    return sum(thread.name.startswith("tfserve-runner-test") for thread in threading.enumerate())


def lane_of(runner: Runner, model: Model, *, stops: bool = False, size: int = 8) -> Lane:
    return runner.attach(BatchQueue(BatchingOptions(size)), model.run, run_within=model.run_within if stops else None)


@pytest.mark.parametrize("is_background", [False, True])
def test_other_models_are_answered_while_a_run_hangs(runner: Runner, model: Model, is_background: bool) -> None:
    hanging = runner.attach(BatchQueue(BatchingOptions(8)), model.run, is_background=is_background)
    other = lane_of(runner, Model())
    runner.start()
    Asked(runner, hanging, HANGS)
    eventually(lambda: model.runs)

    assert [Asked(runner, other, value).answer().tolist() for value in (1.0, 2.0)] == [[1.0], [2.0]]
    assert "has been going on for" in runner.long_run([hanging])
    assert not runner.long_run([other])

    model.gate.set()
    eventually(lambda: not runner.long_run([hanging]))
    eventually(lambda: num_threads() == 3)  # two that run, one that watches


def test_a_model_that_is_slow_but_in_time_does_not_run_twice_at_once(runner: Runner, model: Model) -> None:
    lane, other = lane_of(runner, model, size=1), lane_of(runner, Model())
    runner.start()
    first, second = Asked(runner, lane, HANGS), Asked(runner, lane, 1.0)
    Asked(runner, other, 5.0).answer()
    assert not second.outcomes
    model.gate.set()

    assert first.answer().tolist() == [HANGS]
    assert second.answer().tolist() == [1.0]
    assert model.most_at_once == 1


@pytest.mark.parametrize("stops", [True, False])
def test_requests_with_time_left_are_answered_without_the_one_whose_run_is_overdue(
    runner: Runner, model: Model, stops: bool
) -> None:
    lane = lane_of(runner, model, stops=stops)
    late = Asked(runner, lane, HANGS, limit_s=2.0)
    mates = [Asked(runner, lane, 1.0), Asked(runner, lane, 2.0, 3.0)]
    runner.start()

    assert [mate.answer().tolist() for mate in mates] == [[1.0], [2.0, 3.0]]
    assert isinstance(late.outcome(), DeadlineExceeded)
    assert len(model.runs[0]) == 4, "they shared a run"
    model.gate.set()
    eventually(lambda: not runner.long_run([lane]))
    assert [len(asked.outcomes) for asked in (late, *mates)] == [1, 1, 1]


def test_a_run_that_was_given_up_and_ends_late_changes_no_answer(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model, size=2)
    late = Asked(runner, lane, HANGS, limit_s=2.0)
    large = Asked(runner, lane, 1.0, 2.0, 3.0, 4.0, 5.0)
    runner.start()

    assert isinstance(late.outcome(), DeadlineExceeded)
    assert large.answer().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    model.gate.set()
    eventually(lambda: not runner.long_run([lane]))
    assert Asked(runner, lane, 9.0).answer().tolist() == [9.0]


def test_a_stopped_run_does_not_hide_an_error_of_a_batch_mate(runner: Runner, model: Model) -> None:
    def run_within(inputs: Tensors, limit_s: float) -> Tensors:
        if len(inputs["x"]) == 1 and inputs["x"][0, 0] == 1.0:
            raise RunRejected("bad value")
        return model.run_within(inputs, limit_s)

    lane = runner.attach(BatchQueue(BatchingOptions(8)), model.run, run_within=run_within)
    late, bad = Asked(runner, lane, HANGS, limit_s=1.0), Asked(runner, lane, 1.0)
    runner.start()

    assert isinstance(late.outcome(), DeadlineExceeded)
    assert isinstance(bad.outcome(), RunRejected)


def test_a_model_whose_runs_all_hang_refuses_until_one_of_them_ends(runner: Runner, model: Model) -> None:
    lane, other = lane_of(runner, model), lane_of(runner, Model())
    runner.start()
    for number in range(MAX_OVERDUE):
        assert isinstance(Asked(runner, lane, HANGS, limit_s=0.5).outcome(), DeadlineExceeded)
        eventually(lambda number=number: lane.num_overdue == number + 1)

    with pytest.raises(NotAvailable, match="have not ended at their deadline") as refused:
        Asked(runner, lane, 1.0)
    assert refused.value.retry_after_s
    assert "after the deadline" in runner.long_run([lane])
    assert Asked(runner, other, 4.0).answer().tolist() == [4.0]

    model.gate.set()
    eventually(lambda: not lane.num_overdue)
    assert Asked(runner, lane, 1.0).answer().tolist() == [1.0]


def test_an_unloaded_version_is_not_opened_again_by_a_run_that_ends_late(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    runner.start()
    for number in range(MAX_OVERDUE):
        Asked(runner, lane, HANGS, limit_s=0.5)
        eventually(lambda number=number: lane.num_overdue == number + 1)
    runner.detach(lane)
    model.gate.set()
    eventually(lambda: not lane.num_overdue)

    with pytest.raises(NotAvailable):
        Asked(runner, lane, 1.0)


def test_the_runner_stops_while_a_run_hangs(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    runner.start()
    Asked(runner, lane, HANGS)
    eventually(lambda: model.runs)
    waiting = Asked(runner, lane, 1.0)

    runner.stop()

    assert isinstance(waiting.outcome(), NotAvailable)
    assert lane.num_running == 1, "it still hangs"
