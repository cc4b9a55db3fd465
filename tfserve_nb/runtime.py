"""What one process serves: the core and the HTTP server around it. There is at most one.

Thread: any; a lock guards starting and stopping. The server starts with the first deploy and stops when nothing is
served any more, at `shutdown()` and at the end of the process.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from collections.abc import Mapping
from urllib.parse import quote

from .errors import InvalidOption, PortInUse
from .server.settings import ServerSettings
from .server.thread import ServerThread
from .serving.core import ServingCore

HOST = "127.0.0.1"


class Runtime:
    """The core and its server; made by `ensure`, ended by `shutdown`.

    Args:
        port: TCP port, 0 for a free one.
        token: what requests must carry, or None for no authentication.
    """

    def __init__(self, port: int, token: str | None) -> None:
        self.token = token
        self.core = ServingCore()
        self.server = ServerThread(self.core, ServerSettings(host=HOST, port=port, token=token))

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self.server.port

    def start(self) -> None:
        """Start core and server, or nothing.

        Raises:
            PortInUse: if the port is taken.
            ServerFailed: if a thread does not start.
        """
        self.core.start()
        try:
            self.server.start()
        except BaseException:
            self.core.stop()
            raise

    def stop(self) -> None:
        """Stop both; requests that run get a moment to finish. Idempotent, below 2 s."""
        self.server.stop()
        self.core.stop()

    def rest_url(self, model: str) -> str:
        """Where TensorFlow Serving's REST API answers for a model, from this machine."""
        return f"http://{HOST}:{self.port}/v1/models/{quote(model, safe='')}"


class _Process:
    """The runtime of this process, and what the next one takes over from the last."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runtime: Runtime | None = None
        self.last_port = 0
        self.last_token: str | None = None
        self.is_registered = False


_process = _Process()


def current() -> Runtime | None:
    """The runtime, if something is served."""
    return _process.runtime


def ensure(port: int | None = None, *, with_token: bool | None = None) -> Runtime:
    """The runtime, started if need be.

    Args:
        port: the TCP port wanted, or None for any; a process that served before gets its old port when it is free.
        with_token: whether requests must carry a token; None for yes, or as it is when the server runs already.

    Raises:
        InvalidOption: if a server runs already with another port or token setting.
        PortInUse: if the port is taken.
    """
    with _process.lock:
        running = _process.runtime
        if running is not None:
            _check_fits(running, port, with_token)
            return running
        token = None if with_token is False else _process.last_token or secrets.token_urlsafe(32)
        try:
            runtime = Runtime(_process.last_port if port is None else port, token)
            runtime.start()
        except PortInUse:
            if port is not None or not _process.last_port:
                raise
            runtime = Runtime(0, token)
            runtime.start()
        _process.runtime = runtime
        _process.last_port, _process.last_token = runtime.port, token or _process.last_token
        if not _process.is_registered:
            _process.is_registered = True
            atexit.register(shutdown)
        return runtime


def stop_if_idle() -> None:
    """Stop the server when no model is served."""
    with _process.lock:
        if _process.runtime is not None and not _process.runtime.core.names:
            shutdown()


def shutdown() -> None:
    """Stop serving. Idempotent, below 2 s, also at the end of the process."""
    with _process.lock:
        runtime, _process.runtime = _process.runtime, None
    if runtime is not None:
        runtime.stop()


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


def _check_fits(running: Runtime, port: int | None, with_token: bool | None) -> None:
    if port not in (None, 0, running.port):
        raise InvalidOption(
            f"port={port}: the server of this kernel listens on port {running.port} already",
            hint="leave --port out, or call tfserve_nb.shutdown() first",
        )
    if with_token is not None and with_token != (running.token is not None):
        state = "asks for a token" if running.token is not None else "runs without a token"
        raise InvalidOption(
            f"the server of this kernel {state}, which holds for all its models",
            hint="call tfserve_nb.shutdown() first, then deploy again",
        )
