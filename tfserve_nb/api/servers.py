"""What one process serves: at most one server in the kernel, and at most one in a child process.

Thread: any; a lock guards starting and stopping. A server starts with the first deploy and stops when it serves
nothing any more, at `shutdown()` and at the end of the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from ..errors import InvalidOption, PortInUse
from ..server.child import make_token
from ..server.handle import ChildHome, Home, KernelHome, ListenOptions
from ..types import Progress, no_progress

H = TypeVar("H", KernelHome, ChildHome)

ANY = ListenOptions()


class _Process:
    """The servers of this process, and what the next one takes over from the last."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.kernel: KernelHome | None = None
        self.child: ChildHome | None = None
        self.last_port = 0
        self.last_token: str | None = None
        self.is_registered = False


_process = _Process()


def current() -> KernelHome | None:
    """The server in the kernel, if it serves something."""
    return _process.kernel


def homes() -> tuple[KernelHome | ChildHome, ...]:
    """The servers of this process."""
    return tuple(home for home in (_process.kernel, _process.child) if home is not None)


def served() -> dict[str, KernelHome | ChildHome]:
    """Model -> where it is served, by name."""
    found: dict[str, KernelHome | ChildHome] = {}
    kernel, child = _process.kernel, _process.child
    if kernel is not None:
        found.update(dict.fromkeys(kernel.core.names, kernel))
    if child is not None:
        found.update(dict.fromkeys(child.folders, child))
    return dict(sorted(found.items()))


def home_of(name: str) -> Home | None:
    """Where a model is served, or None."""
    return served().get(name)


def ensure(doors: ListenOptions = ANY) -> KernelHome:
    """The server in the kernel, started if need be.

    Args:
        doors: what is wanted; a process that served before gets its old port when it is free.

    Raises:
        InvalidOption: if a server runs already with other settings.
        PortInUse: if the port is taken.
    """
    with _process.lock:
        running = _process.kernel
        if running is not None:
            _check_fits(running, doors)
            return running
        token = None if doors.auth is False else _process.last_token or make_token()
        try:
            home = KernelHome(_process.last_port if doors.port is None else doors.port, token, doors)
            home.start()
        except PortInUse:
            if doors.port is not None or not _process.last_port:
                raise
            home = KernelHome(0, token, doors)
            home.start()
        _process.kernel = home
        _process.last_port, _process.last_token = home.port, token or _process.last_token
        _register()
        return home


def ensure_child(doors: ListenOptions = ANY, progress: Progress = no_progress) -> ChildHome:
    """The server in a child process, started if need be; as `ensure`. It always asks for a token.

    Raises:
        InvalidOption: if it runs already with other settings, or shall have no token.
        ServerFailed: if the process does not start.
    """
    if doors.auth is False:
        raise InvalidOption("an isolated server always asks for a token", hint="leave --no-auth or --isolate out")
    with _process.lock:
        running = _process.child
        if running is not None:
            _check_fits(running, replace(doors, auth=None))
            return running
        token = _process.last_token or make_token()
        home = ChildHome(token, doors)
        home.start(progress)
        _process.child, _process.last_token = home, token
        _register()
        return home


def stop_if_idle() -> None:
    """Stop the servers that serve no model."""
    with _process.lock:
        if _process.kernel is not None and _process.kernel.is_idle:
            kernel, _process.kernel = _process.kernel, None
            kernel.stop()
        if _process.child is not None and _process.child.is_idle:
            child, _process.child = _process.child, None
            child.stop()


def shutdown() -> None:
    """Stop serving. Idempotent, bounded, also at the end of the process."""
    with _process.lock:
        stopping = homes()
        _process.kernel = _process.child = None
    stops: list[Callable[[], None]] = [home.stop for home in stopping]
    for stop in stops:
        stop()


def proxied_url(port: int, path: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The URL of the server as a browser outside this machine sees it, or None when it cannot be known.

    Args:
        port: the server's port.
        path: such as `/v1/models/digits`.
        environ: for tests; the process's environment by default.

    `TFSERVE_NB_PROXY_URL`, a template with `{port}` and any environment variable, decides; on JupyterHub the path of
    jupyter-server-proxy is the default.
    """
    environ = os.environ if environ is None else environ
    template = environ.get("TFSERVE_NB_PROXY_URL")
    if template is None and "JUPYTERHUB_SERVICE_PREFIX" in environ:
        template = "{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/"
    if template is None:
        return None
    try:
        return template.format(**{**environ, "port": port}).rstrip("/") + path
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidOption(
            f"TFSERVE_NB_PROXY_URL={template!r} cannot be filled in: {error}",
            hint="https://hub.example.org{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/",
        ) from error


def _register() -> None:
    if not _process.is_registered:
        _process.is_registered = True
        atexit.register(shutdown)


def _check_fits(running: H, doors: ListenOptions) -> None:
    port, auth, grpc_port, workers = doors.port, doors.auth, doors.grpc_port, doors.workers
    if workers not in (None, running.workers):
        raise InvalidOption(
            f"workers={workers}: the server of this kernel runs with {running.workers} already",
            hint="leave --workers out, or call tfserve_nb.shutdown() first",
        )
    if port not in (None, 0, running.port):
        raise InvalidOption(
            f"port={port}: the server of this kernel listens on port {running.port} already",
            hint="leave --port out, or call tfserve_nb.shutdown() first",
        )
    if grpc_port is not None and running.grpc_port is None:
        raise InvalidOption(
            f"grpc_port={grpc_port}: the server of this kernel runs without gRPC already",
            hint="call tfserve_nb.shutdown() first, then deploy again",
        )
    if grpc_port not in (None, 0, running.grpc_port):
        raise InvalidOption(
            f"grpc_port={grpc_port}: gRPC listens on port {running.grpc_port} already",
            hint="leave --grpc-port out, or call tfserve_nb.shutdown() first",
        )
    if auth is not None and auth != (running.token is not None):
        state = "asks for a token" if running.token is not None else "runs without a token"
        raise InvalidOption(
            f"the server of this kernel {state}, which holds for all its models",
            hint="call tfserve_nb.shutdown() first, then deploy again",
        )
