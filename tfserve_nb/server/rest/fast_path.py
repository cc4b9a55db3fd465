"""Inference requests bypass Tornado: from a connection to the `RestHandler` and back, without one of its handlers.

Thread: the server's loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from ..calls import Calls, RequestContext
from ..http.connection import Connection, status_line
from ..http.message import Fields, Message
from ..http.server import FastPath
from ..http.tornado_sink import CONTINUE
from ..paths import REST, is_inference, is_v2
from ..settings import ServerSettings
from .handler import GiveUp, OnReply, Reply, RestHandler
from .inference_v2 import InferenceV2

_PHRASES = {429: "Client Error", 499: "Client Error", 504: "Gateway Time-out"}
"""Where TensorFlow Serving's HTTP library has no phrase of its own, or another one than Python."""

_OK_LINE = status_line(200)

Start: TypeAlias = Callable[[str, str, Fields, bytes, RequestContext, OnReply], GiveUp | None]
"""`RestHandler.start` or `InferenceV2.start`."""


def fast_path(calls: Calls, settings: ServerSettings, log: logging.Logger) -> FastPath:
    """Takes everything below `/v1/` and `/v2` that was let in.

    Args:
        calls: the way to the core.
        settings: the server's.
        log: for failures that clients see only the number of.
    """
    handler = RestHandler(calls, settings, log)
    v2 = InferenceV2(handler)

    def sink(connection: Connection, message: Message) -> RestSink | None:
        target = message.head.target
        start = handler.start
        if target[:4] != REST:
            if is_v2(target):
                start = v2.start
            elif not is_inference(target):
                return None
        message.check_size()
        if message.head.expects_continue:
            connection.write(CONTINUE)
        return RestSink(connection, message, calls, start, settings)

    return sink


class RestSink:
    """One REST request.

    Args:
        connection: the client's.
        message: the request.
        calls: counts it once its response is written.
        start: answers it; see `RestHandler.start`.
        settings: which headers responses carry.
    """

    __slots__ = ("_calls", "_chunks", "_connection", "_give_up", "_message", "_notes", "_settings", "_start")

    def __init__(
        self,
        connection: Connection,
        message: Message,
        calls: Calls,
        start: Start,
        settings: ServerSettings,
    ) -> None:
        self._connection = connection
        self._message = message
        self._calls = calls
        self._start = start
        self._settings = settings
        self._chunks: list[bytes] = []
        self._give_up: GiveUp | None = None
        self._notes = RequestContext(message.received_s)

    def receive(self, chunk: bytes) -> None:
        """A part of the body came."""
        self._chunks.append(chunk)

    def end(self) -> None:
        """The body is complete: answer."""
        head, notes = self._message.head, self._notes
        chunks, self._chunks = self._chunks, []
        if head.method == "OPTIONS":
            self._reply(self._preflight())
            return
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._give_up = self._start(head.method, head.target, head, body, notes, self._reply)

    def abandon(self) -> None:
        """The client left: its request leaves the queue. It is counted: leaving may have to do with the version."""
        self._chunks = []
        if self._give_up is not None:
            self._give_up()
            if self._notes.version is not None:
                self._notes.code = "CANCELLED"
                self._calls.record(self._notes)

    def _preflight(self) -> Reply:
        """A browser asks what it may do; it never sends a token with that."""
        origin = self._message.head.get("Origin") or ""
        is_allowed = "http://" in origin or "https://" in origin
        self._notes.code = "OK" if is_allowed else "INVALID_ARGUMENT"
        return Reply(200 if is_allowed else 400, b"", (("Content-Type", "text/html; charset=ISO-8859-1"),))

    def _reply(self, reply: Reply) -> None:
        self._give_up = None
        status, body, fields = reply
        lines = field_lines(fields, self._settings.has_cors, self._settings.token is not None)
        if self._notes.assignment is not None or self._notes.request_id:
            lines += _identity(self._notes)
        self._connection.respond(self._message, first_line(status), lines, body)
        self._calls.record(self._notes)


def _identity(notes: RequestContext) -> bytes:
    """The header lines with the arm of a comparison that answered, and with the request's id."""
    arm = f"X-TFServe-Arm: {notes.arm}\r\n" if notes.arm else ""
    name = f"X-Request-Id: {notes.request_id}\r\n" if notes.request_id else ""
    return (arm + name).encode("ascii")


def first_line(status: int) -> bytes:
    """The status line of a response."""
    return _OK_LINE if status == 200 else status_line(status, _PHRASES.get(status))


@lru_cache(maxsize=256)
def field_lines(fields: tuple[tuple[str, str], ...], has_cors: bool, has_token: bool) -> bytes:
    """The header lines of a response; the same few for all requests."""
    fields_by_name = {"Content-Type": "application/json"}
    if has_cors:
        fields_by_name["Access-Control-Allow-Origin"] = "*"
        fields_by_name["Access-Control-Allow-Methods"] = "POST, GET"
        fields_by_name["Access-Control-Allow-Headers"] = "Content-Type, Authorization" if has_token else "Content-Type"
    fields_by_name.update(fields)
    return "".join([f"{name}: {value}\r\n" for name, value in fields_by_name.items()]).encode("latin-1")
