"""Tornado's side: handlers that carry bytes between a connection and the `Flow`.

Thread: the server's loop.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any  # Tornado's handler arguments

from tornado import web
from tornado.iostream import StreamClosedError

from .calls import Exchange
from .flow import Flow, Reply
from .json_text import error_body
from .monitoring import CONTENT_TYPE, Monitor
from .security import refusal
from .settings import ServerSettings

_PHRASES = {429: "Client Error", 499: "Client Error", 504: "Gateway Time-out"}
"""Where TensorFlow Serving's HTTP library has no phrase of its own, or another one than Python."""

_NOT_FOUND = b"""<html>
<head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>Models are below /v1/models/NAME</p></body>
</html>
"""


@web.stream_request_body
class RestHandler(web.RequestHandler):
    """Everything below `/v1/`.

    The body is taken as a stream because Tornado would otherwise read forms out of it, by a Content-Type that
    TensorFlow Serving ignores.
    """

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

    def initialize(self, flow: Flow, settings: ServerSettings) -> None:
        """Called by Tornado with the values of the route."""
        self._flow = flow
        self._settings = settings
        self._exchange = Exchange(self.request.received_s)  # type: ignore[attr-defined]
        self._task: asyncio.Task[None] | None = None
        self._chunks: list[bytes] = []
        if settings.has_cors:
            self.set_header("Access-Control-Allow-Origin", "*")
            self.set_header("Access-Control-Allow-Methods", "POST, GET")
            with_token = ", Authorization" if settings.token is not None else ""
            self.set_header("Access-Control-Allow-Headers", f"Content-Type{with_token}")

    def data_received(self, chunk: bytes) -> None:
        """Called by Tornado with each part of the body."""
        self._chunks.append(chunk)

    async def _answer(self) -> None:
        request = self.request
        if request.method == "OPTIONS":
            await self._send(self._preflight())
            return
        denied = refusal(request.headers, self._settings)
        if denied is not None:
            self._exchange.code = "UNAUTHENTICATED" if denied.status == 401 else "PERMISSION_DENIED"
            challenge = (("WWW-Authenticate", "Bearer"),) if denied.status == 401 else ()
            reply = Reply(denied.status, error_body(denied.message), challenge)
        else:
            self._task = asyncio.current_task()
            reply = await self._flow.answer(
                request.method or "", request.uri or "", request.headers, b"".join(self._chunks), self._exchange
            )
            self._task = None
        await self._send(reply)

    get = head = post = delete = patch = put = options = _answer

    def _preflight(self) -> Reply:
        """A browser asks what it may do; it never sends a token with that."""
        origin = self.request.headers.get("Origin", "")
        is_allowed = "http://" in origin or "https://" in origin
        self._exchange.code = "OK" if is_allowed else "INVALID_ARGUMENT"
        return Reply(200 if is_allowed else 400, b"", (("Content-Type", "text/html; charset=ISO-8859-1"),))

    async def _send(self, reply: Reply) -> None:
        self.set_status(reply.status, _PHRASES.get(reply.status))
        for name, value in reply.headers:
            self.set_header(name, value)
        try:
            written = self.finish(reply.body if self.request.method != "HEAD" else b"")
            self._flow.record(self._exchange)
            await asyncio.wait_for(written, self._settings.write_timeout_s)
        except TimeoutError:
            self.request.connection.stream.close()  # type: ignore[union-attr]
        except StreamClosedError:
            pass  # the client left without its answer

    def on_connection_close(self) -> None:
        """The client left: its request leaves the queue."""
        if self._task is not None:
            self._task.cancel()

    def set_default_headers(self) -> None:
        """No `Server` header, as TensorFlow Serving."""
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")

    def compute_etag(self) -> None:
        """Answers are not cached, hashing them would be wasted."""

    def log_exception(self, *args: Any) -> None:
        """`Flow` has logged what is ours; cancellation and closed connections are nobody's fault."""


class HealthHandler(web.RequestHandler):
    """`GET /healthz`: the server runs. Says nothing else, and asks for no token."""

    def get(self) -> None:
        """Answer `{"status": "ok"}`."""
        self.clear_header("Server")
        self.write({"status": "ok"})


class MetricsHandler(web.RequestHandler):
    """Prometheus' metrics, by any method."""

    SUPPORTED_METHODS = RestHandler.SUPPORTED_METHODS

    def initialize(self, monitor: Monitor, settings: ServerSettings) -> None:
        """Called by Tornado with the values of the route."""
        self._monitor = monitor
        self._settings = settings

    def prepare(self) -> None:
        """Answer with the metrics."""
        self.clear_header("Server")
        self.set_header("Content-Type", CONTENT_TYPE)
        denied = refusal(self.request.headers, self._settings)
        path = self._settings.metrics_path
        if denied is not None:
            self.set_status(denied.status)
            self.finish(denied.message)
        elif self.request.uri != path:
            self.set_status(400)
            self.finish(f"Unexpected path: {self.request.uri}. Should be {path}")
        else:
            self.finish(self._monitor.exposition())


class UnknownHandler(web.RequestHandler):
    """Everything else: a page, as TensorFlow Serving's HTTP library answers."""

    SUPPORTED_METHODS = RestHandler.SUPPORTED_METHODS

    def prepare(self) -> None:
        """Answer 404 and close the connection."""
        self.clear_header("Server")
        self.set_header("Content-Type", "text/html")
        self.set_header("Connection", "close")
        self.set_status(404)
        self.finish(_NOT_FOUND)


class TimedApplication(web.Application):
    """An application whose requests know when their head arrived: Tornado looks for a handler just then."""

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Called by Tornado for each request head."""
        request.received_s = time.perf_counter()
        return super().find_handler(request, **kwargs)


def make_application(
    flow: Flow, settings: ServerSettings, monitor: Monitor | None = None, admin: list[tuple[Any, ...]] | None = None
) -> web.Application:
    """The routes of a server."""
    routes: list[tuple[Any, ...]] = [
        ("(?i)/v1/.*", RestHandler, {"flow": flow, "settings": settings}),
        ("/healthz", HealthHandler),
        *(admin or ()),
    ]
    if monitor is not None and settings.metrics_path is not None:
        path = re.escape(settings.metrics_path)
        routes.append((path, MetricsHandler, {"monitor": monitor, "settings": settings}))
    return TimedApplication(
        routes,
        default_handler_class=UnknownHandler,
        log_function=lambda _: None,
    )
