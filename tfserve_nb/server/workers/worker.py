"""A worker's process: `python -m tfserve_nb.server.workers.worker LINK LISTENER`, both inherited file descriptors.

It serves what the core serves and ends with it: the link is the only thing that keeps it alive.

Thread: the main one, which runs the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from .. import open_files, tls
from ..budget import ByteBudget
from ..calls import Calls
from ..event_loop import new_loop
from ..http.connection import Connection
from ..http.message import Message as HttpMessage
from ..http.message import Sink
from ..http.server import HttpServer
from ..paths import V2
from ..rest.entrance import guarded
from ..rest.fast_path import fast_path
from ..rest.inference_v2 import find_v2_route
from ..rest.routes import find_route
from ..settings import GrpcSettings, ServerSettings
from ..telemetry.log import LOG_NAME
from .forwarding import Forwarder
from .link import Link
from .link_backend import RECORDS_EACH_S, LinkBackend
from .messages import BundleAnswer, Catalog, Drain, Forwarded, Hello, LogLine, Message, Ready, Renew

if TYPE_CHECKING:
    from .grpc_proxy import GrpcProxy

SIGN_EACH_S = 1.0
"""How often the core is told that this worker still answers."""

DRAIN_S = 30.0
"""The core decides how long a drain may take; this is for a core that forgot."""


class LinkHandler(logging.Handler):
    """Log lines go to the core's log."""

    def __init__(self, link: Link) -> None:
        super().__init__(logging.INFO)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        self._link.send(LogLine(record.levelno, self.format(record)))


class WorkerProcess:
    """Everything that runs in a worker.

    Args:
        listener: the socket to accept clients on.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._over = asyncio.Event()
        self._link = Link(self._take, self._over.set)
        self._backend = LinkBackend(self._link)
        self._forwarder = Forwarder(self._link)
        self._is_ready = False
        self._server: HttpServer | None = None
        self._budget: ByteBudget | None = None
        self._grpc: GrpcProxy | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logging.getLogger(LOG_NAME)

    async def run(self, one_end: socket.socket) -> None:
        """Serve until the core is gone or asks it to end."""
        self._log.setLevel(logging.INFO)
        self._log.addHandler(LinkHandler(self._link))
        await self._link.open(one_end)
        told_s = 0.0
        while not self._over.is_set():
            self._backend.send_records()
            if self._budget is not None:
                self._budget.give_back_memory()
            if self._is_ready and time.perf_counter() > told_s + SIGN_EACH_S:
                told_s = time.perf_counter()
                self._link.send(Ready())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), RECORDS_EACH_S)
        if self._server is not None:
            await self._server.close()
        self._link.close()

    def _take(self, messages: list[Message]) -> None:
        """Messages of the core; none at all when it has caught up with us."""
        for message in messages:
            if isinstance(message, BundleAnswer):
                self._backend.answered(message)
            elif isinstance(message, Forwarded):
                self._forwarder.answered(message)
            elif isinstance(message, Catalog):
                self._backend.set_models(message.models)
            elif isinstance(message, Hello):
                self._spawn(self._serve(message.settings))
            elif isinstance(message, Renew):
                self._spawn(self._renew(message))
            elif isinstance(message, Drain):
                self._spawn(self._drain())
        if not messages:
            self._backend.wake()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, settings: ServerSettings) -> None:
        loop = asyncio.get_running_loop()
        calls = Calls(self._backend, loop)
        rest = fast_path(calls, settings, self._log)

        def decode_here(connection: Connection, message: HttpMessage) -> Sink | None:
            """Decode what can be decoded here; the core answers all else."""
            if message.head.method == "POST" and self._is_known(message.head.target):
                return rest(connection, message)
            return None

        budget = self._budget = ByteBudget(settings.max_bytes_in_flight // settings.workers)
        front = guarded(decode_here, calls, settings)
        server = self._server = HttpServer(self._forwarder.sink, settings, self._log, front, budget)
        await server.listen(self._listener, None if settings.tls is None else tls.http_context(settings.tls))
        if settings.grpc is not None and settings.grpc.core_path:
            await self._serve_grpc(calls, settings.grpc, settings.token, budget)
        self._is_ready = True
        self._link.send(Ready())

    async def _serve_grpc(self, calls: Calls, settings: GrpcSettings, token: str | None, budget: ByteBudget) -> None:
        from .grpc_proxy import GrpcProxy  # gRPC takes a tenth of a second to import

        grpc = GrpcProxy(self._backend, calls, settings, token, budget, self._log)
        await grpc.start()
        self._grpc = grpc

    async def _renew(self, message: Renew) -> None:
        if message.rest is not None and self._server is not None:
            await self._server.renew(tls.http_context(message.rest))
        if message.grpc is not None and self._grpc is not None:
            self._grpc.renew(message.grpc)

    def _is_known(self, target: str) -> bool:
        try:
            route = find_v2_route("POST", target) if target.startswith(V2) else find_route("POST", target)
        except Exception:  # noqa: BLE001 - the core refuses it with the right error
            return False
        return route is not None and route.call in ("predict", "infer") and self._backend.knows(route.spec)

    async def _drain(self) -> None:
        server = self._server
        ends = [] if self._grpc is None else [asyncio.ensure_future(self._grpc.stop(DRAIN_S))]
        if server is not None:
            server.stop()
            ends.append(asyncio.ensure_future(server.drained()))
        if ends:
            await asyncio.wait(ends, timeout=DRAIN_S)
        self._backend.send_records()
        self._over.set()


def main() -> int:
    """Run with the two inherited sockets."""
    link_fd, listener_fd = (int(text) for text in sys.argv[1:3])
    open_files.raise_limit()
    # Everything imported so far stays; the collector need not visit it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    one_end = socket.socket(fileno=link_fd)
    listener = socket.socket(fileno=listener_fd)

    async def run() -> None:
        await WorkerProcess(listener).run(one_end)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
