"""The Open Inference Protocol (V2) over HTTP: KServe's and Triton's clients talk to the same models.

Thread: the server's loop.

Reference: the Open Inference Protocol's REST API; Triton's binary tensor data extension.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple  # JSON values
from urllib.parse import unquote

import numpy as np

from ..._version import __version__
from ...errors import InvalidRequest, ModelNotFound, NotAvailable
from ...serving.backend import Answer, Handle, ModelSpec
from ...types import DEFAULT_SIGNATURE
from ..calls import RequestContext, note_timeout
from ..http.message import Fields
from ..paths import V2, V2_HEALTH
from .handler import GiveUp, OnReply, Reply, RestHandler, check_mark
from .json_text import dump, parse_json
from .routes import Route
from .v2_tensors import HEADER_LENGTH, Wanted, metadata_of, to_array, to_output, write_json

READY_RETRY_S = 2.0

_MODEL = re.compile(r"/v2/models/([^/:]+)(?:/versions/(\d{1,19})|/labels/([^/:]+))?(?:/(infer|ready))?")
"""Labels are an extension, as TensorFlow Serving's API names them."""


@functools.lru_cache(maxsize=256)
def find_v2_route(method: str, uri: str) -> Route | None:
    """The call that a request line is: `infer`, `ready` or `metadata`; None when it is about no model.

    Raises:
        InvalidRequest: for a wrong method or path.
    """
    path = uri.partition("?")[0].rstrip("/")
    if path in (V2, V2_HEALTH + "live", V2_HEALTH + "ready") and method in ("GET", "HEAD"):
        return None
    match = _MODEL.fullmatch(path)
    call = "" if match is None else match[4] or "metadata"
    if match is None or method not in (("POST",) if call == "infer" else ("GET", "HEAD")):
        raise InvalidRequest(f"Malformed request: {method} {uri}")
    version, label = (None if match[2] is None else int(match[2])), (None if match[3] is None else unquote(match[3]))
    return Route(call, ModelSpec(unquote(match[1]), version, label))


class _Infer(NamedTuple):
    """A parsed inference request."""

    id: str | None
    signature: str
    tensors: dict[str, np.ndarray]
    wanted: tuple[Wanted, ...]
    is_binary: bool


class InferenceV2:
    """Answers V2 calls; the rest of a request's life is `RestHandler`'s.

    Args:
        handler: takes requests from tensors on.
    """

    def __init__(self, handler: RestHandler) -> None:
        self._handler = handler
        self._backend = handler.calls.backend

    def start(
        self, method: str, uri: str, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        """Answer a request below `/v2`; see `RestHandler.start`."""
        try:
            route = find_v2_route(method, uri)
            if route is None:
                on_reply(self._server_reply(uri))
                return None
            notes.model, notes.label, notes.api = route.spec.name, route.spec.label or "", route.call
            if route.call == "infer":
                return self._start_infer(route.spec, fields, body, notes, on_reply)
            on_reply(self._model_reply(route))
        except Exception as error:  # noqa: BLE001 - see `RestHandler.failed`
            on_reply(self._handler.failed(error, notes))
        return None

    def _server_reply(self, uri: str) -> Reply:
        coming = self._backend.coming
        if coming and uri.startswith(f"{V2_HEALTH}ready"):
            raise NotAvailable(
                f"not ready: {', '.join(sorted(coming))} being loaded again", retry_after_s=READY_RETRY_S
            )
        if uri.startswith(V2_HEALTH):
            return Reply(200, b"")
        return Reply(200, dump({"name": "tfserve_nb", "version": __version__, "extensions": ["binary_tensor_data"]}))

    def _model_reply(self, route: Route) -> Reply:
        handle = self._backend.acquire(route.spec)
        try:
            if route.call == "ready":
                return Reply(200, b"")
            signature = handle.signatures.get(DEFAULT_SIGNATURE) or next(iter(handle.signatures.values()), None)
            if signature is None:
                raise ModelNotFound(f"model {route.spec.name} has no signatures")
            versions = self._backend.status(ModelSpec(route.spec.name))
            described = {
                "name": route.spec.name,
                "versions": sorted([str(tensor.version) for tensor in versions if tensor.state.name == "AVAILABLE"]),
                "platform": handle.signature_defs.platform,
                "inputs": [metadata_of(spec) for spec in signature.inputs.values()],
                "outputs": [metadata_of(spec) for spec in signature.outputs.values()],
            }
            return Reply(200, dump(described))
        finally:
            handle.release()

    def _start_infer(
        self, spec: ModelSpec, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        length = fields.get(HEADER_LENGTH)

        def begin(request: _Infer) -> GiveUp:
            return self._run(spec, fields, request, notes, on_reply)

        return self._handler.decoded(fields, body, lambda text: parse_infer(text, length), begin, notes, on_reply)

    def _run(
        self, spec: ModelSpec, fields: Fields, request: _Infer, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp:
        note_timeout(notes, fields.get)
        handle = self._handler.calls.acquire(spec, notes, fields.get)
        try:
            check_mark(fields, handle)
            signature = handle.signatures.get(request.signature)
            if signature is None:
                raise InvalidRequest(f'Serving signature name: "{request.signature}" not found in signature def')
            notes.signature = request.signature
            for tensor in request.wanted:
                if tensor.name not in signature.outputs:
                    raise InvalidRequest(
                        f"output {tensor.name!r} is none of {', '.join(signature.outputs)}",
                        hint="see the model's metadata",
                    )

            def encode(answer: Answer) -> Reply:
                return to_reply(spec.name, handle, request, answer)

            return self._handler.submit(handle, request.signature, request.tensors, notes, encode, on_reply)
        except BaseException:
            handle.release()
            raise


def parse_infer(body: bytes, header_length: str | None) -> _Infer:
    """The tensors and wishes of an inference request.

    Args:
        body: JSON, or JSON and raw tensors behind it.
        header_length: bytes of the JSON, when raw tensors follow.

    Raises:
        InvalidRequest: naming what is wrong.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
            raise InvalidRequest(f"{HEADER_LENGTH}: {header_length!r}, the body has {len(body)} bytes")
        length = int(header_length)
    value = parse_json(body[:length] if length < len(body) else body)
    given = value.get("inputs")
    if not isinstance(given, list) or not given or not all(isinstance(tensor, dict) for tensor in given):
        raise InvalidRequest("'inputs' must be a list of tensors")
    tensors: dict[str, np.ndarray] = {}
    position = length
    for tensor in given:
        array, position = to_array(tensor, body, position)
        if tensor["name"] in tensors:
            raise InvalidRequest(f"input {tensor['name']!r} is given twice")
        tensors[tensor["name"]] = array
    if position != len(body):
        raise InvalidRequest(f"{len(body) - position} bytes are left behind the last tensor")
    parameters = _object(value, "parameters")
    name = parameters.get("signature_name", DEFAULT_SIGNATURE)
    request_id = value.get("id")
    is_binary = bool(parameters.get("binary_data_output", False))
    return _Infer(
        None if request_id is None else str(request_id), str(name), tensors, _wanted(value, is_binary), is_binary
    )


def _wanted(value: dict[str, Any], is_binary: bool) -> tuple[Wanted, ...]:
    outputs = value.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(tensor, dict) and "name" in tensor for tensor in outputs):
        raise InvalidRequest("'outputs' must be a list of objects with names")
    return tuple(
        [
            Wanted(str(tensor["name"]), bool(_object(tensor, "parameters").get("binary_data", is_binary)))
            for tensor in outputs
        ]
    )


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise InvalidRequest(f"{key!r} must be an object")
    return found


def to_reply(model: str, handle: Handle, request: _Infer, answer: Answer) -> Reply:
    """The reply of an inference request: JSON, and raw tensors behind it where they are wanted.

    Raises:
        InvalidRequest: if an output cannot be carried.
    """
    wanted = request.wanted or tuple([Wanted(name, request.is_binary) for name in answer.outputs])
    outputs, parts = [], []
    for tensor in wanted:
        described, data = to_output(tensor.name, answer.outputs[tensor.name], is_binary=tensor.is_binary)
        outputs.append(described)
        parts.append(data)
    value: dict[str, Any] = {"model_name": model, "model_version": str(handle.version), "outputs": outputs}
    if request.id is not None:
        value["id"] = request.id
    text = write_json(value)
    version = ("X-TFServe-Version", str(handle.version))
    if not any(tensor.is_binary for tensor in wanted):
        return Reply(200, text, (version,))
    fields = (version, ("Content-Type", "application/octet-stream"), (HEADER_LENGTH, str(len(text))))
    return Reply(200, b"".join([text, *parts]), fields)
