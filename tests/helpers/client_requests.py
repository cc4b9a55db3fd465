"""Requests as clients of TensorFlow Serving make them."""

from __future__ import annotations

from typing import Any


def predict_request(model: str = "hpt", values: Any = (1.0, 2.0, 5.0), **spec: Any) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = model
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.model_spec.signature_name = spec.get("signature", "")
    if values is not None:
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(values))
    return request


def examples(*values: float) -> Any:
    from tensorflow_serving.apis.input_pb2 import Input

    message = Input()
    for value in values:
        message.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return message


def example_request(kind: str, signature: str, *values: float, model: str = "hpt") -> Any:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    types = {"classify": classification_pb2.ClassificationRequest, "regress": regression_pb2.RegressionRequest}
    request = types[kind]()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.CopyFrom(examples(*values))
    return request


def multi_request(*tasks: tuple[str, str], model: str = "hpt") -> Any:
    from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest

    request = MultiInferenceRequest()
    request.input.CopyFrom(examples(1.0, 2.0))
    for signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return request


def reload_request(*configs: dict[str, Any]) -> Any:
    """A reload of the configuration: names and paths, and what else a model has."""
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

    request = ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for config in configs:
        one = request.config.model_config_list.config.add(
            name=config["name"], base_path=str(config["path"]), model_platform=config.get("platform", "tensorflow")
        )
        policy = config.get("policy")
        if policy == "all":
            one.model_version_policy.all.SetInParent()
        elif isinstance(policy, list):
            one.model_version_policy.specific.versions.extend(policy)
        elif policy is not None:
            one.model_version_policy.latest.num_versions = policy
        for label, version in config.get("labels", {}).items():
            one.version_labels[label] = version
    return request
