"""Capture, replay and the gate of a deploy, on real models and real servers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from helpers.eventually import eventually
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidOption, ReplayFailed, ServingError, VersionNotFound
from tfserve_nb.export.warmup_requests import MAX_WARMUP_RECORDS, WARMUP_FILE, read_warmup_requests
from tfserve_nb.replay.result import ReplayLimits, ReplayResult

LENIENT = {"max_slowdown": 1e6}
"""For machines that are shared: what is judged is not how fast they are."""


pytestmark = pytest.mark.usefixtures("own_folder")


class Scaler(tf.Module):
    """`y = factor x`, and an error for numbers above a limit."""

    def __init__(self, factor: float, limit: float = 1e9) -> None:
        super().__init__(name="scaler")
        self.factor, self.limit = factor, limit

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_less(x, self.limit, message="too large for version 2")]):
            return {"y": self.factor * x}


def classifier(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((2,), name="x"), keras.layers.Dense(3, activation="softmax", kernel_initializer="random_normal")]
    )


def rows_of(number: int) -> np.ndarray:
    return np.float32([[number, 10 * number]])


def post(handle: Deployment, x: np.ndarray, path: str = "") -> None:
    reply = requests.post(
        f"{handle.rest_url}{path}:predict", json={"instances": x.tolist()},
        headers={"Authorization": f"Bearer {handle.token}", "X-Request-Id": "secret-id"}, timeout=10,
    )  # fmt: skip
    assert reply.status_code == 200


def over_grpc(handle: Deployment, x: np.ndarray) -> None:
    import grpc
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = PredictRequest()
    request.model_spec.name = handle.name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    assert handle.grpc_address is not None
    with grpc.insecure_channel(handle.grpc_address) as channel:
        PredictionServiceStub(channel).Predict(request, metadata=[("authorization", f"Bearer {handle.token}")])


def captured_of(handle: Deployment, num: int) -> Any:
    """What was captured, once it is `num`: a request is recorded after its answer was written."""
    eventually(lambda: len(handle.captured()) >= num)
    return handle.captured()


def test_requests_are_captured_over_rest_grpc_and_predict_and_never_with_tokens() -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net", grpc_port=0)
    handle.predict(rows_of(0))
    assert len(handle.captured()) == 0

    handle.capture()
    post(handle, rows_of(1))
    over_grpc(handle, rows_of(2))
    handle.predict(np.concatenate([rows_of(3), rows_of(4)]))
    found = captured_of(handle, 3)

    assert [one.entrypoint for one in found] == ["REST", "GRPC", "KERNEL"]
    assert [one.num_rows for one in found] == [1, 1, 2]
    assert [float(one.inputs["x"][0, 0]) for one in found] == [1, 2, 3]
    for one in found:
        np.testing.assert_array_equal(one.outputs["y"], 2 * one.inputs["x"])
    assert str(handle.token) not in repr(list(found))
    assert "secret-id" not in repr(list(found))
    assert "3 requests kept" in repr(found)


def test_a_worker_hands_its_requests_to_the_ring() -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net", workers=1)
    handle.capture()

    def captured_after_another() -> int:
        post(handle, rows_of(1))
        return len(handle.captured())

    eventually(captured_after_another)  # the worker learns of it a moment later
    one = handle.captured()[0]
    np.testing.assert_array_equal(one.outputs["y"], 2 * rows_of(1))
    assert handle.replay(onto=1, seconds=0.5).agreement


def test_an_equal_a_different_and_a_raising_version() -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net", keep=5)
    tfserve_nb.deploy(Scaler(2.0), "net", stage=True, keep=5)
    tfserve_nb.deploy(Scaler(2.01), "net", stage=True, keep=5)
    tfserve_nb.deploy(Scaler(2.0, limit=15.0), "net", stage=True, keep=5)
    handle.capture()
    for number in range(20):
        handle.predict(rows_of(number))

    equal = handle.replay(onto=2)
    assert (equal.against, equal.num_requests, equal.disagreement, equal.error_share) == (1, 20, 0.0, 0.0)
    assert equal.passed(**LENIENT)
    assert equal.a is not None
    assert equal.a.num_due == equal.b.num_due >= 20
    assert equal.b.num_errors == 0
    assert equal.run == 1

    different = handle.replay(onto=3)
    assert different.agreement.num_same == 2  # 0, and what is off by a thousandth of the outputs' spread
    assert different.disagreements[0].inputs["x"].tolist() == [[19.0, 190.0]]
    assert different.agreement["y"].largest_difference == pytest.approx(1.9, rel=1e-3)
    assert not different.passed(**LENIENT)
    assert handle.replay(onto=3, tolerance=0.02).passed(**LENIENT)

    raising = handle.replay(onto=4)
    assert (raising.agreement.num_rows, sum(raising.failures.values())) == (2, 18)
    assert "too large for version 2" in next(iter(raising.failures))
    assert raising.b.num_errors == 18 * raising.b.num_due // 20
    assert "it failed 90 % of the requests" in raising.verdict
    assert raising.verdict.decision == "rollback"

    assert len(handle.captured()) == 20  # a replay is not captured
    assert handle.captured().is_on
    table = raising.to_dataframe()
    assert table["b_status"].tolist() == ["ok"] * 2 + ["400"] * 18
    assert [event.action for event in handle.history(4)] == ["replay"] * 4
    assert handle.metrics().versions[1].num_requests > 20


@pytest.mark.parametrize("protocol", ["json", "binary", "grpc"])
def test_every_protocol_reaches_both_versions(protocol: str) -> None:
    handle = tfserve_nb.deploy(classifier(1), "net", grpc_port=0)
    tfserve_nb.deploy(classifier(2), "net", stage=True)
    handle.capture()
    for number in range(-6, 6):
        handle.predict(rows_of(number))

    result = handle.replay(onto=2, protocol=protocol, speed=2, requests=10)

    assert (result.num_requests, result.b.num_errors, result.protocol) == (10, 0, protocol)
    assert result.a is not None
    assert result.a.num_errors == 0
    versions = handle.metrics().versions
    assert versions[2].num_requests == result.b.num_due + 10
    assert versions[1].num_requests == result.a.num_due + 12
    assert sum(result.agreement["output_0"].flips.values()) == 10 - result.agreement.num_same


def test_redacted_requests_are_answered_anew_by_the_version_that_answered() -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    tfserve_nb.deploy(Scaler(2.0), "net", stage=True)
    handle.capture(redact=["x"])
    for number in range(1, 6):
        handle.predict(rows_of(number))

    result = handle.replay(onto=2)

    assert all((one.inputs["x"] == 0).all() and one.is_redacted for one in handle.captured())
    assert (result.num_reasked, result.disagreement) == (5, 0.0)
    assert result.passed(**LENIENT)


def test_what_cannot_be_replayed_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    with pytest.raises(InvalidOption, match="there are no captured requests of net: nothing is captured"):
        handle.replay(onto=1)
    handle.capture()
    with pytest.raises(InvalidOption, match="no request was answered since"):
        handle.replay(onto=1)
    handle.predict(rows_of(1))
    with pytest.raises(VersionNotFound, match="version 7 of net is not loaded; loaded: 1"):
        handle.replay(onto=7)
    with pytest.raises(InvalidOption, match="requests=0 must be a number of at least 1"):
        handle.replay(onto=1, requests=0)
    with pytest.raises(InvalidOption, match="no gRPC port"):
        handle.replay(onto=1, protocol="grpc")

    wide = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Rescaling(2.0)])
    tfserve_nb.deploy(wide, "net", stage=True)
    with pytest.raises(InvalidOption, match=r"1 of 1 captured requests do not fit version 2 of net: Input x has shape"):
        handle.replay(onto=2)
    named = keras.Sequential([keras.Input((2,), name="z"), keras.layers.Rescaling(2.0)])
    tfserve_nb.deploy(named, "other").capture()
    with pytest.raises(InvalidOption, match="Missing but required: {z}"):
        tfserve_nb.deployment("other").replay(onto=1, requests=handle.captured())
    assert handle.captured().is_on
    assert handle.metrics().versions[1].num_requests == 1


def test_a_file_is_replayed_after_everything_is_gone(tmp_path: Path) -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    handle.capture()
    for number in range(5):
        handle.predict(rows_of(number))
    path = handle.captured().save(tmp_path / "net.parquet")
    tfserve_nb.shutdown()

    (again,) = tfserve_nb.resume()
    assert len(again.captured()) == 0  # the ring is memory
    captured = tfserve_nb.load_captured(str(path))
    assert len(captured) == 5
    assert again.replay(onto=1, requests=captured).disagreement == 0.0


def test_the_warm_up_file_holds_what_was_asked_and_our_loader_runs_it(caplog) -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    with pytest.raises(InvalidOption, match="no request of net was captured"):
        handle.save_warmup()
    handle.capture(max_requests=2000)
    for number in range(MAX_WARMUP_RECORDS + 5):
        handle.predict(rows_of(number))

    path = handle.save_warmup(1)

    folder = Path("tfserve_models/net/1").absolute()
    assert path == folder / WARMUP_FILE
    read = list(read_warmup_requests(folder))
    assert len(read) == MAX_WARMUP_RECORDS
    np.testing.assert_array_equal(read[-1].inputs["x"], rows_of(MAX_WARMUP_RECORDS + 4))
    logs = [PredictionLog.FromString(one) for one in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    last = logs[-1].predict_log
    assert (last.request.model_spec.name, last.request.model_spec.signature_name) == ("net", "serving_default")
    np.testing.assert_array_equal(tf.make_ndarray(last.response.outputs["y"]), 2 * rows_of(MAX_WARMUP_RECORDS + 4))
    assert {one.name for one in path.parent.iterdir()} == {path.name, "tfserve_nb.json"}  # nothing half-written

    with pytest.raises(InvalidOption, match="/nowhere is no version of a model"):
        handle.save_warmup("/nowhere")

    tfserve_nb.shutdown()
    caplog.set_level(logging.INFO, "tfserve_nb")
    tfserve_nb.resume()
    assert f"Number of warmup records read: {MAX_WARMUP_RECORDS}" in caplog.text


@pytest.fixture
def gated() -> Deployment:
    """Version 1 with twenty captured requests."""
    handle = tfserve_nb.deploy(Scaler(2.0), "net", label="stable")
    handle.capture()
    for number in range(20):
        handle.predict(rows_of(number))
    return handle


def test_a_deploy_switches_when_the_replay_agrees(gated: Deployment) -> None:
    steps: list[str] = []
    limits = ReplayLimits(**LENIENT)
    tfserve_nb.deploy(
        Scaler(2.0), "net", label="canary", check_replay=limits, progress=lambda event: steps.append(event.phase)
    )

    assert (gated.version, gated.traffic, gated.labels) == (2, {2: 100.0}, {"stable": 1, "canary": 2})
    assert "replaying" in steps
    assert [event.action for event in gated.history(3)] == ["deploy", "replay", "deploy"]
    gated.rollback()
    assert gated.version == 1


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            lambda: Scaler(3.0),
            r"version 2 of net was not deployed \(replay 1\): it disagrees on 95 % of 20 rows",
        ),
        (lambda: Scaler(2.0, limit=15.0), r"it failed 90 % of the requests \(.*too large"),
        (
            lambda: keras.Sequential([keras.Input((3,), name="x"), keras.layers.Rescaling(2.0)]),
            "captured requests do not fit version 2 of net",
        ),
    ],
)
def test_a_deploy_that_fails_the_gate_leaves_everything_as_before(
    gated: Deployment, model: Callable[[], Any], text: str
) -> None:
    before = gated.status()
    with pytest.raises(ServingError, match=text) as caught:
        tfserve_nb.deploy(model(), "net", label="stable", check_replay=ReplayLimits(**LENIENT))

    after = gated.status()
    assert (after.traffic, after.labels, after.on_disk) == (before.traffic, before.labels, (1,))
    assert gated.versions == (1,)
    assert caught.value.hint
    assert len(gated.captured()) == 20
    assert gated.captured().is_on
    np.testing.assert_array_equal(gated.predict(rows_of(1)), 2 * rows_of(1))


def test_a_gate_without_anything_to_replay_fails_before_the_export() -> None:
    with pytest.raises(InvalidOption, match="nothing to replay onto the first version of net"):
        tfserve_nb.deploy(Scaler(2.0), "net", check_replay=True)
    assert not Path("tfserve_models").exists()
    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    with pytest.raises(InvalidOption, match="no captured requests of net to replay: capture is off"):
        tfserve_nb.deploy(Scaler(2.0), "net", check_replay=True)
    handle.capture()
    with pytest.raises(InvalidOption, match="capture is on, but no request came since"):
        tfserve_nb.deploy(Scaler(2.0), "net", check_replay=True)
    with pytest.raises(InvalidOption, match="check_replay=5 must be True or ReplayLimits"):
        tfserve_nb.deploy(Scaler(2.0), "net", check_replay=5)
    assert handle.status().on_disk == (1,)


def test_a_much_slower_version_is_found() -> None:
    """Ten products of matrices of 500 × 500 against none."""

    class Slow(Scaler):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            much = tf.random.uniform((500, 500))
            for _ in range(10):
                much = tf.matmul(much, much) / 500
            return {"y": self.factor * x + 0 * tf.reduce_sum(tf.math.tanh(much))}

    handle = tfserve_nb.deploy(Scaler(2.0), "net")
    tfserve_nb.deploy(Slow(2.0), "net", stage=True)
    handle.capture()
    for number in range(12):
        handle.predict(rows_of(number))
    captured = handle.captured()
    slower = [one.arrived_s + 0.1 * place for place, one in enumerate(captured)]
    spread = [dataclasses.replace(one, arrived_s=at) for one, at in zip(captured, slower, strict=True)]
    result = handle.replay(onto=2, requests=dataclasses.replace(captured, requests=tuple(spread)))

    assert result.disagreement == 0.0
    assert "times as long as version 1's" in result.verdict
    assert result.slowdown > 1
    assert not result.passed()


def test_an_isolated_server_captures_and_replays_too() -> None:
    handle = tfserve_nb.deploy(Scaler(2.0), "net", isolate=True)
    tfserve_nb.deploy(Scaler(3.0), "net", stage=True)
    with pytest.raises(InvalidOption, match="served in this kernel"):
        handle.capture(redact=lambda inputs: inputs)
    handle.capture(max_requests=8, redact=())
    for number in range(1, 11):
        handle.predict(rows_of(number))
    found = captured_of(handle, 8)

    assert found.settings is not None
    assert found.settings.max_requests == 8
    there = tfserve_nb.connect(handle.rest_url, handle.token)
    result: ReplayResult = there.replay(onto=2, seconds=1)
    assert (result.num_requests, result.disagreement) == (len(found), 1.0)
    with pytest.raises(ReplayFailed, match="not deployed"):
        tfserve_nb.deploy(Scaler(4.0), "net", check_replay=ReplayLimits(**LENIENT))
    assert handle.versions == (1, 2)
    assert handle.clear_captured().captured().num_kept == 0
    assert handle.captured().is_on
