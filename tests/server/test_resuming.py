"""While models are loaded again, every way in says "not yet", and never that there is no such model."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.eventually import eventually
from helpers.fake_servable import FakeLoader
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction

from tfserve_nb.errors import ModelNotFound
from tfserve_nb.server.settings import GrpcSettings, ServerSettings
from tfserve_nb.server.thread import ServerThread
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource

BODY = json.dumps({"instances": [[1.0, 2.0]]})
V2_BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})

CALLS = {
    "predict": ("POST", "/v1/models/net:predict", BODY),
    "predict a version": ("POST", "/v1/models/net/versions/1:predict", BODY),
    "status": ("GET", "/v1/models/net", None),
    "metadata": ("GET", "/v1/models/net/metadata", None),
    "infer": ("POST", "/v2/models/net/infer", V2_BODY),
    "V2 model ready": ("GET", "/v2/models/net/ready", None),
    "V2 metadata": ("GET", "/v2/models/net", None),
    "V2 server ready": ("GET", "/v2/health/ready", None),
}


@pytest.fixture(params=[0, 1], ids=["one process", "a worker"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[ServingCore, ServerThread]]:
    core = ServingCore(FakeLoader())
    thread = ServerThread(core, ServerSettings(port=0, grpc=GrpcSettings(), workers=request.param))
    core.expect(["net"])
    core.start()
    thread.start()
    yield core, thread
    thread.stop()
    core.stop()


def call(port: int, method: str, path: str, body: str | None) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Retry-After")
    finally:
        connection.close()


def test_every_way_in_says_not_yet_until_the_model_is_there(
    served: tuple[ServingCore, ServerThread], tmp_path: Path
) -> None:
    core, thread = served
    answers = {name: call(thread.port, *request) for name, request in CALLS.items()}
    with grpc.insecure_channel(f"127.0.0.1:{thread.grpc_port}") as channel:
        codes = grpc_codes(channel)
        health = health_pb2_grpc.HealthStub(channel)
        is_ready = health.Check(health_pb2.HealthCheckRequest()).status

        assert answers == dict.fromkeys(CALLS, (503, "2"))
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 2
        assert is_ready == health_pb2.HealthCheckResponse.NOT_SERVING
        assert call(thread.port, "GET", "/healthz", None)[0] == 200, "it is alive"
        assert call(thread.port, "POST", "/v1/models/other:predict", BODY)[0] == 404

        path = tmp_path / "net" / "1"
        path.mkdir(parents=True)
        core.deploy("net", 1, VersionSource(path, BatchingOptions(4)), tmp_path, Placement())

        eventually(lambda: {name: call(thread.port, *request)[0] for name, request in CALLS.items()} == ALL_WELL)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


ALL_WELL = dict.fromkeys(CALLS, 200)


def grpc_codes(channel: grpc.Channel) -> list[grpc.StatusCode]:
    """The codes of predict and of the status."""
    predict = predict_pb2.PredictRequest()
    predict.model_spec.name = "net"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "net"
    codes = []
    for method, message in (
        (prediction.PredictionServiceStub(channel).Predict, predict),
        (model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus, status),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            method(message, timeout=60)
        codes.append(failed.value.code())
    return codes


def test_a_model_that_cannot_be_resumed_is_not_expected_any_longer(tmp_path: Path) -> None:
    core = ServingCore(FakeLoader())
    core.start()
    try:
        core.expect(["net", "other"])
        core.resume(tmp_path, "net")

        assert core.coming == {"other"}
        with pytest.raises(ModelNotFound):
            core.acquire(ModelSpec("net"))
    finally:
        core.stop()


def test_a_model_is_expected_while_it_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "net" / "1"
    path.mkdir(parents=True)
    first = ServingCore(FakeLoader())
    first.start()
    first.deploy("net", 1, VersionSource(path, BatchingOptions(4)), tmp_path, Placement())
    first.stop()
    gate = threading.Event()
    second = ServingCore(FakeLoader(lambda _: gate.wait(60)))
    second.start()
    try:
        resuming = threading.Thread(target=second.resume, args=(tmp_path,))
        resuming.start()
        eventually(lambda: second.coming == {"net"})
        gate.set()
        resuming.join(60)

        assert not second.coming
        second.acquire(ModelSpec("net")).release()
    finally:
        gate.set()
        second.stop()
