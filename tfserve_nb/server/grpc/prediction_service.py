"""gRPC's PredictionService: the messages of TensorFlow Serving around the calls that REST shares.

Thread: the server's loop.

Reference: tensorflow_serving/apis/prediction_service.proto; servables/tensorflow/predict_util.cc, classifier.cc,
regressor.cc, multi_inference.cc and get_model_metadata_impl.cc, whose texts the errors have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any  # protobuf messages

import numpy as np

from ...errors import FailedPrecondition, InvalidRequest, ServerFailed, Unimplemented
from ...export.prediction_log import serialized_examples
from ...protos.tensors import fill, to_array
from ...serving.backend import Handle
from ...types import DEFAULT_SIGNATURE, SignatureSpec
from ..calls import RequestContext
from ..examples import CLASSIFY_METHOD, REGRESS_METHOD, classifications, examples_input, regressions
from ..settings import GrpcSettings
from .calls import GrpcCalls, spec_of

PREDICT_METHODS = ("tensorflow/serving/predict", CLASSIFY_METHOD, REGRESS_METHOD)


class PredictionService:
    """The methods of `tensorflow.serving.PredictionService`.

    Args:
        grpc_calls: what every method does around its work.
        settings: how numbers are written, and whether method names are checked.
    """

    def __init__(self, grpc_calls: GrpcCalls, settings: GrpcSettings) -> None:
        self._calls = grpc_calls.calls
        self._grpc = grpc_calls
        self._settings = settings

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method's name on the wire
        """Run one signature on named tensors."""
        return await self._grpc.answer("Predict", self._predict, request, context)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Classes and scores of `tf.Example`s."""
        return await self._grpc.answer("Classify", partial(self._run_examples, CLASSIFY_METHOD), request, context)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One value for each `tf.Example`."""
        return await self._grpc.answer("Regress", partial(self._run_examples, REGRESS_METHOD), request, context)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Several signatures of one model on the same `tf.Example`s."""
        return await self._grpc.answer("MultiInference", self._multi_inference, request, context)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The signatures of a model."""
        return await self._grpc.answer("GetModelMetadata", self._metadata, request, context)

    async def _predict(self, request: Any, context: Any, notes: RequestContext) -> Any:
        from tensorflow_serving.apis.predict_pb2 import PredictResponse

        with self._grpc.acquired(spec_of(request), notes, context) as handle:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = handle.signatures.get(name)
            if signature is None:
                raise FailedPrecondition(f'Serving signature key "{name}" not found.')
            notes.signature = name
            self._check_predict_method(signature)
            inputs = _predict_inputs(signature, request.inputs)
            wanted = _wanted_outputs(signature, request.output_filter)
            answer = await self._calls.run(handle, name, inputs, self._grpc.deadline_s(context), notes)
            response = PredictResponse()
            for alias in wanted:
                fill(response.outputs[alias], answer.outputs[alias], as_content=self._settings.as_content)
            _fill_spec(response.model_spec, notes, handle, name)
            return response

    async def _run_examples(self, method: str, request: Any, context: Any, notes: RequestContext) -> Any:
        """Classify or regress, by the method's name."""
        from tensorflow_serving.apis.classification_pb2 import ClassificationResponse
        from tensorflow_serving.apis.regression_pb2 import RegressionResponse

        with self._grpc.acquired(spec_of(request), notes, context) as handle:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            response = ClassificationResponse() if method == CLASSIFY_METHOD else RegressionResponse()
            await self._fill_result(response.result, method, handle, name, request.input, context, notes)
            _fill_spec(response.model_spec, notes, handle, name)
            return response

    async def _multi_inference(self, request: Any, context: Any, notes: RequestContext) -> Any:
        from tensorflow_serving.apis.inference_pb2 import MultiInferenceResponse

        # The first task alone names the version, as in TensorFlow Serving.
        first = request.tasks[0] if request.tasks else request
        with self._grpc.acquired(spec_of(first), notes, context) as handle:
            names = _check_tasks(request.tasks, handle)
            response = MultiInferenceResponse()
            for task, name in zip(request.tasks, names, strict=True):
                result = response.results.add()
                is_classify = task.method_name == CLASSIFY_METHOD
                part = result.classification_result if is_classify else result.regression_result
                await self._fill_result(part, task.method_name, handle, name, request.input, context, notes)
                _fill_spec(result.model_spec, notes, handle, name)
            return response

    async def _metadata(self, request: Any, context: Any, notes: RequestContext) -> Any:
        from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse

        spec = spec_of(request)
        if not request.metadata_field:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidRequest(f"Metadata field {field} is not supported")
        with self._grpc.acquired(spec, notes, context) as handle:
            notes.assignment = None  # asking what a model takes is no request to it
            response = GetModelMetadataResponse()
            response.model_spec.name = spec.name
            response.model_spec.version.value = handle.version
            packed = response.metadata["signature_def"]
            packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
            packed.value = handle.signature_defs.proto
            return response

    async def _fill_result(
        self, result: Any, method: str, handle: Handle, name: str, given: Any, context: Any, notes: RequestContext
    ) -> None:
        """Run a signature on the examples of an `Input` message and write what it returns into `result`."""
        examples = serialized_examples(given)
        signature = handle.signatures.get(name)
        if signature is None:
            raise InvalidRequest(f"No signature was found with the name: {name}")
        notes.signature = name
        is_classify = method == CLASSIFY_METHOD
        if self._settings.checks_method_names and signature.method_name != method:
            kind = "classification" if is_classify else "regression"
            raise InvalidRequest(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")
        inputs = examples_input(signature, examples, is_classify=is_classify)
        answer = await self._calls.run(handle, name, inputs, self._grpc.deadline_s(context), notes)
        if is_classify:
            for pairs in classifications(signature, answer.outputs, len(examples)):
                classification = result.classifications.add()
                for label, score in pairs:
                    classification.classes.add(label=label, score=score)
        else:
            for value in regressions(answer.outputs, len(examples)):
                result.regressions.add(value=value)

    def _check_predict_method(self, signature: SignatureSpec) -> None:
        if self._settings.checks_method_names and signature.method_name not in PREDICT_METHODS:
            raise ServerFailed(
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(PREDICT_METHODS)}}}. Was: {signature.method_name}"
            )


def _predict_inputs(signature: SignatureSpec, protos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a predict request, with the signature's defaults for what was left out."""
    if len(protos) == len(signature.inputs) and all(name in protos for name in signature.inputs):
        return {name: to_array(protos[name], name) for name in signature.inputs}
    if len(protos) > len(signature.inputs) or (len(protos) < len(signature.inputs) and not signature.defaults):
        raise _wrong_number(signature, protos)
    missing = [name for name in signature.inputs if name not in protos and name not in signature.defaults]
    if missing:
        raise InvalidRequest(
            f"Signature input alias: {missing[0]}(feed name: {signature.inputs[missing[0]].tensor_name}) not found in "
            f"request and no default value provided. Inputs expected to be in the request {{{','.join(protos)}}}, or "
            f"default input alias set: {','.join(signature.defaults)}"
        )
    used = [name for name in signature.inputs if name in protos]
    if len(used) < len(protos):
        raise InvalidRequest(
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, request input: {','.join(protos)}"
        )
    return {
        name: to_array(protos[name], name) if name in protos else signature.defaults[name] for name in signature.inputs
    }


def _wrong_number(signature: SignatureSpec, protos: Mapping[str, Any]) -> InvalidRequest:
    extra = sorted(protos.keys() - signature.inputs.keys())
    missing = sorted(signature.inputs.keys() - protos.keys() - signature.defaults.keys())
    sent, required = ",".join(sorted(protos)), ",".join(sorted(signature.inputs))
    return InvalidRequest(
        f"input size does not match signature: {len(protos)}!={len(signature.inputs)} "
        f"len({{{sent}}}) != len({{{required}}}). "
        f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
    )


def _wanted_outputs(signature: SignatureSpec, wanted: list[str]) -> list[str]:
    if not wanted:
        return list(signature.outputs)
    for position, alias in enumerate(wanted):
        if alias not in signature.outputs:
            raise InvalidRequest(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if alias in wanted[:position]:
            raise InvalidRequest(f"duplicate output tensor alias: {alias}")
    return list(wanted)


def _check_tasks(tasks: Any, handle: Handle) -> list[str]:
    """The signature names of a MultiInference request."""
    names: list[str] = []
    for task in tasks:
        if not task.model_spec.name:
            raise InvalidRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        if name not in handle.signatures:
            raise InvalidRequest(f"Requested signature not found in model graph: {name}")
        if task.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
            raise Unimplemented(f"Unsupported signature method_name: {task.method_name}")
        names.append(name)
    return names


def _fill_spec(spec: Any, notes: RequestContext, handle: Handle, signature: str) -> None:
    spec.name = notes.model
    spec.signature_name = signature
    spec.version.value = handle.version
