"""What is kept of requests, and what is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.serving.telemetry.records import RequestRecord, RequestTensors
from tfserve_nb.serving.telemetry.request_samples import KEPT, MAX_ROWS, RequestSample, RequestSamples


class Clock:
    """A clock that stands until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def samples(clock: Clock) -> RequestSamples:
    found = RequestSamples(clock)
    found.switch("net", is_on=True)
    return found


def record(code: str = "OK", num_rows: int = 1) -> RequestRecord:
    return RequestRecord("net", 1, "serving_default", code, num_rows, 1.0, 1.001, 1.003, 1.006, 1.010)


SEEN = RequestTensors({"x": np.array([[1.0, 2.0]])}, {"y": np.array([3.0])})


def test_nothing_is_kept_until_it_is_switched_on_and_after_it_was_turned_off(clock: Clock) -> None:
    samples = RequestSamples(clock)
    assert not samples.wants_tensors("net")
    samples.on_request(record(), SEEN)
    assert samples.recent("net") == []

    samples.switch("net", is_on=True)
    samples.on_request(record(), SEEN)
    samples.switch("net", is_on=False)
    clock.now_s += 1
    samples.on_request(record(), SEEN)

    assert len(samples.recent("net")) == 1
    samples.forget("net")
    assert samples.recent("net") == []


def test_a_sample_has_the_parts_of_its_latency(samples: RequestSamples) -> None:
    samples.on_request(record(), SEEN)

    (one,) = samples.recent("net")
    assert [round(part, 6) for part in one.parts] == [1.0, 2.0, 3.0, 4.0]
    assert one.total_ms == pytest.approx(10.0)
    assert (one.version, one.entrypoint, one.code, one.is_cut) == (1, "KERNEL", "OK", False)


def test_a_load_is_not_copied_request_by_request_but_failures_come_through(
    samples: RequestSamples, clock: Clock
) -> None:
    for _ in range(100):
        clock.now_s += 0.001
        samples.on_request(record(), SEEN)
    samples.on_request(record("UNAVAILABLE"), RequestTensors(SEEN.inputs, None, "the queue is full"))

    found = samples.recent("net")
    assert len(found) == 2
    assert (found[0].code, found[0].message, dict(found[0].outputs)) == ("UNAVAILABLE", "the queue is full", {})


def test_what_is_kept_is_bounded_and_the_callers_arrays_are_not_held(samples: RequestSamples, clock: Clock) -> None:
    rows = np.arange(200.0).reshape(100, 2)
    for _ in range(KEPT + 10):
        clock.now_s += 1
        samples.on_request(
            record(num_rows=100), RequestTensors({"x": rows, "big": np.zeros((1, 1 << 20))}, {"y": rows})
        )
    rows[:] = -1

    found = samples.recent("net", 1000)
    assert len(found) == KEPT
    assert [one.number for one in found] == sorted((one.number for one in found), reverse=True)
    assert all(one.is_cut and list(one.inputs) == ["x"] and len(one.inputs["x"]) == MAX_ROWS for one in found)
    assert found[0].inputs["x"][1].tolist() == [2.0, 3.0]


@given(
    st.sampled_from(["float32", "int64", "bool", "uint8", "float16", "object"]),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_any_tensor_survives_the_admin_api(dtype: str, shape: list[int]) -> None:
    size = int(np.prod(shape))
    if dtype == "object":
        array = np.empty(size, dtype=object)
        array[:] = [bytes([number % 256, 255]) for number in range(size)]
        array = array.reshape(shape)
    else:
        array = np.arange(size).astype(dtype).reshape(shape)
    samples = RequestSamples()
    samples.switch("net", is_on=True)
    samples.on_request(record(), RequestTensors({"x": array}, {"y": array}))
    (sample,) = samples.recent("net")

    back = from_json(json.loads(json.dumps(to_json(sample))), RequestSample)

    assert back.inputs["x"].dtype == array.dtype
    assert back.inputs["x"].shape == sample.inputs["x"].shape
    assert back.inputs["x"].tolist() == sample.inputs["x"].tolist()
    assert (back.number, back.parts, back.total_ms) == (sample.number, sample.parts, sample.total_ms)
