"""Tornado's own tests of its HTTP server and its handlers, over our connection instead of Tornado's."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import socket
import unittest
import warnings
from types import ModuleType
from typing import Any

import pytest
import tornado.testing
from tornado import netutil
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.ioloop import IOLoop
from tornado.log import access_log, app_log

from tfserve_nb.server.http.connection import Connection
from tfserve_nb.server.http.message import Message
from tfserve_nb.server.http.server import HttpServer
from tfserve_nb.server.http.tornado_sink import sinks_of
from tfserve_nb.server.settings import ServerSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Tornado's test modules are not ours to judge
    from tornado.test import httpserver_test, routing_test, security_corpus_test, web_test

MODULES = (httpserver_test, web_test, routing_test, security_corpus_test)

NOT_OFFERED = {
    "XHeaderTest.*": "xheaders: nobody may say whose address is asking",
    "SSLXHeaderTest.*": "xheaders",
    "ManualProtocolTest.*": "protocol=: a server knows whether it speaks TLS",
    "Gzip*Test.*": "decompress_request: REST inflates its bodies itself, with a limit of its own",
    "StreamingChunkSizeTest.*": "chunk_size: a handler gets what came at once, a quarter of a megabyte at most",
    "*StreamingRequestFlowControlTest.*": "chunk_size; test_http_connection.py has flow control",
    "BadSSLOptionsTest.*": "ssl_options as a dictionary: ours is a context",
    "BodyLimitsTest.test_timeout": "set_body_timeout: no handler needs a timeout of its own",
    "LegacyInterfaceTest.*": "a function as the application",
    "ClientCloseTest.*": "connection.stream: handlers cannot reach below HTTP",
    "StaticFileAlternateDataStreamTest.*": "files on Windows",
    "SecurityCorpusTest.test_scaling": "measures time; bodies are not parsed by the connection",
}
STRICTER = {
    "HTTPConnectionTest.test_newlines": "a bare line feed ends no line",
    "HTTPServerRawTest.test_invalid_methods": "unknown methods are answered 400 by the parser, not 405 by a handler",
    "UnimplementedNonStandardMethodsTest.test_unimplemented_other": "unknown methods",
    "PatchMethodTest.test_other": "unknown methods",
    "KeepAliveTest.test_keepalive_chunked": "HTTP/1.0 knows no Transfer-Encoding (RFC 9112, section 6.1)",
}
FRIENDLIER = {
    "UnixSocketTest*.test_unix_socket_bad_request": "a 400 has Date, Content-Length and Connection",
    "BodyLimitsTest.test_body_size_override_reset": "413 for large bodies instead of 400",
    "BodyLimitsTest.test_large_body_buffered*": "413",
    "BodyLimitsTest.test_large_body_streaming": "413",
    "BodyLimitsTest.test_large_body_streaming_chunked": "413",
}
CORPUS = {
    "cross-origin websocket": "no websockets",
    "transfer-encoding gzip, chunked": "501 instead of 400",
    "transfer-encoding with no-break space": "501",
}
"""Attacks that Tornado once fell for and that are answered with another status here; all are refused."""
LEFT_OUT = (*NOT_OFFERED, *STRICTER, *FRIENDLIER)


class OnlyErrors(logging.LoggerAdapter):
    """Tornado's tests look at what is logged, and know nothing of our lines about refused requests."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name in `logging`
        return level >= logging.WARNING


class TornadoServer:
    """`tornado.httpserver.HTTPServer`, as far as its tests use it, around ours."""

    def __init__(self, application: HTTPServerConnectionDelegate, **options: Any) -> None:
        context = options.pop("ssl_options", None)
        self._context = None if context is None else netutil.ssl_options_to_context(context, server_side=True)
        self._application = application
        self._keeps_alive = not options.pop("no_keep_alive", False)
        self._limits = limits_of(options)
        self._server: HttpServer | None = None
        self._starting: list[asyncio.Task[None]] = []

    def add_sockets(self, sockets: list[socket.socket]) -> None:
        for listener in sockets:
            self.add_socket(listener)

    def add_socket(self, listener: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            IOLoop.current().run_sync(lambda: self._start(listener))
        else:
            self._starting.append(loop.create_task(self._start(listener)))

    async def _start(self, listener: socket.socket) -> None:
        if self._server is None:
            log = OnlyErrors(app_log, {})
            self._server = HttpServer(sinks_of(self._application, log), self._limits, log, self._prepare)
        await self._server.listen(listener, self._context)

    def _prepare(self, _: Connection, message: Message) -> None:
        """Asked first for each request; leaves it to Tornado's application."""
        message.keeps_alive = message.keeps_alive and self._keeps_alive

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    async def close_all_connections(self) -> None:
        if self._server is not None:
            await self._server.close()


def limits_of(options: dict[str, Any]) -> ServerSettings:
    """Tornado's options as ours."""
    names = {
        "max_header_size": "max_header_bytes",
        "max_body_size": "max_body_bytes",
        "idle_connection_timeout": "idle_timeout_s",
        "body_timeout": "body_timeout_s",
    }
    return ServerSettings(**{names[name]: value for name, value in options.items()})


class MaybeLog(tornado.testing.ExpectLog):
    """What Tornado's connection logs, ours need not."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "required": False})


@pytest.fixture(autouse=True)
def _our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tornado.testing, "HTTPServer", TornadoServer)
    for module in MODULES:
        for name, ours in (("HTTPServer", TornadoServer), ("ExpectLog", MaybeLog)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, ours)
    monkeypatch.setattr(access_log, "disabled", True)  # as in Tornado's own runs
    cases = [case for case in security_corpus_test.CASES if case.name not in CORPUS]
    assert len(cases) == len(security_corpus_test.CASES) - len(CORPUS)
    monkeypatch.setattr(security_corpus_test, "CASES", cases)


def is_left_out(name: str, case: type, test: str) -> bool:
    """Whether a test of Tornado is not for us, or cannot run here."""
    is_skipped = getattr(getattr(case, test), "__unittest_skip__", False)
    return is_skipped or any(fnmatch.fnmatchcase(f"{name}.{test}", pattern) for pattern in LEFT_OUT)


def over_ours(module: ModuleType) -> dict[str, type]:
    """A module's cases that start a server, without the tests that are left out."""
    found: dict[str, type] = {}
    for name, case in vars(module).items():
        if not isinstance(case, type) or not issubclass(case, tornado.testing.AsyncTestCase):
            continue
        tests = [test for test in dir(case) if test.startswith("test")]
        left_out = {test: None for test in tests if is_left_out(name, case, test)}
        if case.__module__ == module.__name__ and len(left_out) < len(tests):
            # None in place of a method takes it away from the collector.
            found[f"{module.__name__.rpartition('.')[2]}_{name}"] = type(name, (case,), left_out)
    return found


for _module in MODULES:
    globals().update(over_ours(_module))


def test_what_is_left_out_exists() -> None:
    tests = [
        f"{name}.{test}"
        for module in MODULES
        for name, case in vars(module).items()
        if isinstance(case, type) and issubclass(case, unittest.TestCase)
        for test in dir(case)
    ]

    for pattern in LEFT_OUT:
        assert fnmatch.filter(tests, pattern), f"Tornado has no {pattern} any more"
