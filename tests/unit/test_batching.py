"""The batch queue under any interleaving: each request is answered exactly once, with its own rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
import pytest
from helpers.eventually import eventually
from helpers.fake_servable import BAD, FakeServable, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tfserve_nb.errors import Cancelled, DeadlineExceeded, NotAvailable, QueueFull, RunRejected, ServingError
from tfserve_nb.serving.backend import Answer, Outcome
from tfserve_nb.serving.batching.lane import Lane
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.queue import Batch, BatchQueue, Part, Task
from tfserve_nb.serving.batching.rows import run_parts
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.types import Tensors


@dataclass
class Asked:
    """A request of the test and what came back."""

    values: tuple[float, ...]
    deadline_s: float
    task: Task | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    is_cancelled: bool = False


class BatchingMachine(RuleBasedStateMachine):
    """Requests arrive, are cancelled, expire, fail and are run in any order, without threads or clocks.

    The runner's own code takes and runs the batches, one step at a time.
    """

    @initialize(
        max_batch_size=st.integers(1, 6),
        timeout_micros=st.sampled_from([0, 2_000_000]),
        max_enqueued_batches=st.integers(1, 4),
        is_batchable=st.booleans(),
        run_s=st.sampled_from([0.0, 1.0]),
    )
    def set_up(
        self, max_batch_size: int, timeout_micros: int, max_enqueued_batches: int, is_batchable: bool, run_s: float
    ) -> None:
        self.now_s = 0.0
        self.options = BatchingOptions(max_batch_size, timeout_micros, max_enqueued_batches)
        self.servable = FakeServable(7)
        self.runner = Runner(now=lambda: self.now_s)
        self.is_batchable = is_batchable
        self.lane: Lane = self.runner.attach(
            BatchQueue(self.options, is_batchable=is_batchable),
            lambda inputs: self.servable.run("serving_default", inputs),
        )
        if run_s:
            self.lane.queue.ran(1, run_s)  # what waits is shared by the threads that are idle
        self.asked: list[Asked] = []
        self.in_hand: Batch | None = None
        self.order: list[int] = []
        self.serial = 0

    @rule(num_rows=st.integers(0, 14), patience_s=st.sampled_from([1.0, 5.0, 1000.0]), is_bad=st.integers(0, 5))
    def arrive(self, num_rows: int, patience_s: float, is_bad: int) -> None:
        values = [float(self.serial + row) for row in range(num_rows)]
        self.serial += num_rows
        if is_bad == 0 and num_rows:
            values[num_rows // 2] = BAD
        asked = Asked(tuple(values), self.now_s + patience_s)
        queued_before = self.lane.queue.num_rows
        try:
            ticket = self.runner.submit(
                self.lane,
                {"x": rows(*values)},
                num_rows,
                deadline_s=asked.deadline_s,
                on_done=asked.outcomes.append,
            )
        except QueueFull:
            assert queued_before + num_rows > self.options.max_enqueued_rows
            assert queued_before > 0
            return
        asked.task = ticket
        self.asked.append(asked)

    @rule(seconds=st.sampled_from([0.1, 1.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        asked = data.draw(st.sampled_from(self.asked))
        was_answered = bool(asked.outcomes)
        self.runner.cancel(asked.task)
        asked.is_cancelled = asked.is_cancelled or not was_answered

    @precondition(lambda self: self.in_hand is None)
    @rule(num_takers=st.integers(1, 3))
    def take(self, num_takers: int = 1) -> None:
        ready_at = self.lane.queue.ready_at()
        if ready_at is None or ready_at > self.now_s:
            return
        batch, finished = self.lane.queue.take(self.now_s, num_takers)
        for task, outcome in finished:
            assert isinstance(outcome, DeadlineExceeded)
            assert task.deadline_s <= self.now_s
            task.on_done(outcome)
        if batch is not None:
            assert batch.num_rows == sum(part.stop - part.start for part in batch.parts)
            assert batch.num_rows <= self.options.max_batch_size or not self.is_batchable
            for part in batch.parts:
                fits = part.task.num_rows <= self.options.max_batch_size
                assert not fits or part.stop - part.start == part.task.num_rows, "a request that fits was torn apart"
                self.order.append(id(part.task))
        self.in_hand = batch

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def run(self) -> None:
        batch, self.in_hand = self.in_hand, None
        assert batch is not None
        self.runner._run_batch(self.lane, batch)  # noqa: SLF001 - the same
        if self.is_batchable and self.servable.batch_sizes:
            assert self.servable.batch_sizes[-1] in (0, *self.options.allowed_batch_sizes)

    @invariant()
    def nothing_is_answered_twice_or_wrongly(self) -> None:
        if not hasattr(self, "asked"):
            return
        for asked in self.asked:
            assert len(asked.outcomes) <= 1
            for outcome in asked.outcomes:
                check(asked, outcome)
        waiting = sum(
            asked.task.num_rows - asked.task.num_rows_taken for asked in self.asked if not asked.task.is_finished
        )
        assert self.lane.queue.num_rows == waiting, "the count of queued rows is off"

    def teardown(self) -> None:
        if not hasattr(self, "asked"):
            return
        self.now_s += 2.5  # past any batch timeout, within the patience of some
        for _ in range(1000):
            if self.in_hand is None:
                self.take()
            if self.in_hand is not None:
                self.run()
            elif self.lane.queue.ready_at() is None:
                break
        assert all(len(asked.outcomes) == 1 for asked in self.asked), "a request has no outcome"
        arrival = {id(asked.task): position for position, asked in enumerate(self.asked)}
        positions = [arrival[task] for task in self.order]
        assert positions == sorted(positions), "requests overtook each other"


def check(asked: Asked, outcome: Outcome) -> None:
    """An outcome must be the one that this request alone would have had."""
    if isinstance(outcome, Answer):
        assert BAD not in asked.values
        np.testing.assert_array_equal(outcome.outputs["y"], rows(*asked.values) * 2 + 7)
    elif isinstance(outcome, RunRejected):
        assert BAD in asked.values, "a request failed for the fault of another"
    elif isinstance(outcome, Cancelled):
        assert asked.is_cancelled
    else:
        assert isinstance(outcome, DeadlineExceeded)


TestBatching = BatchingMachine.TestCase


def make_task(num_rows: int, outcomes: list[Outcome], *, now_s: float = 0.0, deadline_s: float = 100.0) -> Task:
    """A task whose rows do not matter."""
    return Task(
        {"x": rows(*range(num_rows))}, num_rows, enqueued_s=now_s, deadline_s=deadline_s, on_done=outcomes.append
    )


def test_idle_queue_lets_a_single_request_leave_at_once() -> None:
    queue = BatchQueue(BatchingOptions(8))
    queue.add(make_task(1, []))

    batch, _ = queue.take(0.0)

    assert batch is not None
    assert (batch.num_rows, batch.reason) == (1, "free")


def test_batch_timeout_lets_requests_wait_for_company() -> None:
    queue = BatchQueue(BatchingOptions(8, batch_timeout_micros=1_000_000))
    queue.add(make_task(1, [], now_s=0.0))
    assert queue.ready_at() == 1.0
    assert queue.take(0.5) == (None, [])
    queue.add(make_task(2, [], now_s=0.7))

    batch, _ = queue.take(1.0)

    assert batch is not None
    assert (batch.num_rows, batch.reason) == (3, "timeout")


@pytest.mark.parametrize(
    ("run_s", "timeout_micros", "num_takers", "sizes"),
    [
        (0.01, 0, 1, [8]),
        (0.01, 0, 2, [4, 4]),
        (0.01, 0, 3, [2, 2, 4]),
        (0.0001, 0, 2, [8]),  # too short to wake another thread for
        (0.01, 1_000_000, 2, [8]),  # full: it was waited for
    ],
)
def test_threads_that_are_idle_share_what_waits_when_runs_take_long(
    run_s: float, timeout_micros: int, num_takers: int, sizes: list[int]
) -> None:
    queue = BatchQueue(BatchingOptions(8, timeout_micros))
    queue.ran(1, run_s)
    for _ in range(4):
        queue.add(make_task(2, []))

    batches = [queue.take(0.0, num_takers - number)[0] for number in range(len(sizes))]

    assert [batch.num_rows for batch in batches if batch] == sizes


def test_full_batch_does_not_wait_for_the_timeout() -> None:
    queue = BatchQueue(BatchingOptions(2, batch_timeout_micros=1_000_000))
    queue.add(make_task(1, []))
    queue.add(make_task(1, []))

    batch, _ = queue.take(0.0)

    assert batch is not None
    assert (batch.num_rows, batch.reason) == (2, "full")


def test_full_queue_says_so_in_tensorflow_servings_words() -> None:
    queue = BatchQueue(BatchingOptions(4, max_enqueued_batches=2))
    queue.add(make_task(7, []))

    with pytest.raises(QueueFull, match="task size is 2 but scheduling capacity is only 1 .*max_enqueued_batches=2"):
        queue.add(make_task(2, []))


def test_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    queue = BatchQueue(BatchingOptions(4, max_enqueued_batches=1))
    queue.add(make_task(11, []))

    sizes = []
    while (batch := queue.take(0.0)[0]) is not None:
        sizes.append(batch.num_rows)

    assert sizes == [4, 4, 3]


def test_request_without_rows_is_answered_without_rows() -> None:
    outcomes: list[Outcome] = []
    runner = Runner()
    lane = runner.attach(BatchQueue(BatchingOptions(4)), lambda inputs: {"y": inputs["x"]})
    runner.start()
    try:
        runner.submit(lane, {"x": rows()}, 0, deadline_s=1e12, on_done=outcomes.append)
        answered = eventually(lambda: outcomes)
    finally:
        runner.stop()

    assert isinstance(answered[0], Answer)
    assert answered[0].outputs["y"].shape == (0, 2)


@pytest.mark.parametrize(
    "arrays",
    [
        [np.arange(3, dtype=np.float32).reshape(1, 3), np.ones((2, 3), np.float32)],
        [np.array([[True, False]]), np.array([[False, True]])],
        [np.arange(6, dtype=np.int64).reshape(2, 3).T, np.ones((1, 2), np.int64)],
        [np.array([[1 + 2j]]), np.array([[3j]])],
        [np.array([[b"a"]], object), np.array([[b"long\0"]], object)],
        [np.ones((2, 0), np.float32), np.ones((1, 0), np.float32)],
        [np.ones((0, 2), np.float32), np.ones((3, 2), np.float32)],
    ],
    ids=["floats", "booleans", "not contiguous", "complex", "text", "empty rows", "no rows first"],
)
def test_rows_of_a_batch_are_put_together_and_handed_back_whatever_they_hold(arrays: list[np.ndarray]) -> None:
    lane = Runner().attach(BatchQueue(BatchingOptions(6, allowed_batch_sizes=(6,))), lambda inputs: {"y": inputs["x"]})
    tasks = [Task({"x": array}, len(array), enqueued_s=0, deadline_s=1, on_done=print) for array in arrays]

    outputs = run_parts(lane, tuple(Part(task, 0, task.num_rows) for task in tasks))

    for array, found in zip(arrays, outputs, strict=True):
        assert found["y"].dtype == array.dtype
        np.testing.assert_array_equal(found["y"], array)


def test_closed_queue_refuses_and_finishes_what_waits() -> None:
    queue = BatchQueue(BatchingOptions(4))
    task = make_task(1, [])
    queue.add(task)

    finished = queue.close()

    assert [(task, NotAvailable)] == [(one, type(outcome)) for one, outcome in finished]
    with pytest.raises(NotAvailable):
        queue.add(make_task(1, []))


@settings(deadline=None)  # real threads: how long it takes does not matter
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 8))
def test_threads_that_submit_at_the_same_time_each_get_their_own_rows(sizes: list[int], max_batch_size: int) -> None:
    servable = FakeServable(1)
    runner = Runner()
    lane = runner.attach(
        BatchQueue(BatchingOptions(max_batch_size, max_enqueued_batches=300)),
        lambda inputs: servable.run("serving_default", inputs),
    )
    outcomes: dict[int, Outcome] = {}
    runner.start()
    try:
        for number, size in enumerate(sizes):
            runner.submit(
                lane,
                {"x": rows(*[float(number)] * size)},
                size,
                deadline_s=1e12,
                on_done=lambda outcome, number=number: outcomes.__setitem__(number, outcome),
            )
        eventually(lambda: len(outcomes) == len(sizes))
    finally:
        runner.stop()

    for number, size in enumerate(sizes):
        outcome = outcomes[number]
        assert isinstance(outcome, Answer)
        np.testing.assert_array_equal(outcome.outputs["y"], rows(*[number * 2.0 + 1] * size))


def test_runner_survives_any_exception_of_a_model() -> None:
    class OddError(Exception):
        pass

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"][0, 0] == 1:
            raise OddError("once")
        return {"y": inputs["x"]}

    outcomes: list[Outcome] = []
    runner = Runner()
    lane = runner.attach(BatchQueue(BatchingOptions(1)), run)
    runner.start()
    try:
        for value in (1.0, 2.0):
            runner.submit(lane, {"x": rows(value)}, 1, deadline_s=1e12, on_done=outcomes.append)
        eventually(lambda: len(outcomes) == 2)
    finally:
        runner.stop()

    assert isinstance(outcomes[0], ServingError)
    assert outcomes[0].message == "OddError: once"
    assert isinstance(outcomes[1], Answer)


def test_runner_survives_a_caller_that_cannot_take_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Outcome) -> None:
        raise RuntimeError("no client is left")

    outcomes: list[Outcome] = []
    runner = Runner()
    lane = runner.attach(BatchQueue(BatchingOptions(4)), lambda inputs: {"y": inputs["x"]})
    runner.submit(lane, {"x": rows(1)}, 1, deadline_s=1e12, on_done=broken)
    runner.submit(lane, {"x": rows(2)}, 1, deadline_s=1e12, on_done=outcomes.append)
    runner.start()
    try:
        eventually(lambda: outcomes)
    finally:
        runner.stop()

    assert isinstance(outcomes[0], Answer)
    assert "no client is left" in caplog.text


def test_requests_that_turn_out_to_belong_together_are_answered_as_each_is_alone() -> None:
    """Outputs whose rows depend on values are found out by a run: they, and all later requests, run alone."""
    sizes: list[int] = []

    def positive_rows(inputs: Tensors) -> Tensors:
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"][inputs["x"][:, 0] > 0]}

    runner = Runner()
    queue = BatchQueue(BatchingOptions(4))
    reasons: list[str] = []

    def separate(reason: str) -> None:
        reasons.append(reason)
        queue.is_batchable = False

    lane = runner.attach(queue, positive_rows, separate=separate)
    requests = [(1, 2, 3), (4,), (-1, 5, -2, 6, 7, -3), (-1,)]
    outcomes: list[list[Outcome]] = [[] for _ in requests]
    for values, found in zip(requests, outcomes, strict=True):
        runner.submit(lane, {"x": rows(*values)}, len(values), deadline_s=1e12, on_done=found.append)
    runner.start()
    try:
        eventually(lambda: all(outcomes))
    finally:
        runner.stop()

    for values, found in zip(requests, outcomes, strict=True):
        (outcome,) = found
        assert isinstance(outcome, Answer)
        np.testing.assert_array_equal(outcome.outputs["y"], rows(*[value for value in values if value > 0]))
    assert sizes == [4, 4, 6, 1], "the first batch has all its rows; the second part of the third request has not"
    assert queue.num_rows == 0
    assert reasons == ["output y has the shape [2, 2] for 4 rows of a request"]


def test_a_request_whose_parts_do_not_fit_together_runs_whole() -> None:
    """A model whose outputs are as wide as its largest input: the two halves of the first request differ."""

    def run(inputs: Tensors) -> Tensors:
        return {"y": np.ones((len(inputs["x"]), int(inputs["x"].max())), dtype=np.float32)}

    runner = Runner()
    lane = runner.attach(BatchQueue(BatchingOptions(max_batch_size=2)), run)
    done: SimpleQueue[Outcome] = SimpleQueue()
    runner.start()
    try:
        for values in ([1, 1, 2, 2], [3]):
            x = np.array(values, dtype=np.float32)[:, None]
            runner.submit(lane, {"x": x}, len(x), deadline_s=time.perf_counter() + 10, on_done=done.put)
        outcomes = [done.get(timeout=10), done.get(timeout=10)]
    finally:
        runner.stop()

    shapes = sorted(outcome.outputs["y"].shape for outcome in outcomes if isinstance(outcome, Answer))
    assert shapes == [(1, 3), (4, 2)]
