"""A fixed list of bad requests, which no server runs: whether both refuse them with the same code and text.

Thread: the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any  # protobuf messages

from .findings import Check, Verdict
from .grpc_client import METADATA, PREDICT, STATUS
from .side import Side, model_path

NOBODY = "tfserve_nb_parity_no_such_model"
NO_VERSION = 2**40
NO_LABEL = "tfserve_nb_parity_no_such_label"
NO_NAME = "tfserve_nb_parity_no_such_name"


@dataclass(frozen=True, slots=True)
class BadRequest:
    """An HTTP request.

    Attributes:
        what: what is wrong with it.
        method: of HTTP.
        path: with `{model}` for the model's path.
        body: or None.
    """

    what: str
    method: str
    path: str
    body: bytes | None = None


def _predict(what: str, body: bytes) -> BadRequest:
    return BadRequest(what, "POST", "{model}:predict", body)


REST = (
    _predict("empty body", b""),
    _predict("no JSON", b'{"instances": [1,]}'),
    _predict("no object", b"[1, 2]"),
    _predict("neither instances nor inputs", b"{}"),
    _predict("both instances and inputs", b'{"instances": [1], "inputs": [1]}'),
    _predict("no instances in the list", b'{"instances": []}'),
    _predict("instances are no list", b'{"instances": 1}'),
    _predict("the signature's name is a number", b'{"signature_name": 5, "instances": [1]}'),
    _predict("unknown signature", f'{{"signature_name": "{NO_NAME}", "instances": [1]}}'.encode()),
    _predict("unknown input, in rows", f'{{"instances": [{{"{NO_NAME}": 1}}]}}'.encode()),
    _predict("unknown input, in columns", f'{{"inputs": {{"{NO_NAME}": 1}}}}'.encode()),
    BadRequest("unknown model", "POST", f"/v1/models/{NOBODY}:predict", b'{"instances": [1]}'),
    BadRequest("unknown version", "POST", f"{{model}}/versions/{NO_VERSION}:predict", b'{"instances": [1]}'),
    BadRequest("unknown label", "POST", f"{{model}}/labels/{NO_LABEL}:predict", b'{"instances": [1]}'),
    BadRequest("states of an unknown model", "GET", f"/v1/models/{NOBODY}"),
    BadRequest("states of an unknown version", "GET", f"{{model}}/versions/{NO_VERSION}"),
    BadRequest("metadata of an unknown model", "GET", f"/v1/models/{NOBODY}/metadata"),
    BadRequest("metadata of an unknown label", "GET", f"{{model}}/labels/{NO_LABEL}/metadata"),
    BadRequest("no model's name", "GET", "/v1/models"),
    BadRequest("unknown call", "POST", "{model}:explain", b'{"instances": [1]}'),
    BadRequest("GET of a predict request", "GET", "{model}:predict"),
    BadRequest("classify without examples", "POST", "{model}:classify", b"{}"),
    BadRequest("regress without examples", "POST", "{model}:regress", b"{}"),
)
V2 = (
    BadRequest("no JSON", "POST", "{model}/infer", b"{"),
    BadRequest("no inputs", "POST", "{model}/infer", b'{"inputs": []}'),
    BadRequest("unknown type", "POST", "{model}/infer",
               b'{"inputs": [{"name": "x", "shape": [1], "datatype": "X", "data": [1]}]}'),
    BadRequest("unknown model", "POST", f"/v2/models/{NOBODY}/infer", b'{"inputs": []}'),
    BadRequest("metadata of an unknown model", "GET", f"/v2/models/{NOBODY}"),
    BadRequest("unknown version", "GET", f"{{model}}/versions/{NO_VERSION}"),
)  # fmt: skip


def compare_refusals(a: Side, b: Side, model: str) -> Iterator[Check]:
    """Send the list to both servers; a row for each protocol and request that differs, and one for those that do not.

    Args:
        a: the measure.
        b: the other server.
        model: a model that both have.
    """
    path = model_path(model)
    yield from _summed_up("REST", model, _over_http(a, b, path, REST))
    closed = a.why_no_v2 or b.why_no_v2
    if closed:
        yield Check("bad requests", f"{model}, V2", Verdict.NOT_THERE, closed)
    else:
        yield from _summed_up("V2", model, _over_http(a, b, f"/v2{path.removeprefix('/v1')}", V2))
    closed = a.why_no_grpc or b.why_no_grpc
    if closed:
        yield Check("bad requests", f"{model}, gRPC", Verdict.NOT_COMPARED, closed)
    else:
        yield from _summed_up("gRPC", model, _over_grpc(a, b, model))


def _summed_up(door: str, model: str, found: Iterator[tuple[str, str, str]]) -> Iterator[Check]:
    """From (what, what A did, what B did)."""
    num_same = 0
    for what, left, right in found:
        if left == right:
            num_same += 1
        else:
            yield Check("bad request", f"{model}, {door}: {what}", Verdict.DIFFERENT, f"A: {left}; B: {right}")
    if num_same:
        yield Check("bad requests", f"{model}, {door}", Verdict.SAME, f"{num_same} refused with the same code and text")


def _over_http(a: Side, b: Side, path: str, requests: tuple[BadRequest, ...]) -> Iterator[tuple[str, str, str]]:
    for one in requests:
        target = one.path.replace("{model}", path)
        left, right = (side.send(one.method, target, one.body) for side in (a, b))
        yield one.what, f"{left.status} {left.text}", f"{right.status} {right.text}"


def _over_grpc(a: Side, b: Side, model: str) -> Iterator[tuple[str, str, str]]:
    for what, method, message in _grpc_requests(model):
        serialized = message.SerializeToString()
        (code_a, text_a, _), (code_b, text_b, _) = (side.call(method, serialized) for side in (a, b))
        yield what, f"{code_a} {text_a}".strip(), f"{code_b} {text_b}".strip()


def _grpc_requests(model: str) -> Iterator[tuple[str, str, Any]]:
    """What is wrong, the method, and the message."""
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    def made(kind: Callable[[], Any], name: str = "", **more: Any) -> Any:
        request = kind()
        if name:
            request.model_spec.name = name
        if "version" in more:
            request.model_spec.version.value = more["version"]
        if "label" in more:
            request.model_spec.version_label = more["label"]
        request.model_spec.signature_name = more.get("signature", "")
        return request

    yield "no model", PREDICT, PredictRequest()
    yield "no model's name", PREDICT, made(PredictRequest)
    yield "unknown model", PREDICT, made(PredictRequest, NOBODY)
    yield "unknown version", PREDICT, made(PredictRequest, model, version=NO_VERSION)
    yield "unknown label", PREDICT, made(PredictRequest, model, label=NO_LABEL)
    yield "unknown signature", PREDICT, made(PredictRequest, model, signature=NO_NAME)
    yield "metadata without a field", METADATA, made(GetModelMetadataRequest, model)
    yield "states of an unknown model", STATUS, made(GetModelStatusRequest, NOBODY)
