"""What a queue learns, and what it does with it: refuse hopeless requests, wait only for company that comes."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import DeadlineExceeded, QueueFull
from tfserve_nb.serving.backend import Outcome
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.pace import FEWEST, Median, QueuePace
from tfserve_nb.serving.batching.queue import BatchQueue, Task
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.serving.telemetry.model_metrics import combined
from tfserve_nb.types import Tensors


def make_task(num_rows: int, now_s: float, deadline_s: float = 1e9, outcomes: list[Outcome] | None = None) -> Task:
    delivered = [] if outcomes is None else outcomes
    inputs = {"x": np.zeros((num_rows, 2), np.float32)}
    return Task(inputs, num_rows, enqueued_s=now_s, deadline_s=deadline_s, on_done=delivered.append)


@given(st.floats(1e-5, 1.0), st.integers(0, 10**6))
def test_a_median_is_found_in_spite_of_outliers(scale: float, seed: int) -> None:
    median, random = Median(), Random(seed)  # noqa: S311 - samples, not secrets
    samples = [scale * random.uniform(0.8, 1.2) * (50 if random.random() < 0.1 else 1) for _ in range(400)]

    for sample in samples:
        median.add(sample)

    assert statistics.median(samples) / 1.6 < (median.value or 0) < statistics.median(samples) * 1.6


def test_nothing_is_believed_too_early_and_a_slower_version_is_followed() -> None:
    pace = QueuePace()
    for _ in range(FEWEST - 1):
        pace.ran(8, 0.010)
    assert pace.service_s(8) == 0.0
    pace.ran(8, 0.010)
    assert pace.service_s(8) == pytest.approx(0.010)
    assert pace.service_s(16) == pytest.approx(0.010), "a larger run takes at least as long"
    assert pace.service_s(4) == 0.0

    for _ in range(60):
        pace.ran(8, 0.050)
    assert pace.service_s(8) == pytest.approx(0.050, rel=0.1)


def test_a_hopeless_request_is_refused_at_once_with_the_reason() -> None:
    queue = BatchQueue(BatchingOptions(4, max_enqueued_batches=10))
    for _ in range(FEWEST):
        queue.ran(4, 0.1)
        queue.ran(1, 0.1)
    for _ in range(8):
        queue.add(make_task(1, 0.0))

    with pytest.raises(
        DeadlineExceeded, match=r"8 rows wait before this request.* in 300 ms, .* deadline is in 50 ms"
    ) as e:
        queue.add(make_task(1, 0.0, deadline_s=0.05))
    assert e.value.retry_after_s == pytest.approx(0.3)
    assert queue.num_rows == 8

    queue.add(make_task(1, 0.0, deadline_s=0.2))  # not likely, but not without hope


def test_the_first_in_line_is_never_refused_for_want_of_time() -> None:
    queue = BatchQueue(BatchingOptions(4))
    for _ in range(FEWEST):
        queue.ran(4, 100.0)
        queue.ran(1, 100.0)

    queue.add(make_task(1, 0.0, deadline_s=0.01))


def test_a_full_queue_says_when_to_come_again() -> None:
    queue = BatchQueue(BatchingOptions(2, max_enqueued_batches=2))
    for _ in range(FEWEST):
        queue.ran(2, 1.0)
    queue.add(make_task(2, 0.0))
    queue.add(make_task(2, 0.0))

    with pytest.raises(QueueFull) as e:
        queue.add(make_task(1, 0.0))
    assert e.value.retry_after_s == pytest.approx(3.0)


def test_a_delay_is_kept_only_while_company_is_expected() -> None:
    queue = BatchQueue(BatchingOptions(64, batch_timeout_micros=100_000))
    queue.add(make_task(1, 0.0))
    assert queue.ready_at() == pytest.approx(0.1), "nothing is known yet: as long as was asked for"

    for number in range(1, 20):
        queue.add(make_task(1, number * 0.001))
    assert queue.ready_at() == pytest.approx(0.019 + 0.003, rel=0.2), "the next one is overdue after three gaps"
    batch, _ = queue.take(0.023)
    assert batch is not None
    assert (batch.num_rows, batch.reason) == (20, "free")


def test_sparse_requests_do_not_wait_at_all() -> None:
    queue = BatchQueue(BatchingOptions(64, batch_timeout_micros=100_000))
    for number in range(20):
        queue.add(make_task(1, float(number)))
        queue.take(float(number) + 0.2)

    queue.add(make_task(1, 20.0))
    assert queue.ready_at() == 0.0


def test_a_batch_leaves_before_a_deadline_with_time_to_run() -> None:
    queue = BatchQueue(BatchingOptions(4, batch_timeout_micros=1_000_000))
    for _ in range(FEWEST):
        queue.ran(1, 0.2)
    queue.add(make_task(1, 0.0, deadline_s=0.5))

    assert queue.ready_at() == pytest.approx(0.3)
    batch, _ = queue.take(0.31)
    assert batch is not None
    assert batch.reason == "deadline"


def test_a_slow_model_does_not_crowd_out_a_quick_one() -> None:
    runner = Runner()
    order: list[str] = []
    is_over = threading.Event()

    def run_as(name: str, seconds: float) -> Callable[[Tensors], Tensors]:
        def run(inputs: Tensors) -> Tensors:
            order.append(name)
            time.sleep(seconds)
            return {"y": inputs["x"]}

        return run

    slow = runner.attach(BatchQueue(BatchingOptions(1)), run_as("slow", 0.03))
    quick = runner.attach(BatchQueue(BatchingOptions(1)), run_as("quick", 0.001))
    left = [30]

    def done(_: Outcome) -> None:
        left[0] -= 1
        if not left[0]:
            is_over.set()

    for _ in range(15):
        for lane in (slow, quick):
            runner.submit(lane, {"x": np.zeros((1, 2))}, 1, deadline_s=time.perf_counter() + 60, on_done=done)
    runner.start()
    try:
        assert is_over.wait(30)
    finally:
        runner.stop()

    assert order[:8].count("quick") >= 5, order
    assert "slow" in order[:16], "and is not crowded out itself"


def test_batches_are_counted_with_their_reasons() -> None:
    runner = Runner()
    lane = runner.attach(BatchQueue(BatchingOptions(4)), lambda inputs: {"y": inputs["x"]})
    is_over = threading.Semaphore(0)
    for _ in range(5):
        runner.submit(
            lane,
            {"x": np.zeros((1, 2), np.float32)},
            1,
            deadline_s=time.perf_counter() + 60,
            on_done=lambda _: is_over.release(),
        )
    runner.start()
    try:
        for _ in range(5):
            assert is_over.acquire(timeout=10)
    finally:
        runner.stop()

    summary = lane.summary()
    assert (summary.num_batches, summary.num_rows, summary.num_padded) == (2, 5, 0)
    assert {reason: count for reason, count in summary.reasons.items() if count} == {"full": 1, "free": 1}
    both = combined([summary, summary])
    assert (both.num_batches, both.mean_rows) == (4, 2.5)
