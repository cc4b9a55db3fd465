"""The ring of captured requests: within its limits whatever comes, redacted, and the same after a file or a wire."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fake_servable import FakeLoader, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserve_nb.errors import InvalidOption
from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.server.admin.client import RemoteModels
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.capture import (
    MIB,
    CapturedRequest,
    CapturedRequests,
    Captures,
    CaptureSettings,
    load_captured,
)
from tfserve_nb.serving.telemetry.records import RequestRecord, RequestTensors
from tfserve_nb.serving.versions.source import VersionSource

X = np.arange(6.0).reshape(3, 2)


def record(num_rows: int = 3, **other: Any) -> RequestRecord:
    """A finished request of now."""
    now_s = time.perf_counter()
    plain = RequestRecord("net", 1, "serving_default", "OK", num_rows, now_s, now_s, now_s, now_s, now_s + 0.002)
    return plain._replace(**other)


def seen(x: np.ndarray = X, y: np.ndarray | None = None) -> RequestTensors:
    return RequestTensors({"x": x}, {"y": 2 * x if y is None else y})


def captures(**limits: Any) -> Captures:
    found = Captures()
    found.configure("net", CaptureSettings(**limits))
    return found


def test_nothing_is_kept_until_it_is_switched_on_and_what_is_kept_stays_when_it_ends() -> None:
    ring = Captures()
    ring.on_request(record(), seen())
    assert (ring.wants_tensors("net"), len(ring.requests_of("net")), ring.requests_of("net").is_on) == (False, 0, False)

    ring.configure("net", CaptureSettings())
    ring.on_request(record(), seen())
    ring.on_request(record(model="other"), seen())
    ring.configure("net", None)
    ring.on_request(record(), seen())

    assert (len(ring.requests_of("net")), ring.requests_of("net").is_on, len(ring.requests_of("other"))) == (
        1,
        False,
        0,
    )
    ring.configure("net", None, clear=True)
    assert len(ring.requests_of("net")) == 0


def test_a_request_is_kept_with_its_tensors_and_arrival_and_without_its_key_and_id() -> None:
    ring = captures()
    x = X.copy()
    given_at = time.time()
    answered = record(api="Predict", entrypoint="GRPC", key="user-7", request_id="id-7")
    ring.on_request(answered, seen(x))
    x[:] = -1  # the caller's arrays are the caller's

    (kept,) = ring.requests_of("net")
    np.testing.assert_array_equal(kept.inputs["x"], X)
    np.testing.assert_array_equal(kept.outputs["y"], 2 * X)
    assert (kept.version, kept.api, kept.entrypoint, kept.num_rows) == (1, "predict", "GRPC", 3)
    assert kept.arrived_s == answered.received_s
    assert kept.at == pytest.approx(given_at, abs=5)
    assert kept.latency_ms == pytest.approx(2)
    assert not kept.is_redacted
    assert "user-7" not in repr(kept)
    assert "id-7" not in repr(kept)
    with pytest.raises(ValueError, match="read-only"):
        kept.inputs["x"][0] = 1


def test_failed_requests_and_those_from_before_are_not_kept() -> None:
    ring = Captures()
    before = record()
    ring.configure("net", CaptureSettings())

    ring.on_request(before, seen())
    ring.on_request(record(code="INTERNAL"), RequestTensors({"x": X}, None, "broken"))
    ring.on_request(record(version=None), seen())

    assert len(ring.requests_of("net")) == 0


def test_requests_come_back_in_the_order_of_their_arrival() -> None:
    ring = captures()
    late, early = record(received_s=time.perf_counter() + 2), record(received_s=time.perf_counter() + 1)
    for request in (late, early):
        ring.on_request(request, seen())

    assert [one.arrived_s for one in ring.requests_of("net")] == [early.received_s, late.received_s]
    assert [one.arrived_s for one in ring.requests_of("net", 1)] == [late.received_s]
    assert (len(ring.requests_of("net", 0)), ring.requests_of("net", 0).num_kept) == (0, 2)


@given(
    sizes=st.lists(st.integers(1, 9), max_size=40),
    max_requests=st.integers(1, 10),
    max_rows=st.integers(1, 20),
    max_kib=st.floats(0.002 * 1024, 4),
)
def test_all_limits_hold_whatever_comes_and_the_newest_stay(
    sizes: list[int], max_requests: int, max_rows: int, max_kib: float
) -> None:
    ring = captures(max_requests=max_requests, max_rows=max_rows, max_mib=max_kib / 1024)
    fits = []
    for number, size in enumerate(sizes):
        x = np.full((size, 16), float(number))
        ring.on_request(record(size), seen(x))
        if size <= max_rows and 2 * x.nbytes <= max_kib * 1024:
            fits.append(number)

    found = ring.requests_of("net")
    kept = [int(one.inputs["x"][0, 0]) for one in found]
    assert len(found) <= max_requests
    assert sum(one.num_rows for one in found) <= max_rows
    assert found.num_bytes == sum(2 * one.inputs["x"].nbytes for one in found) <= max_kib * 1024
    assert kept == fits[len(fits) - len(kept) :]
    assert found.num_left_out == len(sizes) - len(fits)
    assert (len(kept) > 0) == (len(fits) > 0)


def test_smaller_limits_drop_the_oldest_at_once() -> None:
    ring = captures()
    for _ in range(5):
        ring.on_request(record(), seen())
    ring.configure("net", CaptureSettings(max_requests=2))

    assert [one.number for one in ring.requests_of("net")] == [4, 5]


def test_named_inputs_are_zeros_of_the_same_shape() -> None:
    ring = captures(redact=["x", "name"])
    texts = np.array([[b"Ann"], [b"Bob"]], dtype=object)
    ring.on_request(record(2), RequestTensors({"x": X[:2], "name": texts, "age": X[:2, 0]}, {"y": X[:2]}))
    ring.on_request(record(2), RequestTensors({"age": X[:2, 0]}, {"y": X[:2]}))

    first, second = ring.requests_of("net")
    assert (first.inputs["x"] == 0).all()
    assert first.inputs["x"].shape == (2, 2)
    assert first.inputs["name"].tolist() == [[b""], [b""]]
    np.testing.assert_array_equal(first.inputs["age"], X[:2, 0])
    assert (first.is_redacted, second.is_redacted) == (True, False)


def test_a_function_redacts_or_leaves_out() -> None:
    def redact(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        x = inputs["x"]
        if x[0, 0] < 0:
            return None
        if x[0, 0] == 100:
            return {"x": x.astype(np.float32)}
        if x[0, 0] == 200:
            return {}
        if x[0, 0] == 300:
            raise KeyError("no")
        x[:, 1] = 7
        return inputs

    ring = captures(redact=redact)
    x = X.copy()
    problems = []
    for value in (0.0, -1.0, 100.0, 200.0, 300.0):
        x[0, 0] = value
        ring.on_request(record(), seen(x))
        problems.append(ring.requests_of("net").problem)

    (kept,) = ring.requests_of("net")
    assert kept.inputs["x"][:, 1].tolist() == [7, 7, 7]
    assert x[0, 1] == 1  # the request itself is not touched
    assert kept.is_redacted
    assert ring.requests_of("net").num_left_out == 4
    assert problems == [
        "",
        "redact left it out",
        "redact gave x as float32[3, 2] for float64[3, 2]",
        "redact gave inputs none for x",
        "redact raised KeyError: 'no'",
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_requests": 0}, "max_requests=0 must be a number of at least 1"),
        ({"max_rows": -1}, "max_rows=-1"),
        ({"max_mib": float("nan")}, "max_mib=nan"),
        ({"max_mib": True}, "max_mib=True"),
        ({"redact": [1]}, r"redact=\[1\] must be names of inputs, or a function"),
    ],
)
def test_wrong_limits_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        CaptureSettings(**options)


def test_a_core_captures_requests_of_its_models_and_forgets_with_them(tmp_path: Path) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    core = ServingCore(FakeLoader())
    core.start()
    try:
        source = VersionSource(tmp_path / "net" / "1", BatchingOptions())
        core.deploy("net", 1, source, tmp_path, Placement())
        core.predict(ModelSpec("net"), "serving_default", {"x": rows(1.0)}, 5)
        core.capture("net", CaptureSettings())
        core.predict(ModelSpec("net"), "serving_default", {"x": rows(1.0, 2.0)}, 5)

        with pytest.raises(InvalidOption, match="redact='y' is no input of net; it has x"):
            core.capture("net", CaptureSettings(redact=("x", "y")))
        (kept,) = core.captured("net")
        assert (kept.num_rows, kept.entrypoint, core.captured("net").is_on) == (2, "KERNEL", True)
        core.undeploy("net")
        core.deploy("net", 1, source, tmp_path, Placement())
        assert (len(core.captured("net")), core.observers.wants_tensors("net")) == (0, False)
    finally:
        core.stop()


ARRAYS = st.one_of(
    hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]),
               hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    st.lists(st.binary(max_size=5), max_size=4).map(lambda texts: np.array([*texts, None], dtype=object)[:-1]),
)  # fmt: skip


@settings(deadline=None)  # the first use of pyarrow imports it
@given(tensors=st.dictionaries(st.text(min_size=1, max_size=3), ARRAYS, max_size=3))
def test_files_and_the_wire_give_back_what_went_in(tensors: dict[str, np.ndarray], tmp_path_factory) -> None:
    kept = CapturedRequest(3, 1e9 + 0.25, 7.5, 2, "s", "predict", "REST", 1, 1.5, tensors, {"y": X}, is_redacted=True)
    before = CapturedRequests("net", (kept,), CaptureSettings(redact=("a",)), 1, 10, 2, "why")
    path = before.save(tmp_path_factory.mktemp("captured") / "deep" / "net.parquet")

    on_wire = from_json(json.loads(json.dumps(to_json(before))), CapturedRequests)
    assert (on_wire.settings, on_wire.num_left_out, on_wire.problem) == (before.settings, 2, "why")
    for found in (load_captured(path), on_wire):
        (again,) = found
        assert found.model == "net"
        assert again.inputs.keys() == tensors.keys()
        for name, array in {**tensors, "y": X}.items():
            got = {**again.inputs, **again.outputs}[name]
            np.testing.assert_array_equal(got, array)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert (again.at, again.arrived_s, again.is_redacted, again.api) == (kept.at, 7.5, True, "predict")


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "x.parquet"
    wrong.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InvalidOption, match="x.parquet holds no captured requests"):
        load_captured(wrong)
    with pytest.raises(InvalidOption, match="missing.parquet holds no captured requests"):
        load_captured(tmp_path / "missing.parquet")


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InvalidOption, match="Parquet files need pyarrow") as caught:
        CapturedRequests("net", ()).save(tmp_path / "x.parquet")
    assert "tfserve_nb[parquet]" in caught.value.hint


def test_a_function_that_redacts_cannot_leave_its_process() -> None:
    with pytest.raises(InvalidOption, match="served in this kernel"):
        RemoteModels("http://127.0.0.1:9", "token").capture("net", CaptureSettings(redact=lambda inputs: inputs))
    settings = CaptureSettings(5, 6, 7.5, ("a",))
    assert from_json(to_json(settings), CaptureSettings) == settings


def test_rows_become_rows_of_a_data_frame() -> None:
    ring = captures()
    ring.on_request(record(), seen())
    ring.on_request(record(1), RequestTensors({"x": X[:1], "k": np.array(4)}, {"y": X[0, :1]}))

    table = ring.requests_of("net").to_dataframe()
    assert table["request"].tolist() == [1, 1, 1, 2]
    assert table["row"].tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(np.stack(table["inputs.x"]), np.concatenate([X, X[:1]]))
    assert table["inputs.k"].tolist()[-1] == 4
    assert str(table["at"].dtype).endswith("UTC]")
    assert len(CapturedRequests("net", ()).to_dataframe()) == 0
    assert MIB == 2**20
