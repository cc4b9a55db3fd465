"""TensorFlow Serving's clients against replicas on Ray: a model that plain TensorFlow saved, its numbers from Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from helpers.ray_clients import TOKEN, rest, until
from helpers.saved_models import write_keras_probe

from tfserve_nb.scaleout.ray.admin import with_user_config
from tfserve_nb.scaleout.ray.deploy import RayServer
from tfserve_nb.scaleout.ray.state import state_of

ROWS = np.random.default_rng(7).normal(size=(3, 4)).astype(np.float32)
METADATA = (("authorization", f"Bearer {TOKEN}"),)
PATHS = {"/v1/models/probe": 1, "/v1/models/probe/versions/2": 2, "/v1/models/probe/labels/next": 2}
"""Paths of the model -> the version that must answer."""


@pytest.fixture(scope="module")
def answers(server: RayServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[int, np.ndarray]]:
    """What Keras itself answers to `ROWS`, by version; meanwhile the replicas serve `probe` too, 1 promoted of 2."""
    folder = tmp_path_factory.mktemp("keras") / "probe"
    found = {version: write_keras_probe(folder / str(version), ROWS, seed=version) for version in (1, 2)}
    entry = {
        "name": "probe", "base_path": str(folder), "versions": [1, 2], "traffic": {"1": 100}, "labels": {"next": 2},
    }  # fmt: skip
    with also_served(server, entry):
        yield found


@contextmanager
def also_served(server: RayServer, entry: dict[str, Any]) -> Iterator[None]:
    """One more model on the cluster of the ring."""
    details = server.api.details()
    (deployment,) = details["applications"]["tfserve_nb"]["deployed_app_config"]["deployments"]
    before = deployment["user_config"]
    server.api.deploy(with_user_config(details, {**before, "models": [*before["models"], entry]}))
    try:
        until(lambda: states_of(server, entry["name"]) == {"AVAILABLE"} and state_of(server.api.details()).is_settled)
        yield
    finally:
        server.api.deploy(with_user_config(server.api.details(), before))


def states_of(server: RayServer, model: str) -> set[str]:
    """Of its versions, in the replica that answers."""
    _, answer = rest(server, "GET", f"/v1/models/{model}")
    return {one["state"] for one in answer.get("model_version_status", ())}


def features(**values: Any) -> list[dict[str, Any]]:
    return [{"x": row.tolist(), **values} for row in ROWS]


# ---------------------------------------------------------------- REST


@pytest.mark.parametrize(("path", "version"), PATHS.items())
@pytest.mark.parametrize(
    ("method", "body", "key"),
    [
        ("predict", {"instances": ROWS.tolist()}, "predictions"),
        ("predict", {"instances": features(), "signature_name": "serving_default"}, "predictions"),
        ("predict", {"inputs": ROWS.tolist()}, "outputs"),
        ("predict", {"inputs": {"x": ROWS.tolist()}}, "outputs"),
        ("classify", {"signature_name": "classify", "examples": features()}, "results"),
        ("classify", {"signature_name": "classify", "context": {"x": ROWS[0].tolist()}, "examples": [{}]}, "results"),
        ("regress", {"signature_name": "regress", "examples": features()}, "results"),
    ],
)
def test_rest_answers_with_the_numbers_of_keras(
    server: RayServer,
    answers: Mapping[int, np.ndarray],
    path: str,
    version: int,
    method: str,
    body: dict[str, Any],
    key: str,
) -> None:
    status, answer = rest(server, "POST", f"{path}:{method}", body)

    assert (status, list(answer)) == (200, [key])
    found = answer[key]
    if method == "classify":
        assert {label for row in found for label, _ in row} == {""}, "the signature has no classes"
        found = [[score for _, score in row] for row in found]
    expected = answers[version][: len(found), 0] if method == "regress" else answers[version][: len(found)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("path", "version"), PATHS.items())
def test_rest_tells_states_and_signatures(
    server: RayServer, answers: Mapping[int, np.ndarray], path: str, version: int
) -> None:
    status, found = rest(server, "GET", path)
    versions = [str(version)] if "/versions/" in path else ["2", "1"]  # a label tells nothing apart here
    ok = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (status, found) == (200, {"model_version_status": [{"version": one, **ok} for one in versions]})

    status, found = rest(server, "GET", f"{path}/metadata")
    assert (status, found["model_spec"]) == (
        200, {"name": "probe", "signature_name": "", "version": str(version)},
    )  # fmt: skip
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert {name: one["method_name"] for name, one in signatures.items() if name != "__saved_model_init_op"} == {
        "serving_default": "tensorflow/serving/predict",
        "classify": "tensorflow/serving/classify",
        "regress": "tensorflow/serving/regress",
    }
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [one["size"] for one in signatures["serving_default"]["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "4"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/v1/models/other:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(other)"),
        (
            "POST",
            "/v1/models/probe/versions/3:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(probe, 3)",
        ),
        ("POST", "/v1/models/probe/labels/old:predict", {"instances": [1]}, 400, "Unrecognized servable version label"),
        ("POST", "/v1/models/probe:predict", b"{", 400, "JSON Parse error"),
        ("POST", "/v1/models/probe:predict", {"rows": [1]}, 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "/v1/models/probe:predict", {"instances": [["a"]]}, 400, ""),
        ("POST", "/v1/models/probe:predict", {"instances": [[1.0, 2.0]]}, 400, ""),
        (
            "POST",
            "/v1/models/probe:predict",
            {"instances": [1], "signature_name": "no"},
            400,
            'Serving signature name: "no" not found in signature def',
        ),
        (
            "POST",
            "/v1/models/probe:explain",
            {"instances": [1]},
            400,
            "Malformed request: POST /v1/models/probe:explain",
        ),
        ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/probe/versions/3", None, 404, "Could not find version 3 of model probe"),
    ],
)
def test_rest_refuses_as_tensorflow_serving_does(
    server: RayServer,
    answers: Mapping[int, np.ndarray],
    method: str,
    path: str,
    body: Any,
    status: int,
    error: str,
) -> None:
    found, answer = rest(server, method, path, body)

    assert (found, list(answer)) == (status, ["error"])
    assert error in answer["error"]


def test_the_open_inference_protocol_and_health(server: RayServer, answers: Mapping[int, np.ndarray]) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(ROWS.shape), "data": ROWS.ravel().tolist()}]}
    status, found = rest(server, "POST", "/v2/models/probe/infer", body)

    np.testing.assert_allclose(found["outputs"][0]["data"], answers[1].ravel(), rtol=1e-5, atol=1e-6)
    assert (status, found["outputs"][0]["shape"]) == (200, [3, 3])
    assert rest(server, "GET", "/healthz", token=None) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/v1/models/hpt", "/v2/models/hpt", "/tfserve/v1/models", "/tfserve/v1/replica"])
@pytest.mark.parametrize("token", [None, "wrong"])
def test_nothing_is_answered_without_the_token(server: RayServer, path: str, token: str | None) -> None:
    status, answer = rest(server, "GET", path, token=token)

    assert (status, "token" in answer["error"]) == (401, True)


# ---------------------------------------------------------------- gRPC


@pytest.fixture(scope="module")
def channel(server: RayServer, answers: Mapping[int, np.ndarray]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.handle.grpc_address) as channel:
        grpc.channel_ready_future(channel).result(60)  # it is there before the first test, and until the last
        yield channel


def filled(request: Any, signature: str = "", **spec: Any) -> Any:
    """A request for the model with `ROWS` as what its kind takes."""
    import tensorflow as tf

    request.model_spec.name = spec.get("name", "probe")
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    if hasattr(request, "inputs"):
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(spec.get("rows", ROWS)))
    elif hasattr(request, "input"):
        for row in ROWS:
            request.input.example_list.examples.add().features.feature["x"].float_list.value.extend(row.tolist())
    return request


@pytest.mark.parametrize(("spec", "version"), [({}, 1), ({"version": 2}, 2), ({"label": "next"}, 2)])
def test_grpc_answers_with_the_numbers_of_keras(
    channel: grpc.Channel, answers: Mapping[int, np.ndarray], spec: dict[str, Any], version: int
) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_service_pb2_grpc, regression_pb2

    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def call(method: str, request: Any, signature: str = "") -> Any:
        return getattr(stub, method)(filled(request, signature, **spec), timeout=60, metadata=METADATA)

    predicted = call("Predict", predict_pb2.PredictRequest())
    classified = call("Classify", classification_pb2.ClassificationRequest(), "classify")
    regressed = call("Regress", regression_pb2.RegressionRequest(), "regress")

    (output,) = predicted.outputs.values()
    scores = [[one.score for one in row.classes] for row in classified.result.classifications]
    values = [one.value for one in regressed.result.regressions]
    for answer in (predicted, classified, regressed):
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("probe", version)
    for found, expected in (
        (tf.make_ndarray(output), answers[version]), (scores, answers[version]), (values, answers[version][:, 0]),
    ):  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_grpc_tells_states_and_signatures(channel: grpc.Channel) -> None:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        filled(get_model_status_pb2.GetModelStatusRequest()), timeout=60, metadata=METADATA
    )
    request = filled(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(
        request, timeout=60, metadata=METADATA
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)

    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert {one.version: one.state for one in status.model_version_status} == {1: available, 2: available}
    assert answer.model_spec.version.value == 1
    assert {"serving_default", "classify", "regress"} <= set(signatures.signature_def)
    assert [one.size for one in signatures.signature_def["serving_default"].inputs["x"].tensor_shape.dim] == [-1, 4]


@pytest.mark.parametrize(
    ("spec", "signature", "code"),
    [
        ({"token": ()}, "", "UNAUTHENTICATED"),
        ({"name": "other"}, "", "NOT_FOUND"),
        ({"version": 3}, "", "NOT_FOUND"),
        ({"label": "old"}, "", "INVALID_ARGUMENT"),
        ({}, "no", "FAILED_PRECONDITION"),
        ({"rows": ROWS[:, :2]}, "", "INVALID_ARGUMENT"),
        ({"rows": [["a"]]}, "", "INVALID_ARGUMENT"),
    ],
)
def test_grpc_refuses_as_tensorflow_serving_does(
    channel: grpc.Channel, spec: dict[str, Any], signature: str, code: str
) -> None:
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(
            filled(predict_pb2.PredictRequest(), signature, **spec), timeout=60, metadata=spec.get("token", METADATA)
        )

    assert error.value.code().name == code
