"""gRPC with the real stubs: every method, and the status codes and texts of TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.client_requests import example_request, multi_request, predict_request


def test_predict_answers_in_typed_fields(served) -> None:
    response = served.stub().Predict(predict_request(), timeout=30)

    assert list(response.outputs) == ["y"]
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert response.outputs["y"].tensor_content == b""
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [3]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("hpt", 123, "serving_default")


def test_predict_reads_every_way_to_write_a_tensor(served) -> None:
    import numpy as np

    stub = served.stub()
    request = predict_request(values=None)
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 3
    tensor.float_val.append(2.0)
    assert list(stub.Predict(request, timeout=30).outputs["y"].float_val) == [3.0, 3.0, 3.0]

    tensor.ClearField("float_val")
    tensor.tensor_content = np.float32([1, 2, 5]).tobytes()
    assert list(stub.Predict(request, timeout=30).outputs["y"].float_val) == [2.5, 3.0, 4.5]


@pytest.mark.parametrize(("spec", "version", "value"), [
    ({}, 2, 3.5), ({"version": 1}, 1, 2.5), ({"label": "stable"}, 1, 2.5), ({"label": "canary"}, 2, 3.5),
])  # fmt: skip
def test_versions_and_labels_choose_who_answers(served, spec: dict[str, Any], version: int, value: float) -> None:
    response = served.stub().Predict(predict_request("two", [1.0], **spec), timeout=30)

    assert response.model_spec.version.value == version
    assert list(response.outputs["y"].float_val) == [value]


def test_output_filter(served, refused) -> None:
    stub = served.stub()
    request = predict_request("many", None, signature="pair")
    import tensorflow as tf

    for name in "ab":
        request.inputs[name].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    assert sorted(stub.Predict(request, timeout=30).outputs) == ["sum", "twice"]
    request.output_filter.append("sum")
    assert list(stub.Predict(request, timeout=30).outputs) == ["sum"]
    request.output_filter.append("sum")
    assert refused(stub.Predict, request) == ("INVALID_ARGUMENT", "duplicate output tensor alias: sum")
    request.output_filter[1] = "z"
    code, text = refused(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("output tensor alias not found in signature: z Outputs expected to be in the set {")


@pytest.mark.parametrize(
    ("request_of", "code", "text"),
    [
        (lambda: predict_request("no"), "NOT_FOUND", "Servable not found for request: Latest(no)"),
        (lambda: predict_request(version=7), "NOT_FOUND", "Servable not found for request: Specific(hpt, 7)"),
        (lambda: predict_request(label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (lambda: predict_request(signature="s"), "FAILED_PRECONDITION", 'Serving signature key "s" not found.'),
        (lambda: predict_request(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (lambda: predict_request().FromString(b""), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            lambda: predict_request(values=None),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            lambda: predict_request(values=["a"]),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
    ],
)
def test_predict_errors(served, refused, request_of: Any, code: str, text: str) -> None:
    assert refused(served.stub().Predict, request_of()) == (code, text)


def test_a_tensor_that_does_not_fit_its_shape(served, refused) -> None:
    request = predict_request()
    request.inputs["x"].tensor_shape.dim[0].size = 2

    assert refused(served.stub().Predict, request) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_classify(served) -> None:
    stub = served.stub()

    response = stub.Classify(example_request("classify", "classify_labels", 1.0, 2.0), timeout=30)

    assert [[(one.label, one.score) for one in row.classes] for row in response.result.classifications] == [
        [("half plus two", 2.5)],
        [("half plus two", 3.0)],
    ]
    assert response.model_spec.signature_name == "classify_labels"
    response = stub.Classify(example_request("classify", "classify_x_to_y", 1.0), timeout=30)
    assert [(one.label, one.score) for one in response.result.classifications[0].classes] == [("", 2.5)]


def test_regress_and_context(served) -> None:
    stub = served.stub()
    request = example_request("regress", "regress_x_to_y", 1.0, 4.0)
    assert [one.value for one in stub.Regress(request, timeout=30).result.regressions] == [2.5, 4.0]

    request = example_request("regress", "regress_x2_to_y3")
    group = request.input.example_list_with_context
    group.context.features.feature["x2"].float_list.value.append(8.0)
    for value in (1.0, 2.0):
        group.examples.add().features.feature["x"].float_list.value.append(value)
    assert [one.value for one in stub.Regress(request, timeout=30).result.regressions] == [7.0, 7.0]


def test_example_errors(served, refused) -> None:
    stub = served.stub()

    assert refused(stub.Classify, example_request("classify", "none", 1.0)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: none",
    )
    assert refused(stub.Regress, example_request("regress", "regress_x_to_y")) == (
        "INVALID_ARGUMENT",
        "Input is empty.",
    )
    code, text = refused(stub.Classify, example_request("classify", "serving_default", 1.0))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("No classification inputs found in SignatureDef: ")
    code, text = refused(stub.Regress, example_request("regress", "classify_x_to_y", 1.0))
    assert text.startswith("No regression outputs found in SignatureDef: ")


def test_multi_inference(served) -> None:
    request = multi_request(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))

    first, second = served.stub().MultiInference(request, timeout=30).results

    assert [one.value for one in first.regression_result.regressions] == [2.5, 3.0]
    assert [row.classes[0].score for row in second.classification_result.classifications] == [2.5, 3.0]
    assert first.model_spec.version.value == 123


def test_multi_inference_errors(served, refused) -> None:
    stub = served.stub()
    twice = multi_request(("regress_x_to_y", "regress"), ("regress_x_to_y", "regress"))
    mixed = multi_request(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))
    mixed.tasks[1].model_spec.name = "two"

    assert refused(stub.MultiInference, twice)[1] == "Duplicate evaluation of signature: regress_x_to_y"
    assert refused(stub.MultiInference, mixed)[1] == (
        "All ModelSpecs in a MultiInferenceRequest must access the same model name."
    )
    assert refused(stub.MultiInference, multi_request(("x", "regress")))[1] == (
        "Requested signature not found in model graph: x"
    )
    assert refused(stub.MultiInference, multi_request(("serving_default", "predict"))) == (
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    )


def test_metadata(served, refused) -> None:
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

    stub = served.stub()
    request = GetModelMetadataRequest()
    request.model_spec.name = "hpt"
    assert refused(stub.GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request, timeout=30)
    definitions = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(definitions)
    assert definitions.signature_def["serving_default"].inputs["x"].name == "x:0"
    assert "regress_x_to_y" in definitions.signature_def
    assert response.model_spec.version.value == 123
    request.metadata_field.append("more")
    assert refused(stub.GetModelMetadata, request)[1] == "Metadata field more is not supported"


def test_status(served, refused) -> None:
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

    stub = served.stub("model")
    request = GetModelStatusRequest()
    assert refused(stub.GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "two"
    found = stub.GetModelStatus(request, timeout=30).model_version_status
    assert [(one.version, one.state) for one in found] == [
        (2, ModelVersionStatus.AVAILABLE),
        (1, ModelVersionStatus.AVAILABLE),
    ]
    request.model_spec.version.value = 5
    assert refused(stub.GetModelStatus, request) == ("NOT_FOUND", "Could not find version 5 of model two")
    request.model_spec.name = "no"
    request.model_spec.ClearField("version")
    assert refused(stub.GetModelStatus, request) == ("NOT_FOUND", "Could not find any versions of model no")


def test_health_and_reflection(served) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "ModelService", "PredictionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        asked = [ask(list_services=""), ask(file_containing_symbol="tensorflow.serving.PredictionService")]
        listed, described = stub.ServerReflectionInfo(iter(asked), timeout=30)
    names = {one.name for one in listed.list_services_response.service}
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


def test_a_deadline_that_passes_while_the_model_runs(served, tmp_path: Path) -> None:
    import grpc
    import tensorflow as tf

    stub, end = served.stub(), tmp_path / "end"
    request = predict_request("until_file", None)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([str(end)]))
    try:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=0.2)
    finally:
        end.touch()

    assert caught.value.code().name == "DEADLINE_EXCEEDED"
    # The run itself cannot be stopped: it ends with the file, and the next request waits for it.
    assert stub.Predict(request, timeout=30).outputs["y"].string_val[0].decode() == str(end)


def test_a_long_error_is_cut(served, refused) -> None:
    stub = served.stub()

    code, text = refused(stub.Predict, predict_request("x" * 3000))
    assert code == "NOT_FOUND"
    assert text == ("Servable not found for request: Latest(" + "x" * 3000)[:1024] + "...TRUNCATED"


def test_large_messages_are_taken(served) -> None:
    import numpy as np

    values = np.ones(3_000_000, np.float32)
    response_limit = [("grpc.max_receive_message_length", -1)]
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}", options=response_limit) as channel:
        answer = PredictionServiceStub(channel).Predict(predict_request(values=values), timeout=30)
    assert len(answer.outputs["y"].float_val) == 3_000_000
