"""Short runs are carried out on the thread that submits, and only those."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.eventually import eventually
from helpers.fake_servable import BAD, FakeServable, rows

from tfserve_nb.errors import RunRejected
from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.export.graph.state import GraphState
from tfserve_nb.serving.backend import Answer, Outcome
from tfserve_nb.serving.batching.lane import Lane
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.pace import FEWEST
from tfserve_nb.serving.batching.queue import BatchQueue
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.serving.batching.short_runs import COMPUTED_S, PAUSE_S, SHORT_S, SLOW_S
from tfserve_nb.serving.telemetry.observer import Observers
from tfserve_nb.serving.versions.sharing import RowSharing
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.serving.versions.version import LoadedVersion
from tfserve_nb.types import SignatureSpec, Tensors, TensorSpec

HERE = threading.get_ident


@dataclass
class Model:
    """Answers with its input; the clock shows how long a run takes, and the runs' threads are noted."""

    now_s: float = 0.0
    computes_s: float = 0.0
    takes_s: float = SHORT_S / 3
    threads: list[int] = field(default_factory=list)
    on_run: Callable[[], object] = lambda: None

    def run(self, inputs: Tensors) -> Tensors:
        self.threads.append(HERE())
        self.now_s += self.takes_s
        until_s = time.thread_time() + self.computes_s
        while self.computes_s and time.thread_time() < until_s:
            pass
        self.on_run()
        if (inputs["x"] == BAD).any():
            raise RunRejected("bad value")
        return {"y": inputs["x"]}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def runner(model: Model) -> Iterator[Runner]:
    runner = Runner("test", now=lambda: model.now_s)
    runner.start()
    yield runner
    runner.stop()


def lane_of(runner: Runner, model: Model, *, can_here: bool = True, **arguments: object) -> Lane:
    queue = BatchQueue(BatchingOptions(4), has_one_shape=True, **arguments)
    return runner.attach(queue, model.run, run_here=model.run if can_here else None)


def submit(runner: Runner, lane: Lane, *values: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    runner.submit(lane, {"x": rows(*values)}, len(values), deadline_s=1e9, on_done=outcomes.append, wakes=False)
    return outcomes


def wake(runner: Runner) -> None:
    """As a server's loop does, once the runner's thread waits."""
    eventually(lambda: runner._num_idle)  # noqa: SLF001
    runner.wake()


def ask(runner: Runner, lane: Lane, *values: float) -> Outcome:
    outcomes = submit(runner, lane, *values)
    wake(runner)
    return eventually(lambda: outcomes)[0]


def learn(runner: Runner, lane: Lane, *values: float) -> None:
    """Let the runner know how long runs of this size take."""
    for _ in range(FEWEST):
        ask(runner, lane, *values)
    # The last outcome is delivered before what its run took is noted.
    eventually(lambda: lane.queue.pace.run_s_of(lane.queue.options.padded_size(len(values))) is not None)


def test_runs_that_were_short_so_far_run_on_the_thread_that_submits(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0)
    assert HERE() not in model.threads

    outcomes = submit(runner, lane, 2.0)
    wake(runner)

    assert isinstance(outcomes[0], Answer)  # at once
    assert model.threads[-1] == HERE()
    ask(runner, lane, 1.0, 2.0, 3.0)
    assert model.threads[-1] != HERE()  # how long runs of this size take is not known


@pytest.mark.parametrize("what", ["long", "may take long", "rows run alone"])
def test_other_runs_are_left_to_the_runners_threads(runner: Runner, model: Model, what: str) -> None:
    model.takes_s = 2 * SHORT_S if what == "long" else model.takes_s
    lane = lane_of(runner, model, can_here=what != "may take long", is_batchable=what != "rows run alone")
    for _ in range(FEWEST + 3):
        ask(runner, lane, 1.0)

    assert HERE() not in model.threads


def test_one_slow_run_leaves_the_next_ones_to_the_runners_threads_for_a_while(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0)
    usual_s, model.takes_s, model.computes_s = model.takes_s, 2 * SLOW_S, 1.5 * COMPUTED_S
    ask(runner, lane, 1.0)
    model.takes_s, model.computes_s = usual_s, 0.0
    assert model.threads[-1] == HERE()

    ask(runner, lane, 1.0)
    assert model.threads[-1] != HERE()

    model.now_s += PAUSE_S
    learn(runner, lane, 1.0)
    ask(runner, lane, 1.0)
    assert model.threads[-1] == HERE()


def test_a_run_that_a_busy_machine_held_up_is_no_reason_to_leave_the_next_ones(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0)
    usual_s, model.takes_s = model.takes_s, 2 * SLOW_S
    ask(runner, lane, 1.0)
    model.takes_s = usual_s

    ask(runner, lane, 1.0)

    assert model.threads[-2:] == [HERE(), HERE()]


def test_a_request_that_fails_here_leaves_its_batch_mates_alone(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0, 2.0)

    bad, good = submit(runner, lane, BAD), submit(runner, lane, 1.0)
    wake(runner)

    assert isinstance(eventually(lambda: bad)[0], RunRejected)
    assert isinstance(eventually(lambda: good)[0], Answer)
    first, *others = model.threads[-4:]  # here, and then the batch and each of its requests on the runner's thread
    assert first == HERE()
    assert HERE() not in others


def test_requests_that_come_in_meanwhile_are_run_next(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0)
    later: list[Outcome] = []

    def come_in() -> None:
        model.on_run = lambda: None
        runner.submit(lane, {"x": rows(5.0)}, 1, deadline_s=1e9, on_done=later.append)  # from any thread; it wakes

    model.on_run = come_in
    outcomes = submit(runner, lane, 2.0)
    wake(runner)

    assert isinstance(outcomes[0], Answer)
    assert isinstance(eventually(lambda: later)[0], Answer)


def test_models_that_wait_beside_a_short_run_do_not_wait_for_it(runner: Runner, model: Model) -> None:
    lane, other = lane_of(runner, model), lane_of(runner, Model(), can_here=False)
    learn(runner, lane, 1.0)
    other.finish_s = lane.finish_s + 1  # its turn is after this one
    others: list[Outcome] = []

    def check() -> None:
        model.on_run = lambda: None
        eventually(lambda: others)

    model.on_run = check
    outcomes = submit(runner, lane, 2.0)
    others = submit(runner, other, 3.0)
    wake(runner)

    assert outcomes
    assert others


def test_no_more_threads_than_before(runner: Runner, model: Model) -> None:
    lane = lane_of(runner, model)
    learn(runner, lane, 1.0)
    for _ in range(3):
        ask(runner, lane, 1.0)

    assert not runner.long_run([lane])
    assert lane.num_running == 0
    assert len(runner._running) == 1  # noqa: SLF001 - the runner's only thread


SAME = RowSharing(is_allowed=True, reason="")


@pytest.mark.parametrize(
    ("shape", "effects", "device", "stops", "can_here"),
    [
        ((None, 2), Effects(), "/CPU:0", False, True),
        ((None, None), Effects(), "/CPU:0", False, False),
        (None, Effects(), "/CPU:0", False, False),
        ((None, 2), Effects(), None, False, True),
        ((None, 2), Effects(), "/GPU:0", False, False),
        ((None, 2), Effects(), "/CPU:0", True, False),
        ((None, 2), Effects(outside_ops=("PyFunc",)), "/CPU:0", False, False),
        ((None, 2), Effects({"serving_default": GraphState()}), "/CPU:0", False, False),
    ],
)
def test_only_runs_that_just_compute_are_carried_out_here(
    shape: tuple[int | None, ...] | None, effects: Effects, device: str | None, stops: bool, can_here: bool
) -> None:
    class Servable(FakeServable):
        is_stoppable = stops

        def run_within(self, signature: str, inputs: Tensors, limit_s: float) -> Tensors:
            del limit_s
            return self.run(signature, inputs)

    servable = Servable(1)
    spec = TensorSpec("x", "float32", shape)
    servable.signatures = {"serving_default": SignatureSpec("serving_default", {"x": spec}, {})}
    servable.effects = effects
    loaded = LoadedVersion(
        Runner(),
        servable,
        VersionSource(Path("m/1"), BatchingOptions(), device),
        {"serving_default": SAME},
        observers=Observers(),
        model="m",
        version=1,
    )

    assert (loaded.lanes["serving_default"].run_here is not None) is can_here
