"""HTTP requests as Ray hands them over, through the same door as our own server: token, limits, REST, V2, health.

Beside inference there is a part of the admin API: what only reads. What changes something is a configuration on Ray,
since it is for all replicas and for those that are still to come.

Thread: the replica's loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, cast  # JSON values, Starlette's requests
from urllib.parse import parse_qs, quote, unquote

from ...errors import Unimplemented
from ...server.admin.operations import MODEL_OPERATIONS, PREFIX, Operation
from ...server.budget import ByteBudget
from ...server.calls import Calls
from ...server.event_loop import run_in_thread
from ...server.http.connection import Connection
from ...server.http.message import Message, Refused, RequestHead, Sink
from ...server.paths import ADMIN, HEALTH
from ...server.rest.entrance import guarded
from ...server.rest.fast_path import fast_path
from ...server.rest.json_text import error_body
from ...server.settings import ServerSettings
from ...server.telemetry.log import public_error
from ...serving.admin import ModelAdmin
from .state import REPLICA, REPLICA_HEADER

_READS = [
    (re.compile(f"{PREFIX}/{re.escape(one.path).replace(re.escape('{name}'), '([^/]+)')}"), one)
    for one in MODEL_OPERATIONS
    if one.http_method == "GET"
]


class HttpDoor:
    """The way of HTTP requests into one replica.

    Args:
        calls: the way to the core.
        settings: token and limits.
        admin: what the admin API reads.
        about: what the replica tells of itself, as JSON.
        name: the replica's.
        log: for failures that clients see only the number of.
    """

    def __init__(
        self,
        calls: Calls,
        settings: ServerSettings,
        admin: ModelAdmin,
        about: Callable[[], Mapping[str, Any]],
        name: str,
        log: logging.Logger,
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._about = about
        self._name = name
        self._log = log
        self._budget = ByteBudget(settings.max_bytes_in_flight)
        self._enter = guarded(fast_path(calls, settings, log), calls, settings)

    async def answer(self, request: Any) -> Any:
        """The response, Starlette's, to a request, Starlette's too."""
        from starlette.responses import Response

        response = _Response()
        message = Message(_head(request.scope), time.perf_counter(), self._settings.max_body_bytes, self._budget)
        try:
            # A response to each request is all that these sinks want of a connection.
            sink = self._enter(cast("Connection", response), message) or self._other(message, response)
            message.start(sink)
            async for chunk in request.stream():
                if response.written.done():
                    break  # refused by its head: nobody wants the body
                message.receive(chunk)
            else:
                message.end()
            status, fields, body = await response.written
        except Refused as refused:
            reason = str(refused) if refused.is_explained else "Bad request"
            status, fields, body = refused.status, {"Content-Type": "application/json"}, error_body(reason)
        except BaseException:
            message.abandon()
            raise
        message.answered()
        return Response(body, status_code=status, headers=fields)

    def _other(self, message: Message, response: _Response) -> Sink:
        """Takes a request that is none for a model."""
        return _Later(lambda: self._answer_other(message.head, response))

    async def _answer_other(self, head: RequestHead, response: _Response) -> None:
        path, _, query = head.target.partition("?")
        if path == HEALTH:
            response.write_json(200, {"status": "ok"})
        elif path.startswith(f"{ADMIN}/") and self._settings.token:
            await self._answer_admin(head.method, path, query, response)
        else:
            response.write_json(404, {"error": f"Not found: {path:.200}; models are below /v1/models/NAME"})

    async def _answer_admin(self, method: str, path: str, query: str, response: _Response) -> None:
        fields = {REPLICA_HEADER: self._name}
        given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        try:
            response.write_json(200, await self._read(method, path, given), fields)
        except Exception as error:  # noqa: BLE001 - see `public_error`
            public = public_error(error, self._log, path)
            text = {"error": public.message, "hint": public.hint, "code": public.code, "kind": type(public).__name__}
            response.write_json(public.http_status, text, fields)

    async def _read(self, method: str, path: str, given: Mapping[str, str]) -> Any:
        if path == REPLICA:
            return self._about()
        if path == f"{PREFIX}/models":
            return {"models": list(self._admin.names), **self._about()}
        if method == "GET" and path.startswith(f"{PREFIX}/models/") and path.endswith("/experiment"):
            return {"experiment": None}  # a comparison counts in one process, so that there is none here
        for pattern, operation in _READS:
            found = pattern.fullmatch(path)
            if found is not None and method == operation.http_method:
                return await self._carry_out(operation, unquote(found[1]) if found.groups() else "", given)
        raise Unimplemented(
            f"{method} {path} is not done by a replica: changes are sent to Ray, for all replicas at once",
            hint="the handle that to_ray gave: promote, rollback, set_traffic, set_label",
        )

    async def _carry_out(self, operation: Operation, name: str, given: Mapping[str, str]) -> Any:
        return await run_in_thread("tfserve-admin", lambda: operation.carry_out(self._admin, name, given))


class _Response:
    """Stands in for the connection that our sinks write their response to."""

    def __init__(self) -> None:
        self.written: asyncio.Future[tuple[int, dict[str, str], bytes]] = asyncio.get_running_loop().create_future()

    def respond(self, _message: Message, first_line: bytes, lines: bytes, body: bytes) -> None:
        """The status line, header lines and body of the response."""
        fields = dict(line.split(": ", 1) for line in lines.decode("latin-1").splitlines() if line)
        self._finish(int(first_line.split(b" ", 2)[1]), fields, body)

    def write(self, _data: bytes) -> None:
        """`100 Continue`, which Ray's HTTP server has sent already."""

    def write_json(self, status: int, value: Any, fields: Mapping[str, str] | None = None) -> None:
        """A response in JSON."""
        body = json.dumps(value).encode()
        self._finish(status, {"Content-Type": "application/json", **(fields or {})}, body)

    def _finish(self, status: int, fields: dict[str, str], body: bytes) -> None:
        if not self.written.done():
            self.written.set_result((status, fields, body))


class _Later:
    """A sink whose response comes from a task.

    Args:
        work: begins when the body has gone by, which nobody reads.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def receive(self, chunk: bytes) -> None:
        """A part of the body came: it is dropped."""

    def end(self) -> None:
        """Answer."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def abandon(self) -> None:
        """The client left."""
        if self._task is not None:
            self._task.cancel()


def _head(scope: Mapping[str, Any]) -> RequestHead:
    """The head of a request as our server knows it, from an ASGI scope."""
    raw = scope.get("raw_path") or quote(scope["path"], safe="/:%").encode()
    query = scope.get("query_string", b"")
    target = raw.partition(b"?")[0] + (b"?" + query if query else b"")
    lines = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    return RequestHead(
        method=scope["method"],
        target=target.decode("latin-1"),
        is_http11=scope.get("http_version", "1.1") != "1.0",
        lines=lines,
        fields=dict(lines),
        keeps_alive=True,
    )
