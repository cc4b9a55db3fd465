"""A server in a child process: `tfserve-nb serve --managed`, started, watched, and started again when it dies.

The child goes when this process goes: it watches its parent. It is in a session of its own, because Jupyter interrupts
a kernel's whole process group.

This process binds the ports and keeps them for as long as the server shall run; the child inherits the sockets. So no
other program can take a port while no child runs, and what answers there is the child. It says that it answers through
an inherited pipe; until then nothing is sent to it. Clients that connect while a new process starts wait for it. When
the child died too often to be started again, this process closes their connections until it is asked for a new one.

Thread: `start` and `stop` on any; `tfserve-child`, a daemon, waits for the process to end.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from urllib.parse import quote

from ..errors import ServerFailed
from ..temporary import TemporaryFolder
from ..types import Progress, ProgressEvent, no_progress
from .sockets import bind, bind_shared, hold, turn_away
from .vital_signs import ANSWER_S, PAUSE_S, VitalSigns

HOST = "127.0.0.1"
START_LIMIT_S = 180.0
STOP_S = 1.5
MAX_RESTARTS, RESTART_SPAN_S = 5, 120.0
LOG_LINES = 12
TURN_AWAY_PAUSE_S = 0.1
READY = b"ready\n"
"""What the child writes into its pipe when it answers."""


class ChildServer:
    """The process, and what is known of it.

    Args:
        port: TCP port of REST; None for a free one. It stays the same over restarts.
        grpc_port: of gRPC; 0 for a free one, None for no gRPC.
        token: what requests must carry; no other server has the same.
        on_restart: called on the watching thread when a new process answers in place of one that died.
        workers: processes that hold HTTP in front of it.
        models: returns the models that a new process is about to serve again.

    Raises:
        PortInUse: if a port is taken.
        ServerFailed: if a port cannot be bound.
    """

    def __init__(
        self,
        port: int | None,
        grpc_port: int | None,
        token: str,
        on_restart: Callable[[], None],
        *,
        workers: int = 0,
        models: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._workers = workers
        self._models = models
        self._listeners = bind_shared(HOST, port or 0, workers) if workers else [bind(HOST, port or 0)]
        self.port: int = self._listeners[0].getsockname()[1]
        self._grpc_place: socket.socket | None = None
        try:
            self._grpc_place = None if grpc_port is None else hold(HOST, grpc_port)
        except BaseException:
            self._close_ports()
            raise
        self.grpc_port: int | None = None if self._grpc_place is None else self._grpc_place.getsockname()[1]
        self.token = token
        self._on_restart = on_restart
        self._folder = TemporaryFolder("tfserve-child")
        self._token_file = self._folder.path / "token"
        self._log_file = self._folder.path / "log"
        descriptor = os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        self._deaths: deque[float] = deque(maxlen=MAX_RESTARTS)
        self._problem = ""
        self.is_given_up = False
        """Whether it died so often that no new one was started."""
        self._recalled = threading.Event()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd = -1
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process's number, or None when there is none."""
        return None if self._process is None else self._process.pid

    def problem(self) -> str:
        """Why it does not answer now, in words; "" when it should."""
        return self._problem

    def log_tail(self) -> str:
        """The last lines that the process printed."""
        try:
            lines = self._log_file.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_LINES:])

    def start(self, progress: Progress = no_progress) -> None:
        """Start the process; returns when it answers.

        Raises:
            ServerFailed: if it does not, with what it printed last.
        """
        try:
            self._launch()
            self._wait_until_ready(progress)
        except BaseException:
            self.stop()
            raise
        self._start_thread(self._watch)

    def start_anew(self, progress: Progress = no_progress) -> bool:
        """Start a process again after the last one was given up; False when there is no need to.

        Raises:
            ServerFailed: as `start`; it can be tried again.
        """
        if not self.is_given_up:
            return False
        self._recalled.set()
        if self._thread is not None:
            self._thread.join()  # clients that connect from now on wait for the new process
        self._recalled.clear()
        try:
            self._launch()
            self._wait_until_ready(progress)
        except BaseException:
            self._end()
            self._start_thread(self._turn_clients_away)
            raise
        self._deaths.clear()
        self.is_given_up, self._problem = False, ""
        self._start_thread(self._watch)
        return True

    def _start_thread(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name="tfserve-child", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the process. Idempotent, bounded."""
        self._stopping.set()
        self._close_ports()  # first, so that clients are refused as soon as the child does not listen any more
        self._end()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)
            self._end()  # the thread may have started a new one meanwhile
        self._close_ready()
        self._folder.close()

    def _close_ports(self) -> None:
        for place in (*self._listeners, self._grpc_place):
            if place is not None:
                place.close()

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)

    def _launch(self) -> None:
        self._close_ready()
        listen_fds = [listener.fileno() for listener in self._listeners]
        self._ready_fd, ready_fd = os.pipe()
        command = [
            sys.executable, "-m", "tfserve_nb", "serve", "--managed", f"--host={HOST}",
            f"--rest_api_port={self.port}", f"--port={self.grpc_port or 0}",
            f"--listen_fds={','.join(map(str, listen_fds))}", f"--ready_fd={ready_fd}",
            f"--workers={self._workers}", f"--auth_token_file={self._token_file}",
            f"--parent_pid={os.getpid()}", f"--drain_seconds={STOP_S / 2}",
            f"--resuming={','.join(quote(name, safe='') for name in self._models())}",
        ]  # fmt: skip
        # A GPU is shared with this process: take what is needed as it is needed.
        environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        try:
            with self._log_file.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                    pass_fds=(*listen_fds, ready_fd),
                )
        finally:
            os.close(ready_fd)  # the child's end

    def _wait_until_ready(self, progress: Progress) -> None:
        progress(ProgressEvent("starting the server process", 0, 1))
        until_s = time.perf_counter() + START_LIMIT_S
        while not self._is_ready():
            code = self._process.poll() if self._process is not None else 0
            if code is not None or time.perf_counter() > until_s:
                why = f"it ended with code {code}" if code is not None else f"no answer within {START_LIMIT_S:g} s"
                raise ServerFailed(f"the server process did not start: {why}\n{self.log_tail()}", hint="try again")
            if self._stopping.wait(0.05):
                raise ServerFailed("the server process was stopped while it started")
        progress(ProgressEvent("starting the server process", 1, 1))

    def _is_ready(self) -> bool:
        """Whether the child has said that it answers: only it has the other end of the pipe."""
        descriptor = self._ready_fd
        if descriptor < 0:
            return False
        poll = select.poll()  # `select` knows descriptors below 1024 only
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0)) and os.read(descriptor, len(READY)) == READY

    def _close_ready(self) -> None:
        descriptor, self._ready_fd = self._ready_fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _watch(self) -> None:
        while (process := self._process) is not None:
            code = self._wait_for_end(process)
            if self._stopping.is_set():
                return
            if not self._restart(code):
                break
        self._turn_clients_away()

    def _turn_clients_away(self) -> None:
        """Close the connections of clients until a process is asked for: the port stays taken, and none waits."""
        while not self._stopping.is_set() and not self._recalled.wait(TURN_AWAY_PAUSE_S):
            for listener in self._listeners:
                turn_away(listener)

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until a process ends, and end it when it does not answer any more; what it ended with."""
        signs = VitalSigns(process.pid, self._answers)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(PAUSE_S)
            if signs.are_gone() and not self._stopping.is_set():
                self._problem = "the server process did not answer any more; a new one is being started"
                process.kill()

    def _answers(self) -> bool:
        """Whether the process reacts to a request that needs nothing but its loop, be it by refusing it."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
        except TimeoutError:
            return False
        except (OSError, http.client.HTTPException):
            return True
        else:
            return True
        finally:
            connection.close()

    def _restart(self, code: int) -> bool:
        """Put a new process in the place of one that died; False to give up."""
        now_s = time.perf_counter()
        self._deaths.append(now_s)
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        if len(self._deaths) == MAX_RESTARTS and now_s - self._deaths[0] < RESTART_SPAN_S:
            self.is_given_up = True
            last_line = "".join(self.log_tail().splitlines()[-1:])
            self._problem = (
                f"the server process died {MAX_RESTARTS} times, the last one {how}; the next %deploy or %serving "
                f"--resume starts it anew; its last words: {last_line}"
            )
            return False
        self._problem = f"the server process ended {how}; a new one is being started"
        is_ready = False
        try:
            self._launch()
            self._wait_until_ready(no_progress)
            is_ready = True
            self._on_restart()
        except Exception as error:  # noqa: BLE001 - the next call of the server raises it; the thread goes on
            if not self._stopping.is_set():
                self._problem = f"the server process could not be started again: {error}"
            if not is_ready:
                self._end()  # which counts as one more death
            return not self._stopping.is_set()
        self._problem = ""
        return True


def make_token() -> str:
    """A new secret."""
    return secrets.token_urlsafe(32)
