"""The workers' processes: started together, replaced when one dies, ended with the server.

Each has a listening socket of its own on the shared port, and the core's process keeps all of them open: clients that
connect while a worker is being replaced wait, and the new one accepts them.

Thread: the server's loop, but for `listeners`, which any thread may call before.

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
from pathlib import Path

from ...errors import ServerFailed
from .hub import Hub, Worker

START_LIMIT_S = 15.0
LOOK_S = 0.05
RETRY_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""How long to wait before starting a worker again, by how often it died in a row."""

STEADY_S = 10.0
"""A worker that ran this long and then died is started again at once."""

PACKAGE_FOLDER = Path(__file__).resolve().parents[3]


class Pool:
    """The workers of one server.

    Args:
        hub: what they share.
        listeners: one bound socket for each.
        log: the server's.
    """

    def __init__(self, hub: Hub, listeners: list[socket.socket], log: logging.Logger) -> None:
        self._hub = hub
        self._listeners = listeners
        self._log = log
        self._slots = [_Slot(hub, listener, log) for listener in listeners]
        self._looker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all; returns when they answer.

        Raises:
            ServerFailed: if one does not, with what it printed last.
        """
        await asyncio.gather(*[slot.start() for slot in self._slots])
        self._looker = asyncio.create_task(self._look())

    def stop(self) -> None:
        """Take no new clients; running requests may finish."""
        if self._looker is not None:
            self._looker.cancel()
        for slot in self._slots:
            slot.drain()
        for listener in self._listeners:
            listener.close()

    async def drained(self) -> None:
        """Wait until all have ended."""
        while any(slot.is_alive for slot in self._slots):  # noqa: ASYNC110 - at the very end only
            await asyncio.sleep(LOOK_S / 5)

    async def close(self) -> None:
        """End those that still run."""
        for slot in self._slots:
            slot.kill()
        for slot in self._slots:
            await slot.ended()

    async def _look(self) -> None:
        while True:
            try:
                self._hub.look()
            except Exception:  # noqa: BLE001 - whatever is wrong now, workers must hear of later changes
                self._log.exception("what is served could not be told to the workers")
            await asyncio.sleep(LOOK_S)


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
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this slot
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
            raise ServerFailed(f"a worker did not start: {self._last_words()}", hint="--workers 0")

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
            await asyncio.sleep(LOOK_S / 5)
        self._words.close()

    def _spawn(self, link_fd: int) -> subprocess.Popen[bytes]:
        module = "tfserve_nb.server.workers.worker"
        command = [sys.executable, "-m", module, str(link_fd), str(self._listener.fileno())]
        paths = [str(PACKAGE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._words,
            stderr=self._words,
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
        self._log.error("a worker ended, another one is started: %s", self._last_words())
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

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
