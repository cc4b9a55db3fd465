"""Tornado's handlers: health, metrics, and the page for everything that is not there.

Thread: the server's loop.
"""

from __future__ import annotations

import re
from typing import Any  # Tornado's handler arguments

from tornado import web

from ..paths import HEALTH
from ..settings import ServerSettings
from ..telemetry.prometheus import CONTENT_TYPE, Monitor

METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

_NOT_FOUND = b"""<html>
<head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>Models are below /v1/models/NAME</p></body>
</html>
"""


class HealthHandler(web.RequestHandler):
    """`GET /healthz`: the server runs. Nothing else is reported, and no token is needed."""

    def get(self) -> None:
        """Answer `{"status": "ok"}`."""
        self.clear_header("Server")
        self.write({"status": "ok"})


class MetricsHandler(web.RequestHandler):
    """Prometheus' metrics, by any method."""

    SUPPORTED_METHODS = METHODS

    def initialize(self, monitor: Monitor, settings: ServerSettings) -> None:
        """Called by Tornado with the values of the route."""
        self._monitor = monitor
        self._settings = settings

    def prepare(self) -> None:
        """Answer with the metrics."""
        self.clear_header("Server")
        self.set_header("Content-Type", CONTENT_TYPE)
        path = self._settings.metrics_path
        if self.request.uri != path:
            self.set_status(400)
            self.finish(f"Unexpected path: {self.request.uri}. Should be {path}")
        else:
            self.finish(self._monitor.exposition())


class UnknownHandler(web.RequestHandler):
    """Everything else: a page, as TensorFlow Serving's HTTP library sends it."""

    SUPPORTED_METHODS = METHODS

    def prepare(self) -> None:
        """Answer 404 and close the connection."""
        self.clear_header("Server")
        self.set_header("Content-Type", "text/html")
        self.set_header("Connection", "close")
        self.set_status(404)
        self.finish(_NOT_FOUND)


def make_application(
    settings: ServerSettings, monitor: Monitor | None = None, admin: list[tuple[Any, ...]] | None = None
) -> web.Application:
    """The routes of a server beside those below `/v1/`, which `fast_path` serves."""
    routes: list[tuple[Any, ...]] = [(HEALTH, HealthHandler), *(admin or ())]
    if monitor is not None and settings.metrics_path is not None:
        path = re.escape(settings.metrics_path)
        routes.append((path, MetricsHandler, {"monitor": monitor, "settings": settings}))
    return web.Application(routes, default_handler_class=UnknownHandler, log_function=lambda _: None)
