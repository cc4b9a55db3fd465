"""Servers in a child process and servers elsewhere: the same handle, and nothing accepted is lost when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from helpers.eventually import eventually
from helpers.onnx_models import node, onnx_model

import tfserve_nb
from tfserve_nb.api import engine_check
from tfserve_nb.api.servers import ListenOptions, ensure_child, lost_models, served, server_of
from tfserve_nb.errors import (
    InvalidOption,
    InvalidRequest,
    ModelNotFound,
    NotAvailable,
    PortInUse,
    ServingError,
    VersionExists,
    VersionNotFound,
)
from tfserve_nb.serving.backend import ModelSpec


def scaler(factor: float) -> Any:
    """`y = factor x`, `x` float32 `(n, 2)`."""
    import keras

    return keras.Sequential([keras.layers.Input((2,)), keras.layers.Rescaling(factor)])


@pytest.fixture
def quick_scaler(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Any]:
    """The same as an ONNX model: a child that serves nothing else imports no TensorFlow, and starts at once."""
    monkeypatch.setattr(engine_check, "try_out", lambda _: "")  # a process for each deploy

    def make(factor: float) -> Any:
        nodes, rows = [node("Mul", "x factor", "y")], ("float32", ["batch", 2])
        return onnx_model(nodes, {"x": rows}, {"y": rows}, {"factor": np.array(factor, np.float32)})

    return make


X = np.float32([[1, 2]])


def children() -> list[psutil.Process]:
    """The server processes of this one, but for those that ended."""
    found = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in found if "--managed" in child.cmdline()]


def until_answered(ask: Callable[[], Any], limit_s: float = 60.0) -> Any:
    """The answer, however often it takes asking."""
    until_s = time.perf_counter() + limit_s
    while True:
        try:
            return ask()
        except ServingError:
            assert time.perf_counter() < until_s
            time.sleep(0.05)


@pytest.mark.usefixtures("own_folder")
def test_a_killed_child_comes_back_with_versions_labels_and_traffic(tmp_path: Path) -> None:
    steps: list[str] = []
    handle = tfserve_nb.deploy(
        scaler(2.0), "net", isolate=True, grpc_port=0, progress=lambda event: steps.append(event.phase)
    )
    assert steps[0] == "starting the server process"
    assert handle.is_isolated
    assert handle.grpc_address is not None
    tfserve_nb.deploy(scaler(3.0), "net", label="canary")
    handle.set_traffic({1: 75, 2: 25})
    np.testing.assert_array_equal(handle.predict(X, version=1), 2 * X)
    np.testing.assert_array_equal(handle.predict(np.repeat(X, 10_000, axis=0), label="canary")[-1:], 3 * X)
    assert handle.metrics().versions[1].num_requests == 1
    url = handle.rest_url

    (first,) = children()
    os.kill(first.pid, signal.SIGKILL)

    statuses: set[int] = set()

    def is_answered() -> bool:
        body, headers = {"instances": X.tolist()}, {"Authorization": f"Bearer {handle.token}"}
        with contextlib.suppress(requests.ConnectionError):
            statuses.add(requests.post(f"{url}:predict", json=body, headers=headers, timeout=60).status_code)
        return 200 in statuses

    eventually(is_answered)
    assert statuses <= {200, 503}, "a model that is loaded again is not missing"
    np.testing.assert_array_equal(until_answered(lambda: handle.predict(X, version=1)), 2 * X)
    assert handle.rest_url == url
    assert handle.traffic == {1: 75.0, 2: 25.0}
    assert handle.labels == {"canary": 2}
    assert handle.versions == (1, 2)
    (second,) = children()
    assert second.pid != first.pid
    assert [event.action for event in handle.history()][:4] == ["resume", "traffic", "deploy", "deploy"]

    handle.promote(2)
    assert handle.version == 2
    handle.rollback()
    assert handle.version == 1
    handle.set_label("canary", None)
    tfserve_nb.deploy(scaler(5.0), "net", shadow=20)
    assert (handle.version, handle.status().shadow) == (1, (3, 20.0))
    np.testing.assert_array_equal(handle.predict(X, key="user-17"), 2 * X)
    assert handle.shadow(None).status().shadow is None
    handle.undeploy(2, delete=True)
    assert not (tmp_path / "tfserve_models" / "net" / "2").exists()
    with pytest.raises(VersionNotFound, match="no version 7"):
        handle.promote(7)
    with pytest.raises(InvalidRequest, match="shape"):
        handle.predict(np.zeros((1, 3), np.float32))
    handle.undeploy()
    assert served() == {}
    assert children() == []
    with pytest.raises(ModelNotFound):
        handle.status()


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("name", ["net", "other"])
def test_a_deploy_starts_a_server_anew_that_was_given_up(
    name: str, monkeypatch: pytest.MonkeyPatch, quick_scaler: Callable[[float], Any]
) -> None:
    monkeypatch.setattr("tfserve_nb.server.child.MAX_RESTARTS", 1)
    handle = tfserve_nb.deploy(quick_scaler(2.0), "net", isolate=True)
    url = handle.rest_url
    (process,) = children()
    process.kill()
    eventually(lost_models)
    with pytest.raises(NotAvailable, match="died 1 times, the last one by signal 9; the next %deploy"):
        handle.predict(X)
    with pytest.raises(InvalidOption, match="model net is served from"):
        tfserve_nb.deploy(quick_scaler(3.0), "net", isolate=True, base_path="elsewhere")

    again = tfserve_nb.deploy(quick_scaler(3.0), name, isolate=True)

    np.testing.assert_array_equal(again.predict(X), 3 * X)
    np.testing.assert_array_equal(handle.predict(X, version=1), 2 * X)
    assert handle.rest_url == url


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("delete", [False, True])
def test_a_model_whose_server_was_given_up_can_be_undeployed(
    delete: bool, monkeypatch: pytest.MonkeyPatch, quick_scaler: Callable[[float], Any]
) -> None:
    monkeypatch.setattr("tfserve_nb.server.child.MAX_RESTARTS", 1)
    handle = tfserve_nb.deploy(quick_scaler(2.0), "net", isolate=True)
    (process,) = children()
    process.kill()
    eventually(lost_models)

    handle.undeploy(delete=delete)

    assert served() == {}
    assert lost_models() == ()
    assert Path("tfserve_models/net/1").exists() is not delete
    with pytest.raises(ModelNotFound, match="nothing is stored about"):
        tfserve_nb.resume("tfserve_models")
    with pytest.raises(ModelNotFound, match="net is not served here"):
        handle.undeploy()
    assert tfserve_nb.deploy(quick_scaler(3.0), "net").version == 2


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("isolate", [False, True])
def test_the_number_of_a_deleted_version_is_not_used_again_unless_forced(
    isolate: bool, quick_scaler: Callable[[float], Any]
) -> None:
    handle = tfserve_nb.deploy(quick_scaler(1.0), "net", version=3, isolate=isolate)
    tfserve_nb.deploy(quick_scaler(2.0), "net", version=7)
    handle.undeploy(3, delete=True)

    with pytest.raises(VersionExists, match="version 3 of model net was deleted; numbers of deleted") as caught:
        tfserve_nb.deploy(quick_scaler(3.0), "net", version=3)
    assert caught.value.hint == "leave --version out to get 8; --force uses 3 again"
    assert tfserve_nb.deploy(quick_scaler(3.0), "net", version=5).version == 5  # which none had
    handle.undeploy(delete=True)
    with pytest.raises(VersionExists, match="version 7 of model net was deleted"):
        tfserve_nb.deploy(quick_scaler(3.0), "net", version=7)
    assert tfserve_nb.deploy(quick_scaler(3.0), "net", version=3, force=True).version == 3


@pytest.mark.usefixtures("own_folder")
def test_kernel_and_child_side_by_side_and_connect(quick_scaler: Callable[[float], Any]) -> None:
    inside = tfserve_nb.deploy(scaler(2.0), "inside", grpc_port=0)
    outside = tfserve_nb.deploy(quick_scaler(3.0), "outside", isolate=True)
    assert [handle.is_isolated for handle in (inside, outside)] == [False, True]
    assert inside.token != outside.token
    with pytest.raises(InvalidOption, match="model inside is served in the kernel"):
        tfserve_nb.deploy(quick_scaler(1.0), "inside", isolate=True)
    with pytest.raises(InvalidOption, match="always asks for a token"):
        tfserve_nb.deploy(quick_scaler(1.0), "third", isolate=True, auth=False)

    for handle, factor in ((inside, 2), (outside, 3)):
        there = tfserve_nb.connect(handle.rest_url, handle.token)
        assert there != handle
        np.testing.assert_array_equal(there.predict(X), factor * X)
        assert there.status() == handle.status()
        assert there.parity(handle, requests=0).is_same
        assert there.version == 1
        assert len(there.metrics(span_s=30).versions[1].series.rps) == len(
            handle.metrics(span_s=30).versions[1].series.rps
        )
    by_host = tfserve_nb.connect(inside.rest_url.split("/v1")[0], inside.token)
    assert by_host.name == "inside"
    by_host.set_label("stable", 1)
    assert inside.labels == {"stable": 1}
    with pytest.raises(InvalidRequest, match="The token is wrong"):
        tfserve_nb.connect(inside.rest_url, "wrong")
    with pytest.raises(ModelNotFound, match="no model 'none'"):
        tfserve_nb.connect(inside.rest_url, inside.token, name="none")
    with pytest.raises(InvalidOption, match="must begin with http"):
        tfserve_nb.connect("ftp://x", "t")
    tfserve_nb.shutdown()
    with pytest.raises(NotAvailable, match="cannot be reached"):
        by_host.status()


@pytest.mark.usefixtures("own_folder")
def test_grpc_beside_rest_in_the_kernel() -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    handle = tfserve_nb.deploy(scaler(2.0), "net", grpc_port=0)
    request = PredictRequest()
    request.model_spec.name = "net"
    pinned = server_of("net").models.acquire(ModelSpec("net"))
    (name,) = pinned.signatures["serving_default"].inputs
    pinned.release()
    request.inputs[name].CopyFrom(tf.make_tensor_proto(X))
    with grpc.insecure_channel(handle.grpc_address) as channel:
        stub = PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answer = stub.Predict(request, timeout=30, metadata=[("authorization", f"Bearer {handle.token}")])
    (output,) = answer.outputs.values()
    np.testing.assert_array_equal(tf.make_ndarray(output), 2 * X)


def test_the_child_goes_with_its_kernel(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import keras, os, psutil, signal, tfserve_nb
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Rescaling(2.0)])
        tfserve_nb.deploy(model, "net", isolate=True)
        (pid,) = [child.pid for child in psutil.Process().children() if "--managed" in child.cmdline()]
        print(pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout.split()[-1])

    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.usefixtures("own_folder")
def test_a_child_ends_when_it_serves_nothing(tmp_path: Path, quick_scaler: Callable[[float], Any]) -> None:
    with pytest.raises(ServingError, match="warmup: the batch has no rows"):
        tfserve_nb.deploy(scaler(2.0), "net", isolate=True, warmup=X[:0])
    assert served() == {}
    assert children() == []

    for name in ("net", "other"):
        tfserve_nb.deploy(quick_scaler(2.0), name, isolate=True)
    handle = tfserve_nb.deployment("net")
    assert handle.base_path == tmp_path / "tfserve_models"
    with pytest.raises(ServingError, match="warmup: the batch has no rows"):
        tfserve_nb.deploy(scaler(2.0), "third", warmup=X[:0], isolate=True)
    assert list(served()) == ["net", "other"]

    tfserve_nb.connect(handle.rest_url, handle.token).undeploy()  # over its admin API, as from another process
    with pytest.raises(ModelNotFound, match="net is not served here; served: other"):
        tfserve_nb.deployment("net")
    tfserve_nb.deployment("other").undeploy()
    assert children() == []


@pytest.mark.usefixtures("own_folder")
def test_a_child_that_cannot_start_says_why() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} on 127.0.0.1 is taken"):
            ensure_child(ListenOptions(port))
    assert served() == {}
    assert children() == []
