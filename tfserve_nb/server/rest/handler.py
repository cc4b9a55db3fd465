"""Answers REST requests: decode the body, submit the tensors, encode the outputs. It knows no transport.

Thread: the server's loop.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from ...errors import InvalidRequest, ServingError
from ...serving.backend import Answer, Handle, ModelSpec, Outcome
from ...types import Tensors
from ..calls import Calls, RequestContext, note_timeout
from ..event_loop import is_on_loop
from ..examples import classifications, examples_input, regressions
from ..http.message import Fields
from ..settings import ServerSettings
from ..telemetry.log import public_error
from .decoder import LARGE_BYTES, Decoder, Later
from .example_json import ExampleRequest, classify_body, parse_examples, regress_body
from .json_numbers import Numbers, NumbersReader
from .json_text import TakesLong, error_body
from .metadata_json import (
    CHANGES_FIELD,
    ORDER_FIELD,
    SIGNATURES_FIELD,
    input_orders,
    metadata_body,
    signatures_mark,
    status_body,
)
from .predict_json import parse_predict, to_body, to_tensors
from .routes import Route, VersionOverflow, find_route

T = TypeVar("T")

MAX_INFLATED_BYTES = 100 * 1024 * 1024
"""TensorFlow Serving's limit for what gzip may hold."""


class Reply(NamedTuple):
    """A response for any transport.

    Attributes:
        status: HTTP status.
        body: JSON text, may be empty.
        headers: beside Content-Type.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


OnReply: TypeAlias = Callable[[Reply], None]
"""Gets a reply, once."""

GiveUp: TypeAlias = Callable[[], object]
"""Takes a request out of the queue; its reply is not called for then."""


class SignaturesDiffer(ServingError):
    """The request names the signatures it was made for, and the version that answers has others."""

    http_status = 412
    code = "CANCELLED"  # nothing was run: it is no failure of the version


class RestHandler:
    """Answers the REST calls of one server.

    Args:
        calls: the way to the core.
        settings: how long a request may wait and run, and how large a body may be.
        log: for failures that clients see only the number of.
    """

    def __init__(self, calls: Calls, settings: ServerSettings, log: logging.Logger) -> None:
        self.calls = calls
        self._request_timeout_s = settings.request_timeout_s
        self._max_inflated_bytes = min(settings.max_body_bytes, MAX_INFLATED_BYTES)
        self._log = log
        self._numbers, self._large_numbers = NumbersReader(), NumbersReader()
        self._decoder = Decoder()

    def start(
        self, method: str, uri: str, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        """Answer any request below `/v1/`; never raises.

        Args:
            method: such as `POST`.
            uri: path and query, as received.
            fields: the header fields.
            body: as received.
            notes: gets what is known of the request.
            on_reply: gets the reply, now or later.

        Returns:
            A function that takes the request out of the queue when its client has left; None when it was answered.
        """
        try:
            route = find_route(method, uri)
            notes.model, notes.label = route.spec.name, route.spec.label or ""
            if method != "POST":
                on_reply(self._status_or_metadata(route, fields))
                return None
            notes.api = route.call
            if route.call == "predict":
                return self._start_predict(route.spec, fields, body, notes, on_reply)
            return self._start_examples(route.spec, fields, body, notes, on_reply)
        except Exception as error:  # noqa: BLE001 - see `failed`
            on_reply(self.failed(error, notes))
            return None

    def failed(self, error: BaseException, notes: RequestContext) -> Reply:
        """The reply for an error; a defect of ours goes to the log, and the client gets its number."""
        if isinstance(error, VersionOverflow):
            notes.code = error.code
            return Reply(error.http_status, b"")
        public = public_error(error, self._log, f"{notes.api} of {notes.model}")
        notes.code = public.code
        headers: tuple[tuple[str, str], ...] = ()
        if public.http_status == 503 or public.retry_after_s:
            headers = (("Retry-After", str(max(1, math.ceil(public.retry_after_s)))),)
        return Reply(public.http_status, error_body(public.message), headers)

    def _status_or_metadata(self, route: Route, fields: Fields) -> Reply:
        """Status or metadata of a model."""
        if route.call == "status":
            return Reply(200, status_body(self.calls.backend.status(route.spec)))
        handle = self.calls.backend.acquire(route.spec, key=fields.get)
        try:
            body = metadata_body(route.spec.name, handle.version, handle.signature_defs)
            shown = [(SIGNATURES_FIELD, signatures_mark(handle.signatures))]
            shown += [(ORDER_FIELD, orders)] if (orders := input_orders(handle.signatures)) else []
            changes = self._changes(route.spec, handle.version)
            shown += [(CHANGES_FIELD, quote(changes, safe=" ,()"))] if changes else []
            return Reply(200, body, tuple(shown))
        finally:
            handle.release()

    def _changes(self, spec: ModelSpec, version: int) -> str:
        """What requests for a model leave behind, whichever version the traffic gives them to."""
        backend, versions = self.calls.backend, {version}
        if spec.version is None and spec.label is None:
            versions |= backend.catalog()[spec.name].traffic.keys()
        found = (one.changes for one in backend.status(ModelSpec(spec.name)) if one.version in versions)
        return next(filter(None, found), "")

    def _start_predict(
        self, spec: ModelSpec, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        note_timeout(notes, fields.get)
        try:
            handle = self.calls.acquire(spec, notes, fields.get)
        except ServingError as error:
            return self._refuse_predict(error, fields, body, notes, on_reply)

        def decode(text: bytes) -> Numbers:
            numbers = self._numbers if is_on_loop() else self._large_numbers
            return numbers.read(text, handle.signatures) or _read_carefully(text, handle, notes)

        def begin(request: Numbers) -> GiveUp:
            notes.signature = request.signature
            is_row_format = request.is_row_format

            def encode(answer: Answer) -> Reply:
                text = to_body(answer.outputs, is_row_format=is_row_format)
                return Reply(200, text, (("X-TFServe-Version", str(handle.version)),))

            return self.submit(handle, request.signature, request.tensors, notes, encode, on_reply)

        try:
            check_mark(fields, handle)
            return self.decoded(fields, body, decode, begin, notes, on_reply, handle)
        except BaseException:
            handle.release()
            raise

    def _refuse_predict(
        self, why: ServingError, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        """Refuse a request that no version answers; a body that is no JSON is a client's first error."""

        def refuse(_: object) -> GiveUp:
            raise why

        return self.decoded(fields, body, parse_predict, refuse, notes, on_reply)

    def decoded(
        self,
        fields: Fields,
        body: bytes,
        decode: Callable[[bytes], T],
        begin: Callable[[T], GiveUp],
        notes: RequestContext,
        on_reply: OnReply,
        handle: Handle | None = None,
    ) -> GiveUp | None:
        """Decode a body and begin with what it holds: at once, or beside the loop.

        Args:
            fields: the header fields.
            body: as received.
            decode: makes tensors of the body without gzip; on any thread, but never two at a time.
            begin: gets them, on the loop.
            notes: gets what went wrong.
            on_reply: gets the reply when that is later.
            handle: released when something goes wrong later; what is raised here leaves it to the caller.

        Raises:
            ServingError: if the request is refused at once.
        """
        if not _is_large(fields, body):
            with contextlib.suppress(TakesLong):
                return begin(decode(body))

        def failed(error: Exception) -> None:
            if handle is not None:
                handle.release()
            on_reply(self.failed(error, notes))

        def left() -> None:
            if handle is not None:
                handle.release()

        later = Later(begin, failed, left)
        self._decoder.run(lambda: decode(self.inflated(fields, body)), later.done)
        return later.give_up

    def submit(
        self,
        handle: Handle,
        signature: str,
        tensors: Tensors,
        notes: RequestContext,
        encode: Callable[[Answer], Reply],
        on_reply: OnReply,
    ) -> GiveUp:
        """Run a request whose tensors are ready.

        Args:
            handle: the pinned version; released with the reply, or by the caller when this raises.
            signature: a key of its signatures.
            tensors: name -> array.
            notes: gets the timestamps.
            encode: makes the reply from what the model returned.
            on_reply: gets it, or the reply for what went wrong.

        Raises:
            ServingError: if the request is refused at once.
        """

        def answered(outcome: Outcome) -> None:
            try:
                reply = encode(outcome) if isinstance(outcome, Answer) else self.failed(outcome, notes)
            except Exception as error:  # noqa: BLE001 - see `failed`
                reply = self.failed(error, notes)
            finally:
                handle.release()
            on_reply(reply)

        deadline_s = time.perf_counter() + min(self._request_timeout_s, notes.limit_s)
        running = self.calls.start(handle, signature, tensors, deadline_s, notes, answered)

        def give_up() -> None:
            self.calls.cancel(running)
            handle.release()

        return give_up

    def _start_examples(
        self, spec: ModelSpec, fields: Fields, body: bytes, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp | None:
        """Classify or regress."""

        def begin(request: ExampleRequest) -> GiveUp:
            return self._run_examples(spec, fields, request, notes, on_reply)

        return self.decoded(fields, body, parse_examples, begin, notes, on_reply)

    def _run_examples(
        self, spec: ModelSpec, fields: Fields, request: ExampleRequest, notes: RequestContext, on_reply: OnReply
    ) -> GiveUp:
        handle = self.calls.acquire(spec, notes, fields.get)
        try:
            signature = handle.signatures.get(request.signature)
            if signature is None:
                raise InvalidRequest(f"No signature was found with the name: {request.signature}")
            notes.signature = request.signature
            is_classify, num_examples = notes.api == "classify", len(request.examples)
            inputs = examples_input(signature, request.examples, is_classify=is_classify)

            def encode(answer: Answer) -> Reply:
                if is_classify:
                    text = classify_body(classifications(signature, answer.outputs, num_examples))
                else:
                    text = regress_body(regressions(answer.outputs, num_examples))
                return Reply(200, text, (("X-TFServe-Version", str(handle.version)),))

            return self.submit(handle, request.signature, inputs, notes, encode, on_reply)
        except BaseException:
            handle.release()
            raise

    def inflated(self, fields: Fields, body: bytes) -> bytes:
        """The body without gzip; what cannot be inflated counts as empty, as in TensorFlow Serving."""
        if not _is_gzip(fields):
            return body
        inflater = zlib.decompressobj(wbits=31)
        try:
            text = inflater.decompress(body, self._max_inflated_bytes)
        except zlib.error:
            return b""
        if inflater.unconsumed_tail:
            raise InvalidRequest(f"The inflated body is larger than {self._max_inflated_bytes} bytes")
        return text if inflater.eof else b""


def _is_large(fields: Fields, body: bytes) -> bool:
    """Whether a body is decoded beside the loop; what gzip holds may be large."""
    return len(body) > LARGE_BYTES or _is_gzip(fields)


def _is_gzip(fields: Fields) -> bool:
    return "gzip" in (fields.get("Content-Encoding") or "")


def check_mark(fields: Fields, handle: Handle) -> None:
    """Refuse a request that names the signatures it was made for, when the version has others.

    Raises:
        SignaturesDiffer: then.
    """
    mark = fields.get(SIGNATURES_FIELD)
    if mark is not None and mark != signatures_mark(handle.signatures):
        raise SignaturesDiffer("This version has other signatures than the request was made for")


def _read_carefully(body: bytes, handle: Handle, notes: RequestContext) -> Numbers:
    """The tensors of any predict request.

    Raises:
        InvalidRequest: with TensorFlow Serving's text.
    """
    request = parse_predict(body)
    signature = handle.signatures.get(request.signature)
    if signature is None:
        raise InvalidRequest(f'Serving signature name: "{request.signature}" not found in signature def')
    notes.signature = request.signature  # not before: names that clients make up must not reach the metrics
    return Numbers(request.signature, request.is_row_format, to_tensors(request, signature))
