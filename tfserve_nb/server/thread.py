"""The server's thread: a Tornado HTTP server on an event loop of its own, beside whatever the kernel does.

Thread: `start` and `stop` may be called from any; all else in here runs on `tfserve-server`, a daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Coroutine
from typing import Any  # Tornado's connection context

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from ..errors import PortInUse, ServerFailed
from ..serving.port import ServingPort
from .app import make_application
from .calls import Calls
from .flow import Flow
from .log import RingHandler, open_log
from .settings import ServerSettings
from .switch_interval import shorten, unshorten

START_LIMIT_S = 5.0
DRAIN_S = 0.8
JOIN_S = 1.8
BACKLOG = 1024


class LimitedHTTPServer(HTTPServer):
    """An HTTP server that counts connections and requests.

    Tornado makes it without `__init__` arguments of our own: see `initialize`.
    """

    def initialize(self, *args: Any, max_connections: int, **kwargs: Any) -> None:  # type: ignore[override]
        """Called by Tornado's configurable constructor."""
        super().initialize(*args, **kwargs)
        self._max_connections = max_connections

    @property
    def num_connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it when there are too many."""
        if len(self._connections) >= self._max_connections:
            stream.close()
            return
        super().handle_stream(stream, address)


class ServerThread:
    """One HTTP server in a thread.

    Args:
        port: the core that answers.
        settings: address and limits.
    """

    def __init__(self, port: ServingPort, settings: ServerSettings) -> None:
        self.settings = settings
        self.log, self.log_ring = open_log("rest")
        self._serving_port = port
        self._bound_port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def host(self) -> str:
        """The address that is bound."""
        return self.settings.host

    @property
    def port(self) -> int:
        """The TCP port that is bound; 0 before `start`."""
        return self._bound_port

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The newest lines of the server's log, oldest first."""
        ring: RingHandler = self.log_ring
        return tuple(ring.lines)

    def start(self) -> None:
        """Bind the port and start the thread; returns when requests are answered.

        Raises:
            PortInUse: if the port is taken.
            ServerFailed: if the address cannot be bound, or the thread does not come up.
        """
        sockets = self._bind()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sockets, ready), name="tfserve-server", daemon=True)
        # A breakpoint in the notebook must not stop the server (ipykernel marks its own threads so).
        self._thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
        self._thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        shorten()
        try:
            self._thread.start()
            is_up = ready.wait(START_LIMIT_S)
            if self._error is not None or not is_up:
                raise ServerFailed(
                    f"the server did not start: {self._error or f'no answer within {START_LIMIT_S:g} s'}",
                    hint="restart the kernel",
                ) from self._error
        except BaseException:
            self.stop()
            for one in sockets:
                one.close()
            raise

    def stop(self) -> None:
        """Stop listening, let running requests finish for a moment, close everything. Idempotent, bounded."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(JOIN_S)
        unshorten()

    def _bind(self) -> list[socket.socket]:
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            # Bound once and handed over, so that nobody can take the port in between.
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {port} on {host} is taken", hint="another --port, or none for a free one"
                ) from error
            raise ServerFailed(f"{host}:{port} cannot be bound: {error.strerror or error}", hint="--port 0") from error
        listener.setblocking(False)
        self._bound_port = listener.getsockname()[1]
        return [listener]

    def _run(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=_selector_loop) as runner:
                runner.run(self._serve(sockets, ready))
        except BaseException as error:  # noqa: BLE001 - told to whoever waits in start()
            self._error = error
        finally:
            ready.set()

    async def _serve(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        settings = self.settings
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._log_exception)
        calls = Calls(self._serving_port, self._loop)
        flow = Flow(
            calls,
            request_timeout_s=settings.request_timeout_s,
            max_body_bytes=settings.max_body_bytes,
            log=self.log,
        )
        server = LimitedHTTPServer(
            make_application(flow, settings),
            max_header_size=settings.max_header_bytes,
            max_body_size=settings.max_body_bytes,
            max_buffer_size=settings.max_body_bytes + settings.max_header_bytes,
            idle_connection_timeout=settings.idle_timeout_s,
            body_timeout=settings.body_timeout_s,
            max_connections=settings.max_connections,
        )
        server.add_sockets(sockets)
        self.log.info("listening on %s:%d", self.host, self.port)
        ready.set()
        await self._stop.wait()
        server.stop()
        if flow.running:
            await asyncio.wait(flow.running, timeout=DRAIN_S)
        await _within(server.close_all_connections(), 0.3)
        self.log.info("stopped")

    def _log_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.log.error("%s", context.get("message"), exc_info=context.get("exception"))


def _selector_loop() -> asyncio.AbstractEventLoop:
    """Tornado needs `add_reader`, which Windows' default loop lacks."""
    return asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()


async def _within(work: Coroutine[Any, Any, None], limit_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(work, limit_s)
