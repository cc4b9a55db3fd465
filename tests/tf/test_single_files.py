"""Models that are one file of another runtime: ONNX and TensorFlow Lite, through every door."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.onnx_models import linear, linear_scores

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.export.single_file.source import ONNX_FILE

X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    tfserve_nb.shutdown()


def saved(model: Any, path: str = "digits.onnx") -> Path:
    onnx.save(model, path)
    return Path(path)


def version_of(model: Any, folder: Path = Path("version")) -> Path:
    folder.mkdir()
    onnx.save(model, folder / ONNX_FILE)
    return folder


def by_rest(url: str, token: str | None, name: str, x: np.ndarray) -> Any:
    body = {"instances": x.tolist()}
    return posted(f"{url}/v1/models/{name}:predict", token, body)["predictions"]


def by_v2(url: str, token: str | None, name: str, x: np.ndarray) -> Any:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
    (output,) = posted(f"{url}/v2/models/{name}/infer", token, {"inputs": [tensor]})["outputs"]
    return np.reshape(output["data"], output["shape"])


def posted(url: str, token: str | None, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def by_grpc(address: str | None, token: str | None, name: str, x: np.ndarray) -> Any:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    with grpc.insecure_channel(address) as channel:
        metadata = [("authorization", f"Bearer {token}")]
        (output,) = PredictionServiceStub(channel).Predict(request, timeout=60, metadata=metadata).outputs.values()
    return tf.make_ndarray(output)


def assert_answers(handle: Deployment, expected: np.ndarray) -> None:
    """The same rows by each protocol that a handle's server speaks."""
    url = handle.rest_url.partition("/v1/")[0]
    for answer in (
        handle.predict(X),
        by_rest(url, handle.token, handle.name, X),
        by_v2(url, handle.token, handle.name, X),
        by_grpc(handle.grpc_address, handle.token, handle.name, X),
    ):
        np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_a_file_is_served_in_the_kernel_with_versions_and_rollback() -> None:
    handle = tfserve_nb.deploy(saved(linear()), grpc_port=0)
    assert (handle.name, handle.engine) == ("digits", "onnx")
    assert_answers(handle, linear_scores(X))
    assert handle.status().versions[0].alone == {}
    assert any("TensorFlow Serving cannot load" in note for note in handle.status().versions[0].notes)

    tfserve_nb.deploy(linear(offset=1.0), "digits", label="canary")
    assert_answers(handle, linear_scores(X, 1.0))
    handle.rollback()
    assert_answers(handle, linear_scores(X))
    assert handle.labels == {"canary": 2}
    handle.set_traffic({1: 50, 2: 50})
    assert handle.diff(1, 2, rows=X).disagreements is not None

    tfserve_nb.shutdown()
    (handle,) = tfserve_nb.resume()
    assert handle.engine == "onnx"
    assert handle.predict(X).shape == (5, 3)
