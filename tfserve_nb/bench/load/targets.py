"""Requests for a model: bodies that are made once, and a first request, which shows an error before the load begins.

Thread: the caller's.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any, TypeAlias  # the user's rows, JSON
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from ...errors import InvalidOption, InvalidRequest, ModelNotFound, NotAvailable, QueueFull, RunFailed
from ...export.arrays import read_rows
from ...server.admin.predict_body import encode_inputs, parse_signatures
from ...server.rest.json_text import dump
from ...server.rest.metadata_json import CHANGES_FIELD, ORDER_FIELD
from ...server.rest.v2_tensors import to_output
from ...types import DEFAULT_SIGNATURE, SignatureSpec, Tensors
from .schedule import Target

Headers: TypeAlias = tuple[tuple[str, str], ...]

PROBE_S = 30.0
MAX_BODIES = 64
ROWS_MADE = 256


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Which requests are wanted.

    Attributes:
        protocol: `json`, `binary` or `grpc` (`kernel` makes no bodies).
        version: the version to ask, or None.
        label: the label to ask, or None.
        signature: the signature's name.
        rows: rows of each request.
        values: rows to send, as `Deployment.predict` takes them; None makes some from the signature.
    """

    protocol: str = "json"
    version: int | None = None
    label: str | None = None
    signature: str = DEFAULT_SIGNATURE
    rows: int = 1
    values: Any = None


@dataclass(frozen=True, slots=True)
class Described:
    """What a server tells of a model.

    Attributes:
        url: where it was asked.
        signatures: by name.
        version: the version that answered.
        changes: what requests leave behind, in words; "" for nothing, or when the server is none of ours.
    """

    url: str
    signatures: Mapping[str, SignatureSpec]
    version: int
    changes: str

    def signature(self, name: str) -> SignatureSpec:
        """One of the signatures.

        Raises:
            InvalidOption: naming another one, if it is not there.
        """
        found = self.signatures.get(name)
        if found is None:
            raise InvalidOption(
                f"there is no signature {name!r}", hint=f"--signature {next(iter(self.signatures), '')}"
            )
        return found


def pieces_of(described: Described, options: RequestOptions) -> list[Tensors]:
    """Inputs for requests of `options.rows` rows, different ones while there are rows enough.

    Raises:
        InvalidRequest: if the values do not fit the signature.
        InvalidOption: if the number of rows is not positive, there is no such signature, or rows would have to be made
            up for a model that is run for real requests only.
    """
    if options.rows < 1:
        raise InvalidOption(f"rows={options.rows!r} must be at least 1", hint="--rows 1")
    signature = described.signature(options.signature)
    if options.values is None and described.changes:
        raise InvalidOption(
            f"made-up rows are not sent to {described.url}: {described.changes}",
            hint="give rows: values=ROWS, the last expression of a %%benchmark cell, tfserve-nb bench --body FILE",
        )
    tensors = generated_rows(signature) if options.values is None else read_rows(signature, options.values)
    batched = {name for name, spec in signature.inputs.items() if spec.is_batched and tensors[name].ndim}
    is_fixed = any(not spec.is_batched and spec.shape for spec in signature.inputs.values())
    if is_fixed or not batched:
        return [tensors]
    num_rows = min(len(tensors[name]) for name in batched)
    if num_rows == 0:
        raise InvalidRequest("there are no rows to send", hint="the cell's last expression must have some")
    num_pieces = max(1, min(MAX_BODIES, num_rows // options.rows))
    places = [np.arange(piece * options.rows, (piece + 1) * options.rows) % num_rows for piece in range(num_pieces)]
    return [{name: array[place] if name in batched else array for name, array in tensors.items()} for place in places]


def generated_rows(signature: SignatureSpec) -> Tensors:
    """Rows that fit a signature: uniform numbers on [0, 1), zeros for integers, empty texts; unknown sizes are 1."""
    generator = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for name, spec in signature.inputs.items():
        sizes = [1 if size is None else size for size in ((None,) if spec.shape is None else spec.shape)]
        shape = (ROWS_MADE, *sizes[1:]) if spec.is_batched else tuple(sizes)
        dtype = spec.numpy_dtype
        if spec.dtype == "string":
            found[name] = np.full(shape, b"", dtype=object)
        else:
            numbers = generator.random(shape) if dtype.kind in "fc" else np.zeros(shape)
            found[name] = numbers.astype(dtype)
    return found


def target_of(model_url: str, token: str | None, options: RequestOptions, grpc_address: str | None = None) -> Target:
    """Requests for a model of any server that speaks TensorFlow Serving's REST API.

    Args:
        model_url: `http://HOST:PORT/v1/models/NAME`, also with `/versions/V` or `/labels/L` and `:predict`.
        token: the bearer token, or None.
        options: which requests.
        grpc_address: `HOST:PORT`, for gRPC.

    Raises:
        NotAvailable: if the server cannot be reached.
        InvalidOption: if the protocol needs something that is not there.
        ServingError: for the server's error response.
    """
    url = _url_of(model_url.removesuffix(":predict").rstrip("/"), options.version, options.label)
    headers = _headers(token)
    described = _describe(url, headers)
    pieces = pieces_of(described, options)
    words = ", ".join(f"{name} {spec}" for name, spec in described.signature(options.signature).inputs.items())
    origin = "made up" if options.values is None else "given"
    what = f"{options.rows} row{'s' if options.rows != 1 else ''} of {words}, {origin}"
    named = [(options.signature, piece) for piece in pieces]
    return _target(
        url,
        headers,
        replace(options, version=_version_in_requests(options, described.version)),
        named,
        what,
        grpc_address,
    )


def target_with(
    model_url: str,
    token: str | None,
    options: RequestOptions,
    pieces: Sequence[tuple[str, Tensors]],
    grpc_address: str | None = None,
) -> Target:
    """Requests of the caller's own, in their order, for a version of a model.

    Args:
        model_url: as for `target_of`.
        token: the bearer token, or None.
        options: the protocol and the version; nothing else counts.
        pieces: signature and inputs of each request.
        grpc_address: `HOST:PORT`, for gRPC.

    Raises:
        InvalidOption: if the protocol needs something that is not there.
        InvalidRequest: if it cannot carry the inputs.
    """
    headers = _headers(token)
    url = f"{model_url}/versions/{options.version}"
    return _target(url, headers, options, pieces, f"{len(pieces)} recorded requests", grpc_address)


def _url_of(model_url: str, version: int | None, label: str | None) -> str:
    if version is not None:
        return f"{model_url}/versions/{version}"
    return model_url if label is None else f"{model_url}/labels/{quote(label, safe='')}"


def _version_in_requests(options: RequestOptions, version: int) -> int | None:
    """The version that requests name when they cannot name a label."""
    return version if (options.version, options.label) != (None, None) else None


def _target(
    url: str,
    headers: Headers,
    options: RequestOptions,
    pieces: Sequence[tuple[str, Tensors]],
    what: str,
    address: str | None,
) -> Target:
    if options.protocol == "grpc":
        return _grpc_target(url, address, headers, options, pieces, what)
    if options.protocol == "binary":
        return _binary_target(url, headers, options, pieces, what)
    bodies = tuple(_json_body(signature, piece) for signature, piece in pieces)
    return Target(
        "json", f"{url}:predict", bodies, options.rows, (*headers, ("Content-Type", "application/json")), what
    )


def describe(model_url: str, token: str | None, version: int | None = None, label: str | None = None) -> Described:
    """What a server tells of a model, or of one version of it; errors as `target_of`."""
    return _describe(_url_of(model_url, version, label), _headers(token))


def plain_target(url: str, token: str | None, body: bytes, rows: int) -> Target:
    """Requests with a body of the caller's own, for a server without TensorFlow Serving's API."""
    return Target(
        "json", url, (body,), rows, (*_headers(token), ("Content-Type", "application/json")), f"{len(body)} bytes"
    )


def probe(target: Target) -> None:
    """Send one request.

    Raises:
        NotAvailable: if the server cannot be reached.
        ServingError: if the response is no success; the text and the hint name what to check.
    """
    if target.protocol == "grpc":
        _probe_grpc(target)
        return
    status, body, _ = _request("POST", target.url, target.headers, target.bodies[0])
    if not 200 <= status < 300:
        raise_for(status, body, target.url)


def raise_for(status: int, body: bytes, url: str) -> None:
    """Raise the error for a response that is no success, with a hint."""
    text = _error_text(body)
    if status in (401, 403):
        raise InvalidOption(
            f"{url} responds with {status}: {text}", hint="--token-env NAME, a variable with the right token"
        )
    if status == 404:
        raise ModelNotFound(f"{url} responds with 404: {text}", hint="check the model's name and version")
    if status in (429, 503):
        raise QueueFull(f"{url} refuses requests ({status}): {text}", hint="it is overloaded or still loading")
    if status == 400:
        raise InvalidRequest(
            f"{url} responds with 400: {text}", hint="rows that fit, as the variable or the body of the cell"
        )
    raise RunFailed(f"{url} responds with {status}: {text}", hint="look at the server's log")


def _headers(token: str | None) -> Headers:
    return () if token is None else (("Authorization", f"Bearer {token}"),)


def _describe(url: str, headers: Headers) -> Described:
    status, body, fields = _request("GET", f"{url}/metadata", headers, None)
    if status != 200:
        raise_for(status, body, url)
    try:
        found = parse_signatures(json.loads(body), fields.get(ORDER_FIELD))
        return Described(url, *found, unquote(fields.get(CHANGES_FIELD, "")))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidOption(
            f"{url}/metadata is not TensorFlow Serving's metadata: {error}",
            hint="--url with the rows in a %%benchmark cell",
        ) from error


def _json_body(signature: str, piece: Tensors) -> bytes:
    """The usual form, `{"instances": [...]}`, where one input of numbers allows it."""
    (first, *others) = piece.values()
    if others or not first.ndim or first.dtype.kind not in "iufb" or not np.isfinite(first).all():
        return encode_inputs(signature, piece)
    named = {} if signature == DEFAULT_SIGNATURE else {"signature_name": signature}
    return dump({**named, "instances": np.ascontiguousarray(first)})


def _binary_target(
    url: str, headers: Headers, options: RequestOptions, pieces: Sequence[tuple[str, Tensors]], what: str
) -> Target:
    if any(signature != DEFAULT_SIGNATURE for signature, _ in pieces):
        raise InvalidOption("--protocol binary asks for the default signature only", hint="--protocol json")
    base, _, rest = url.partition("/v1/models/")
    name = rest.split("/")[0]
    path = f"{base}/v2/models/{name}" + ("" if options.version is None else f"/versions/{options.version}") + "/infer"
    bodies, length = [], 0
    for _, piece in pieces:
        described, raw = zip(*(to_output(key, array, is_binary=True) for key, array in piece.items()), strict=True)
        head = dump({"inputs": list(described), "parameters": {"binary_data_output": True}})
        # All heads must have one length, which is a header of the request.
        length = max(length, len(head))
        bodies.append((head, b"".join(raw)))
    padded = tuple(head.ljust(length) + raw for head, raw in bodies)
    sized = (("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(length)))
    return Target("binary", path, padded, options.rows, (*headers, *sized), what)


def _grpc_target(
    url: str,
    address: str | None,
    headers: Headers,
    options: RequestOptions,
    pieces: Sequence[tuple[str, Tensors]],
    what: str,
) -> Target:
    if address is None:
        raise InvalidOption("the server has no gRPC port", hint="%deploy MODEL --grpc-port 0, before the first deploy")
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    from ...protos.tensors import fill

    bodies = []
    for signature, piece in pieces:
        request = PredictRequest()
        request.model_spec.name = url.partition("/v1/models/")[2].split("/")[0]
        request.model_spec.signature_name = signature
        if options.label is not None:
            request.model_spec.version_label = options.label
        elif options.version is not None:
            request.model_spec.version.value = options.version
        for name, array in piece.items():
            fill(request.inputs[name], array, as_content=array.dtype != object)
        bodies.append(request.SerializeToString())
    return Target("grpc", address, tuple(bodies), options.rows, headers, what)


def _request(method: str, url: str, headers: Headers, body: bytes | None) -> tuple[int, bytes, Message]:
    """Status, body and header fields of one request on a connection of its own, past any proxy."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidOption(
            f"url={url!r} must begin with http:// or https://", hint="http://127.0.0.1:8501/v1/models/NAME"
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=PROBE_S)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    except (OSError, http.client.HTTPException, ssl.SSLError) as error:
        raise NotAvailable(
            f"{parts.scheme}://{parts.netloc} cannot be reached: {str(error) or type(error).__name__}",
            hint="is the server running, and are host and port right?",
        ) from error
    finally:
        connection.close()


def _probe_grpc(target: Target) -> None:
    import grpc

    from .grpc_client import METHOD

    with grpc.insecure_channel(target.url) as channel:
        try:
            metadata = tuple((name.lower(), value) for name, value in target.headers)
            channel.unary_unary(METHOD)(target.bodies[0], metadata=metadata, timeout=PROBE_S)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code is grpc.StatusCode.UNAVAILABLE:
                raise NotAvailable(f"{target.url} cannot be reached: {details}", hint="is the port gRPC's?") from error
            statuses = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "INVALID_ARGUMENT": 400}
            raise_for(statuses.get(code.name, 500), str(details).encode(), target.url)


def _error_text(body: bytes) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and "error" in value:
        return str(value["error"])
    return body.decode("utf-8", "replace").strip()[:300] or "no text"
