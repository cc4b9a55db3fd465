"""`tfserve-nb serve` of versions that an engine runs: TensorFlow is not imported before something needs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers.black_box import Served, Start
from helpers.client_requests import example_request
from helpers.converting import loaded

import tfserve_nb
from tfserve_nb.cli.serve_plan import FREELY_BATCHED
from tfserve_nb.server.config_files import to_batching
from tfserve_nb.serving.engines.artefacts import FOLDER, RECORD_FILE

X = np.float32([[1, 2], [3, -4], [0.5, 0]])
Y = np.maximum(X @ np.float32([[1, 0, 2], [0, 1, -1]]), 0)
TOKEN = "secret"
LIMITS = {"onnx": FREELY_BATCHED, "litert": to_batching()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer as `onnx/1` and `litert/1`, and `lookup/1` for ONNX, each loaded once before."""
    import tensorflow as tf

    class Dense(tf.Module):
        """A layer."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            """The answer."""
            return {"y": tf.nn.relu(x @ self.weights)}

    class Lookup(tf.Module):
        """A row of a table for each number; a negative one is an error in TensorFlow only."""

        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable([[1.0], [2.0], [3.0]])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
        def __call__(self, x: Any) -> Any:
            """The answer."""
            return {"y": tf.gather(self.table, x)}

    root = tmp_path_factory.mktemp("prepared")
    for name, engine, make in (("onnx", "onnx", Dense), ("litert", "litert", Dense), ("lookup", "onnx", Lookup)):
        module: Any = make()
        tf.saved_model.save(module, str(root / name / "1"), signatures=module.__call__.get_concrete_function())
        with loaded(root / name / "1", engine, LIMITS[engine]):
            pass
    return root


def has_tensorflow(served: Served) -> bool:
    """Whether the server, or one of its workers, has loaded TensorFlow's libraries."""
    server = psutil.Process(served.process.pid)
    pids = [server.pid, *(child.pid for child in server.children(recursive=True))]
    maps = [Path(f"/proc/{pid}/maps").read_text(encoding="utf-8") for pid in pids]
    assert any("onnxruntime" in text or "ai_edge_litert" in text for text in maps)  # the maps are those of an engine
    return any("/site-packages/tensorflow/" in text for text in maps)


def predict_request(rows: np.ndarray) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = "dense"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(rows))
    return request


def answered(served: Served, rows: np.ndarray = X) -> np.ndarray:
    import tensorflow as tf

    found: np.ndarray = tf.make_ndarray(served.stub().Predict(predict_request(rows), timeout=60).outputs["y"])
    return found


@pytest.mark.parametrize(
    ("engine", "flags"),
    [("onnx", ()), ("onnx", ("--workers=2",)), ("litert", ("--enable_batching",))],
    ids=["onnx", "onnx-workers", "litert-batched"],
)
def test_no_door_needs_tensorflow_until_a_request_does(
    start: Start, prepared: Path, tmp_path: Path, engine: str, flags: tuple[str, ...], refused: Any
) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

    (tmp_path / "models").write_text(
        f"""model_config_list {{ config {{ name: "dense" base_path: "{prepared}/{engine}" model_platform: "tensorflow"
            logging_config {{ log_collector_config {{ filename_prefix: "{tmp_path}/log/r" }}
                              sampling_config {{ sampling_rate: 1 }} }} }} }}"""
    )
    (tmp_path / "monitoring").write_text("prometheus_config { enable: true }")
    served = start(
        f"--model_config_file={tmp_path}/models", f"--monitoring_config_file={tmp_path}/monitoring",
        "--enable_grpc_healthcheck_service", "--model_config_file_poll_wait_seconds=1", f"--engine={engine}", *flags,
    )  # fmt: skip

    for body in ({"instances": X.tolist()}, {"inputs": {"x": X.tolist()}}):
        status, value = served.predict(body, "dense")
        assert status == 200
        np.testing.assert_allclose(next(iter(value.values())), Y, rtol=1e-6)
    tensor = {"name": "x", "shape": [3, 2], "datatype": "FP32", "data": X.tolist()}
    status, value, _ = served.rest("POST", "/v2/models/dense/infer", {"inputs": [tensor]})
    assert status == 200
    np.testing.assert_allclose(np.reshape(value["outputs"][0]["data"], (3, 3)), Y, rtol=1e-6)
    np.testing.assert_allclose(answered(served), Y, rtol=1e-6)
    metadata = GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "dense"
    assert served.stub().GetModelMetadata(metadata, timeout=30).model_spec.version.value == 1
    status_request = GetModelStatusRequest()
    status_request.model_spec.name = "dense"
    assert served.stub("model").GetModelStatus(status_request, timeout=30).model_version_status[0].state == 30
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
    request = example_request("classify", "serving_default", 1.0, model="dense")
    assert refused(served.stub().Classify, request)[0] == "INVALID_ARGUMENT"
    for path in ("/v1/models/dense", "/v1/models/dense/metadata", "/v2/models/dense", "/monitoring/prometheus/metrics"):
        assert served.rest("GET", path)[0] == 200
    assert served.predict({"instances": [["a", "b"]]}, "dense")[0] == 400
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert not has_tensorflow(served)

    # No engine gets requests without rows, and what fits no graph is TensorFlow's to refuse.
    assert answered(served, X[:0]).shape == (0, 3)
    assert has_tensorflow(served)
    status, value = served.predict({"instances": [[1.0, 2.0, 3.0]]}, "dense")
    assert (status, "Matrix size-incompatible" in value["error"]) == (400, True)
    np.testing.assert_allclose(answered(served), Y, rtol=1e-6)
    assert served.stop() == 0


def test_a_handle_of_such_a_server_predicts_without_and_changes_the_engine(
    start: Start, prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    served = start(
        "--model_name=dense", f"--model_base_path={prepared}/onnx", f"--auth_token_file={tmp_path}/token",
        "--engine=onnx", "--dashboard",
    )  # fmt: skip

    handle = tfserve_nb.connect(f"http://127.0.0.1:{served.rest_port}/v1/models/dense", TOKEN)

    np.testing.assert_allclose(handle.predict(X), Y, rtol=1e-6)
    assert handle.engine == "onnx"
    assert {row.engine for row in handle.status().versions[0].engines} == {"tensorflow", "onnx"}
    assert handle.metrics().versions[1].num_requests == 1
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/tfserve/dashboard", "/tfserve/v1/resources", "/tfserve/v1/models"):
        assert served.rest("GET", path, headers=headers)[0] == 200
    assert not has_tensorflow(served)
    handle.set_engine("tensorflow")
    assert handle.engine == "tensorflow"
    np.testing.assert_allclose(handle.predict(X), Y, rtol=1e-6)
    assert has_tensorflow(served)
    handle.set_engine("onnx")
    np.testing.assert_allclose(handle.predict(X), Y, rtol=1e-6)
    assert served.stop() == 0


def test_what_was_not_noted_is_found_out_with_tensorflow_once(
    start: Start, prepared: Path, tmp_path: Path, refused: Any
) -> None:
    store = Path(shutil.copytree(prepared / "lookup", tmp_path / "store"))
    record = store / "1" / FOLDER / RECORD_FILE
    record.write_text(json.dumps({**json.loads(record.read_text()), "decisions": {}}))
    flags = ("--model_name=dense", f"--model_base_path={store}", "--engine=onnx")

    first = start(*flags)
    assert answered(first, np.int32([2, 0])).tolist() == [[3.0], [1.0]]
    assert has_tensorflow(first)
    assert first.stop() == 0

    second = start(*flags)
    assert answered(second, np.int32([2, 0])).tolist() == [[3.0], [1.0]]
    assert not has_tensorflow(second)
    code, text = refused(second.stub().Predict, predict_request(np.int32([0, -1])))
    assert (code, "-1 is not in [0, 3)" in text) == ("INVALID_ARGUMENT", True)
    assert second.stop() == 0
