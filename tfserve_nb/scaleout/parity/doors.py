"""The protocols that a server answers predictions over, each with the same interface.

Thread: the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ...errors import InvalidRequest, NotAvailable
from ...protos.tensors import fill, to_array
from ...server.admin.predict_body import binary_outputs, binary_request, encode_inputs, encode_rows, json_outputs
from ...server.rest.v2_tensors import HEADER_LENGTH
from ...types import SignatureSpec, Tensors
from .side import Reply, Side, model_path

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"


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
    """One protocol."""

    name: str

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
        """POST `:predict`."""
        reply = side.send("POST", f"{model_path(model, version)}:predict", request.body)
        if reply.status != 200:
            return _refused(reply)
        try:
            return Answer(json_outputs(reply.body, signature.outputs))
        except ValueError as error:
            raise _no_outputs(side, self.name, error) from error


class V2:
    """The Open Inference Protocol, with raw tensors."""

    name = "V2"

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


DOORS: tuple[Door, ...] = (Rest(has_rows=True), Rest(has_rows=False), V2(), Grpc())
"""In the order of the report."""


def _refused(reply: Reply) -> Answer:
    return Answer(None, str(reply.status), reply.text)


def _no_outputs(side: Side, door: str, error: Exception) -> NotAvailable:
    return NotAvailable(
        f"{side.letter} ({side.url}) gave no outputs over {door}: {error}",
        hint="is it a server of TensorFlow Serving's API?",
    )
