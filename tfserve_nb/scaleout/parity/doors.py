"""The protocols that a server answers predictions over, each with the same interface.

Thread: the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ...errors import InvalidRequest, NotAvailable
from ...protos.tensors import fill, to_array
from ...server.admin.predict_body import (
    binary_outputs,
    binary_request,
    class_outputs,
    encode_examples,
    encode_inputs,
    encode_rows,
    example_outputs,
    json_outputs,
    value_outputs,
)
from ...server.examples import CLASSIFY_METHOD, REGRESS_METHOD
from ...server.rest.v2_tensors import HEADER_LENGTH
from ...types import SignatureSpec, Tensors
from .findings import Verdict
from .grpc_client import CLASSIFY, PREDICT, REGRESS
from .side import Reply, Side, model_path


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server made of a predict request.

    Attributes:
        outputs: name -> array; None when it refused.
        code: why: an HTTP status or the name of a gRPC code.
        text: the text of the error.
    """

    outputs: Tensors | None
    code: str = ""
    text: str = ""

    @property
    def refusal(self) -> str:
        """Code and text."""
        return f"{self.code} {self.text}"


class Encoded(NamedTuple):
    """A predict request as it is sent."""

    body: bytes
    fields: Mapping[str, str] = {}


class Door(Protocol):
    """One protocol.

    Attributes:
        name: in reports.
        takes_examples: whether it is the way of the calls classify and regress, and not of predict.
        if_closed: what becomes of comparisons over it where it is closed.
    """

    name: str
    takes_examples: bool
    if_closed: Verdict

    def why_closed(self, side: Side) -> str:
        """Why it cannot be used; "" when it can."""

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """A request.

        Raises:
            InvalidRequest: if it cannot carry the inputs.
        """

    def ask(self, side: Side, model: str, version: int | None, signature: SignatureSpec, request: Encoded) -> Answer:
        """Send it.

        Raises:
            NotAvailable: if the server cannot be reached, or the response holds no outputs of the signature.
        """


class Rest:
    """TensorFlow Serving's REST API, in row or columnar format."""

    takes_examples = False
    if_closed = Verdict.NOT_THERE

    def __init__(self, *, has_rows: bool) -> None:
        self.name = "REST, rows" if has_rows else "REST, columns"
        self._encode = encode_rows if has_rows else encode_inputs

    def why_closed(self, side: Side) -> str:
        """Every server has it."""
        del side
        return ""

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """JSON."""
        del model, version
        return Encoded(self._encode(signature.name, inputs))

    def ask(self, side: Side, model: str, version: int | None, signature: SignatureSpec, request: Encoded) -> Answer:
        """POST the call of the signature: `:predict` here."""
        reply = side.send("POST", f"{model_path(model, version)}:{self._call(signature)}", request.body)
        if reply.status != 200:
            return _refused(reply)
        try:
            return Answer(self._outputs(reply.body, signature))
        except ValueError as error:
            raise _no_outputs(side, self.name, error) from error

    def _call(self, signature: SignatureSpec) -> str:
        del signature
        return "predict"

    def _outputs(self, body: bytes, signature: SignatureSpec) -> Tensors:
        return json_outputs(body, signature.outputs)


class V2:
    """The Open Inference Protocol, with raw tensors."""

    name = "V2"
    takes_examples = False
    if_closed = Verdict.NOT_THERE

    def why_closed(self, side: Side) -> str:
        """TensorFlow Serving has none."""
        return side.why_no_v2

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """JSON, and the tensors behind it."""
        del model, version
        return Encoded(*binary_request(signature.name, inputs))

    def ask(self, side: Side, model: str, version: int | None, signature: SignatureSpec, request: Encoded) -> Answer:
        """POST `/infer`."""
        del signature
        path = f"/v2{model_path(model, version).removeprefix('/v1')}/infer"
        reply = side.send("POST", path, request.body, request.fields)
        if reply.status != 200:
            return _refused(reply)
        try:
            return Answer(binary_outputs(reply.body, reply.fields.get(HEADER_LENGTH)))
        except (InvalidRequest, KeyError, TypeError, ValueError) as error:
            raise _no_outputs(side, self.name, error) from error


class Grpc:
    """TensorFlow Serving's PredictionService."""

    name = "gRPC"
    takes_examples = False
    if_closed = Verdict.NOT_COMPARED

    def why_closed(self, side: Side) -> str:
        """Its address is not known from the URL."""
        return side.why_no_grpc

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """A serialized `PredictRequest`."""
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature.name
        if version is not None:
            request.model_spec.version.value = version
        for name, array in inputs.items():
            fill(request.inputs[name], array, as_content=array.dtype != object)
        return Encoded(request.SerializeToString())

    def ask(self, side: Side, model: str, version: int | None, signature: SignatureSpec, request: Encoded) -> Answer:
        """Predict."""
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.predict_pb2 import PredictResponse

        del model, version, signature
        code, text, response = side.call(PREDICT, request.body)
        if code != "OK":
            return Answer(None, code, text)
        try:
            outputs = PredictResponse.FromString(response).outputs
            return Answer({name: to_array(tensor, name) for name, tensor in outputs.items()})
        except (DecodeError, InvalidRequest) as error:
            raise _no_outputs(side, self.name, error) from error


class RestExamples(Rest):
    """The call that a signature is for, classify or regress, over TensorFlow Serving's REST API."""

    takes_examples = True

    def __init__(self) -> None:
        super().__init__(has_rows=True)
        self.name = "REST"

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """JSON."""
        del model, version
        return Encoded(encode_examples(signature.name, _examples_in(inputs)))

    def _call(self, signature: SignatureSpec) -> str:
        return call_of(signature)

    def _outputs(self, body: bytes, signature: SignatureSpec) -> Tensors:
        return example_outputs(body, signature.method_name)


class GrpcExamples(Grpc):
    """The call that a signature is for, classify or regress, of TensorFlow Serving's PredictionService."""

    takes_examples = True

    def encode(self, model: str, version: int | None, signature: SignatureSpec, inputs: Tensors) -> Encoded:
        """A serialized `ClassificationRequest` or `RegressionRequest`."""
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
        from tensorflow_serving.apis.regression_pb2 import RegressionRequest

        request = ClassificationRequest() if signature.method_name == CLASSIFY_METHOD else RegressionRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature.name
        if version is not None:
            request.model_spec.version.value = version
        try:
            for serialized in _examples_in(inputs):
                request.input.example_list.examples.add().ParseFromString(serialized)
        except DecodeError as error:
            raise InvalidRequest(f"a row is no serialized tf.Example: {error}") from error
        return Encoded(request.SerializeToString())

    def ask(self, side: Side, model: str, version: int | None, signature: SignatureSpec, request: Encoded) -> Answer:
        """Classify or Regress."""
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.classification_pb2 import ClassificationResponse
        from tensorflow_serving.apis.regression_pb2 import RegressionResponse

        del model, version
        is_classify = signature.method_name == CLASSIFY_METHOD
        code, text, response = side.call(CLASSIFY if is_classify else REGRESS, request.body)
        if code != "OK":
            return Answer(None, code, text)
        try:
            if is_classify:
                found = ClassificationResponse.FromString(response).result.classifications
                return Answer(class_outputs([[(each.label, each.score) for each in one.classes] for one in found]))
            values = [one.value for one in RegressionResponse.FromString(response).result.regressions]
            return Answer(value_outputs(values))
        except (DecodeError, ValueError) as error:
            raise _no_outputs(side, self.name, error) from error


DOORS: tuple[Door, ...] = (Rest(has_rows=True), Rest(has_rows=False), V2(), Grpc())
"""Those of predict, in the order of the report."""
_EXAMPLE_DOORS: tuple[Door, ...] = (RestExamples(), GrpcExamples())


def doors_of(signature: SignatureSpec) -> tuple[Door, ...]:
    """The protocols that a signature answers over, in the order of the report."""
    return DOORS + (_EXAMPLE_DOORS if signature.method_name in (CLASSIFY_METHOD, REGRESS_METHOD) else ())


def call_of(signature: SignatureSpec) -> str:
    """The call that a signature is for: `predict`, `classify` or `regress`."""
    return signature.method_name.rpartition("/")[2]


def _examples_in(inputs: Tensors) -> np.ndarray:
    """The serialized `tf.Example`s of a request, object array `(n,)`."""
    arrays = [array for array in inputs.values() if array.ndim == 1 and array.dtype == object]
    if len(arrays) != 1 or len(inputs) != 1:
        raise InvalidRequest("its inputs are not one row of serialized examples, which this call takes")
    return arrays[0]


def _refused(reply: Reply) -> Answer:
    return Answer(None, str(reply.status), reply.text)


def _no_outputs(side: Side, door: str, error: Exception) -> NotAvailable:
    return NotAvailable(
        f"{side.letter} ({side.url}) gave no outputs over {door}: {error}",
        hint="is it a server of TensorFlow Serving's API?",
    )
