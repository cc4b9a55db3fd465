"""The HTTP port of a server with workers, and their processes: the counterpart of `HttpListener`.

The processes are started together, replaced when they die, and end with the server. Each has a listening socket of its
own on the shared port, and the core's process keeps all of them open: clients that connect while a worker is being
replaced wait, and the new one accepts them.

Thread: made on any; all else on the server's loop.

Reference: socket(7), SO_REUSEPORT.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tornado.httputil import HTTPServerConnectionDelegate

from ...errors import ServerFailed
from ...serving.backend import InferenceBackend
from ...temporary import TemporaryFolder
from .. import tls
from ..budget import ByteBudget
from ..config_files import TlsFiles
from ..http.server import FastPath, HttpServer
from ..http.tornado_sink import sinks_of
from ..settings import GrpcSettings, ServerSettings
from ..sockets import bind_shared, hold, inherited
from ..telemetry.request_log import RequestLog
from ..vital_signs import PAUSE_S, VitalSigns
from .hub import Hub, Worker

START_LIMIT_S = 15.0
POLL_S = 0.01
RETRY_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""How long to wait before starting a worker again, by how often it died in a row."""

STEADY_S = 10.0
"""A worker that ran this long and then died is started again at once."""

MOST_SILENT = 30
"""So often in a row nothing may have come from a worker, which sends a sign of life each second: for a minute."""

PACKAGE_FOLDER = Path(__file__).resolve().parents[3]


class WorkerListener:
    """One port, shared by several processes.

    Args:
        settings: address, limits, and how many.
        backend: the core.
        request_log: gets answered requests, or None.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address or the certificate does not do.
    """

    def __init__(self, settings: ServerSettings, backend: InferenceBackend, request_log: RequestLog | None) -> None:
        if settings.tls is not None:
            tls.check(settings.tls)
        self._backend = backend
        self._request_log = request_log
        given = inherited(settings.listen_fds)
        self._sockets = given or bind_shared(settings.host, settings.port or 0, settings.workers)
        self.port: int = self._sockets[0].getsockname()[1]
        self._folder: TemporaryFolder | None = None
        self._grpc_place: socket.socket | None = None
        grpc = settings.grpc
        if grpc is not None and grpc.port is not None:
            settings = replace(settings, grpc=self._share(grpc))
        self.settings = settings
        self._hub: Hub | None = None
        self._slots: list[_Slot] = []
        self._watch: asyncio.Task[None] | None = None
        self._http: HttpServer | None = None

    @property
    def num_running(self) -> int:
        """Bundles on their way."""
        return 0 if self._hub is None else self._hub.num_running

    def _share(self, grpc: GrpcSettings) -> GrpcSettings:
        """Hold gRPC's port for the workers, and find a place for the core's socket."""
        if grpc.tls is not None:
            tls.check(grpc.tls)
        port = grpc.port
        if not grpc.is_port_held:
            try:
                self._grpc_place = hold(grpc.host, grpc.port or 0)
            except BaseException:
                self.close_socket()
                raise
            port = self._grpc_place.getsockname()[1]
        self._folder = TemporaryFolder("tfserve-core")
        return replace(grpc, port=port, core_path=str(self._folder.path / "core"))

    async def start(
        self, application: HTTPServerConnectionDelegate, log: logging.Logger, fast_path: FastPath, budget: ByteBudget
    ) -> None:
        """Answer requests from now on.

        Raises:
            ServerFailed: if a worker does not start, with what it printed last.
        """
        http = self._http = HttpServer(sinks_of(application, log), self.settings, log, fast_path, budget)
        http.start_clock()
        hub = self._hub = Hub(self._backend, self.settings, http, log, self._request_log)
        self._slots = [_Slot(hub, listener, log) for listener in self._sockets]
        await asyncio.gather(*[slot.start() for slot in self._slots])
        self._watch = asyncio.create_task(self._watch_all(hub))

    async def _watch_all(self, hub: Hub) -> None:
        """Tell the workers what is served, and replace those that hang."""
        await asyncio.gather(hub.watch_models(), *[slot.watch() for slot in self._slots])

    async def renew(self, rest: TlsFiles | None, grpc: TlsFiles | None) -> None:
        """Let all workers use other certificates for new connections, also those that are started later.

        Raises:
            ServerFailed: if they do not do; the old ones stay in use.
        """
        if rest is not None:
            tls.http_context(rest)
            self.settings = replace(self.settings, tls=rest)
        if grpc is not None and self.settings.grpc is not None:
            self.settings = replace(self.settings, grpc=replace(self.settings.grpc, tls=grpc))
        if self._hub is not None:
            self._hub.settings = self.settings
            for end in self._hub.ends:
                end.renew(rest, grpc)

    def stop(self) -> None:
        """Take no new connections; running requests may finish."""
        if self._watch is not None:
            self._watch.cancel()
        for slot in self._slots:
            slot.drain()
        for listener in self._sockets:
            listener.close()

    async def drained(self) -> None:
        """Wait until all workers have ended."""
        while any(slot.is_alive for slot in self._slots):  # noqa: ASYNC110 - at the very end only
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """End what still runs."""
        for slot in self._slots:
            slot.kill()
        for slot in self._slots:
            await slot.ended()
        if self._http is not None:
            await self._http.close()
        self._give_back_grpc()

    def close_socket(self) -> None:
        """Give the ports back when the server never started."""
        for listener in self._sockets:
            listener.close()
        self._give_back_grpc()

    def _give_back_grpc(self) -> None:
        if self._grpc_place is not None:
            self._grpc_place.close()
        if self._folder is not None:
            self._folder.close()


def _sounds(end: Worker) -> Callable[[], bool]:
    """Whether anything came from a worker since the last call."""
    num_known = -1

    def has_sounded() -> bool:
        nonlocal num_known
        num_before, num_known = num_known, end.num_heard
        return num_known != num_before

    return has_sounded


class _Slot:
    """The place of one worker: its socket, and the process that is there now."""

    def __init__(self, hub: Hub, listener: socket.socket, log: logging.Logger) -> None:
        self._hub = hub
        self._listener = listener
        self._log = log
        self._is_draining = False
        self._num_deaths = 0
        self._started_s = 0.0
        self._end: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this slot
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Start a process and wait until it answers."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = self._spawn(theirs.fileno())
        end = self._end = Worker(self._hub, self._lost)
        self._hub.ends.append(end)
        self._started_s = asyncio.get_running_loop().time()
        await end.open(ours)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.settled.wait(), START_LIMIT_S)
        if not end.ready.is_set() and not self._is_draining:
            raise ServerFailed(f"a worker did not start: {self._last_line()}", hint="--workers 0")

    async def watch(self) -> None:
        """End the process whenever it is stopped or hangs, so that another one takes its place."""
        looked_at: Worker | None = None
        while True:
            await asyncio.sleep(PAUSE_S)
            end, process = self._end, self.process
            if end is None or process is None or not end.ready.is_set() or not self.is_alive:
                continue
            if end is not looked_at:
                looked_at, signs = end, VitalSigns(process.pid, _sounds(end), most_silent=MOST_SILENT)
            if signs.are_gone():
                self._log.error("a worker does not answer any more and is ended")
                process.kill()

    def drain(self) -> None:
        """Let it finish and end."""
        self._is_draining = True
        if self._task is not None:
            self._task.cancel()
        if self._end is not None:
            self._end.drain()

    def kill(self) -> None:
        """End it now."""
        if self.process is not None and self.is_alive:
            self.process.kill()

    async def ended(self) -> None:
        """Wait for the end of its process, and give back what it held."""
        while self.is_alive:  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(POLL_S)
        self._output.close()

    def _spawn(self, link_fd: int) -> subprocess.Popen[bytes]:
        module = "tfserve_nb.server.workers.worker"
        command = [sys.executable, "-m", module, str(link_fd), str(self._listener.fileno())]
        paths = [str(PACKAGE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(link_fd, self._listener.fileno()),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            cwd="/",
            start_new_session=True,
        )

    def _lost(self) -> None:
        """The process is gone: put another one in its place, unless it shall go or never came up."""
        end = self._end
        if end is not None and end in self._hub.ends:
            self._hub.ends.remove(end)
        if self._is_draining or end is None or not end.ready.is_set():
            return
        lived_s = asyncio.get_running_loop().time() - self._started_s
        self._num_deaths = 0 if lived_s > STEADY_S else self._num_deaths + 1
        self._log.error("a worker ended, another one is started: %s", self._last_line())
        self._task = asyncio.create_task(self._replace())

    async def _replace(self) -> None:
        while not self._is_draining:
            await asyncio.sleep(RETRY_S[min(self._num_deaths, len(RETRY_S) - 1)])
            self.kill()
            if self.process is not None:
                self.process.wait()
            try:
                await self.start()
            except ServerFailed as error:
                self._num_deaths += 1
                self._log.error("%s", error.message)
            else:
                return

    def _last_line(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
