"""The servers of one process: at most one in a thread of the kernel, and at most one in a child process.

A server starts with the first deploy and stops when it serves nothing any more, at `shutdown()` and at the end of the
process. Its modules import Tornado and the codecs; they are imported when a server starts, so that `%load_ext` and
reading a signature stay fast.

Thread: any; a lock guards starting and stopping.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from ..errors import InvalidOption, PortInUse, ServingError
from ..options import number_or_auto, option
from ..server.child import ChildServer, make_token
from ..server.handle import ServerHandle
from ..server.settings import AUTO_WORKERS, check_workers, num_cores, num_workers
from ..types import Progress, no_progress

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """How a server of this process is reached; None stands for "as it is, or the default"."""

    port: int | None = option(
        None, "TCP port when the server starts; an error if it is taken", metavar="PORT", shown="a free one"
    )
    grpc_port: int | None = option(
        None, "gRPC too; 0 for a free port, see `d.grpc_address`", metavar="PORT", shown="no gRPC"
    )
    workers: int | str | None = option(
        None,
        "processes that take HTTP, gRPC and decoding off the server's hands, for many clients; `auto` for as many as "
        "fit the cores, and none in the kernel",
        flags=("--workers", "--frontends"),
        metavar="N|auto",
        parse=number_or_auto,
        shown="0",
    )
    auth: bool | None = option(None, "start the server without a token, for benchmarks", flags=("--no-auth",))

    def __post_init__(self) -> None:
        if self.workers not in (None, AUTO_WORKERS):
            check_workers(self.workers)


ANY = ListenOptions()


class KernelServer:
    """The core and its server in threads of this process; it serves once the object is made.

    Args:
        port: TCP port of HTTP, 0 for a free one.
        token: what requests must carry, or None for no authentication.
        wanted: gRPC and worker processes.

    Attributes:
        handle: reaches it.
        listening: what it was started with, all values known.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if a thread does not start.
    """

    def __init__(self, port: int, token: str | None, wanted: ListenOptions) -> None:
        from ..experiment.engine.experiments import Experiments
        from ..server.settings import GrpcSettings, ServerSettings
        from ..server.thread import ServerFeatures, ServerThread
        from ..serving.core import ServingCore

        grpc = None if wanted.grpc_port is None else GrpcSettings(host=HOST, port=wanted.grpc_port)
        workers = _workers(wanted, auto=0)  # a notebook has few clients, and its cells want the other cores
        settings = ServerSettings(host=HOST, port=port, token=token, grpc=grpc, workers=workers)
        self._core = ServingCore()
        self._experiments = Experiments(self._core)
        self._thread = ServerThread(
            self._core, settings, ServerFeatures(admin=self._core, experiments=self._experiments)
        )
        self._core.start()
        try:
            self._thread.start()
        except BaseException:
            self._core.stop()
            raise
        self.listening = ListenOptions(
            self._thread.port, self._thread.grpc_port or None, settings.workers, auth=token is not None
        )
        url = f"http://{HOST}:{self._thread.port}"
        grpc_address = _grpc_address(self.listening.grpc_port)
        self.handle = ServerHandle("in_kernel", self._core, self._experiments, url, token, grpc_address)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that it serves."""
        return self._core.names

    def folder_of(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, or None when it is not served."""
        return self._core.base_path(name)

    def stop(self) -> None:
        """Stop; requests that run get a moment to finish. Idempotent, below 2 s."""
        self._thread.stop()
        self._experiments.stop()
        self._core.stop()


class IsolatedServer:
    """A server in a child process, which a busy kernel cannot slow down; it serves once the object is made.

    When the process dies, a new one takes its port and serves the same models again, from the state that is stored
    beside them.

    Args:
        token: what requests must carry.
        wanted: ports and worker processes.
        progress: called with the steps of the start.

    Attributes:
        handle: reaches it.
        listening: what it was started with, all values known.

    Raises:
        ServerFailed: if the process does not start.
    """

    def __init__(self, token: str, wanted: ListenOptions, progress: Progress = no_progress) -> None:
        from ..server.admin.client import RemoteExperiments, RemoteModels

        workers = _workers(wanted, auto=num_workers(num_cores()))
        self._folders: Mapping[str, Path] = {}
        self._child = ChildServer(
            wanted.port, wanted.grpc_port, token, self._resume, workers=workers, models=lambda: self._folders
        )
        self._models = RemoteModels(self._child.url, token, unavailable_reason=self._child.problem)
        self._resuming = RemoteModels(self._child.url, token)
        self.listening = ListenOptions(self._child.port, self._child.grpc_port, workers, auth=True)
        grpc_address = _grpc_address(self._child.grpc_port)
        experiments = RemoteExperiments(self._models)
        self.handle = ServerHandle("in_child", self._models, experiments, self._child.url, token, grpc_address)
        self._child.start(progress)

    @property
    def is_given_up(self) -> bool:
        """Whether its process died too often to be started again without being asked."""
        return self._child.is_given_up

    @property
    def names(self) -> tuple[str, ...]:
        """The models that it serves, or that a new process is about to serve again."""
        return tuple(self._folders)

    def folder_of(self, name: str) -> Path | None:
        """As `KernelServer.folder_of`; what was noted, since no process may run now."""
        return self._folders.get(name)

    def start_anew(self, progress: Progress) -> None:
        """Start a new process if none is left, because it died too often, and serve the same models again."""
        if self._child.start_anew(progress):
            self._resume()

    def note_folders(self) -> None:
        """Note which models it serves and where they lie, for the process that may have to take its place."""
        if self._child.problem():
            return  # a new process is loading what was noted before
        with contextlib.suppress(ServingError):  # it died just now: what was noted before counts
            found = {name: self._models.base_path(name) for name in self._models.names}
            self._folders = {name: folder for name, folder in found.items() if folder is not None}

    def give_up(self, name: str, *, delete: bool, force: bool) -> None:
        """Undeploy a model although no process runs that serves it; see `ModelAdmin.undeploy`."""
        from ..serving.engines.accelerated import SavedModelLoader
        from ..serving.models.model import ServedModel
        from ..serving.models.placement import DEFAULT_KEEP
        from ..serving.versions.lifecycle import ServableManager

        model = ServedModel(name, self._folders[name], DEFAULT_KEEP, ServableManager(SavedModelLoader()))
        model.forget(model.deletable(None, force=force) if delete else (), force=force)
        self._folders = {other: folder for other, folder in self._folders.items() if other != name}

    def stop(self) -> None:
        """End the process. Idempotent, bounded."""
        self._child.stop()
        self._models.connection.close()

    def _resume(self) -> None:
        """Serve all models again; on the thread that watches the process."""
        for name, folder in self._folders.items():
            with contextlib.suppress(ServingError):  # its status holds the reason
                self._resuming.resume(folder, name)
        self._resuming.connection.close()


@dataclass(slots=True)
class _Process:
    """The servers of this process, and the port and tokens that the next ones take over."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    kernel: KernelServer | None = None
    child: IsolatedServer | None = None
    last_port: int = 0
    last_token: str | None = None
    last_child_token: str | None = None
    is_registered: bool = False

    def servers(self) -> tuple[KernelServer | IsolatedServer, ...]:
        """Those that run."""
        return tuple(server for server in (self.kernel, self.child) if server is not None)


_process = _Process()


def served() -> dict[str, ServerHandle]:
    """Model -> the server of this process that serves it, by name."""
    found = {name: server.handle for server in _process.servers() for name in server.names}
    return dict(sorted(found.items()))


def server_of(name: str) -> ServerHandle | None:
    """The server of this process that serves a model, or None."""
    return served().get(name)


def folder_of(name: str) -> Path | None:
    """The folder that the versions of a model lie in which this process serves, or None; asks no other process."""
    folders = (server.folder_of(name) for server in _process.servers())
    return next((folder for folder in folders if folder is not None), None)


def lost_models() -> tuple[str, ...]:
    """The models of a child process that died too often, which `ensure_child` starts anew; () while it runs."""
    child = _process.child
    return child.names if child is not None and child.is_given_up else ()


def undeploy_lost(name: str, *, delete: bool, force: bool) -> bool:
    """Undeploy one of the `lost_models`; False when it is none of them."""
    with _process.lock:
        child = _process.child
        if child is None or name not in lost_models():
            return False
        child.give_up(name, delete=delete, force=force)
        return True


def workers_in_words(server: ServerHandle) -> str:
    """How many workers a server of this process runs with that was asked for `auto`, and why."""
    running = next((one.listening.workers for one in _process.servers() if one.handle is server), 0)
    if server.kind == "in_kernel" and not running:
        return "workers: none (auto: in the kernel they would take cores from the cells; --isolate for many clients)"
    return f"workers: {running or 'none'} (auto: {num_cores()} cores)"


def ensure_kernel(wanted: ListenOptions = ANY) -> ServerHandle:
    """The server in the kernel, started if need be.

    Args:
        wanted: its addresses and token; a process that served before gets its old port when it is free.

    Raises:
        InvalidOption: if a server runs already with other settings.
        PortInUse: if the port is taken.
    """
    with _process.lock:
        if _process.kernel is not None:
            _check_fits(_process.kernel.listening, wanted)
            return _process.kernel.handle
        token = None if wanted.auth is False else _process.last_token or make_token()
        try:
            server = KernelServer(_process.last_port if wanted.port is None else wanted.port, token, wanted)
        except PortInUse:
            if wanted.port is not None or not _process.last_port:
                raise
            server = KernelServer(0, token, wanted)
        _process.kernel = server
        _process.last_port, _process.last_token = server.listening.port or 0, token or _process.last_token
        _stop_at_exit()
        return server.handle


def ensure_child(wanted: ListenOptions = ANY, progress: Progress = no_progress) -> ServerHandle:
    """The server in a child process, started if need be; as `ensure_kernel`. It always asks for a token.

    One that died too often is started anew, with its models.

    Raises:
        InvalidOption: if it runs already with other settings, or has a token and `auth` is False.
        ServerFailed: if the process does not start.
    """
    if wanted.auth is False:
        raise InvalidOption("an isolated server always asks for a token", hint="leave --no-auth or --isolate out")
    with _process.lock:
        if _process.child is not None:
            _check_fits(_process.child.listening, replace(wanted, auth=None))
            _process.child.start_anew(progress)
            return _process.child.handle
        # Not the token of the kernel's server: who learns one of them must not have the other.
        token = _process.last_child_token or make_token()
        _process.child, _process.last_child_token = IsolatedServer(token, wanted, progress), token
        _stop_at_exit()
        return _process.child.handle


def settle() -> None:
    """After a change: note what the child serves, and stop the servers that serve no model."""
    with _process.lock:
        kernel, child = _process.kernel, _process.child
        if kernel is not None and not kernel.names:
            _process.kernel = None
            kernel.stop()
        if child is not None:
            child.note_folders()
            if not child.names:
                _process.child = None
                child.stop()


def shutdown() -> None:
    """Stop the servers of this process and free all models; files and stored state stay. Idempotent, bounded."""
    with _process.lock:
        stopping = _process.servers()
        _process.kernel = _process.child = None
    for server in stopping:
        server.stop()


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


def _workers(wanted: ListenOptions, *, auto: int) -> int:
    """The workers of a server that starts now; `auto` is what that word means for it."""
    if wanted.workers == AUTO_WORKERS:
        return auto
    return wanted.workers if isinstance(wanted.workers, int) else 0


def _grpc_address(port: int | None) -> str | None:
    return f"{HOST}:{port}" if port else None


def _stop_at_exit() -> None:
    if not _process.is_registered:
        _process.is_registered = True
        atexit.register(shutdown)


def _check_fits(running: ListenOptions, wanted: ListenOptions) -> None:
    """Refuse what a server that runs already cannot become."""
    here = "the server of this kernel"
    if wanted.workers not in (None, AUTO_WORKERS, running.workers):
        _refuse(f"workers={wanted.workers}: {here} runs with {running.workers} already", "--workers")
    if wanted.port not in (None, 0, running.port):
        _refuse(f"port={wanted.port}: {here} listens on port {running.port} already", "--port")
    if wanted.grpc_port is not None and running.grpc_port is None:
        _refuse(f"grpc_port={wanted.grpc_port}: {here} runs without gRPC already")
    if wanted.grpc_port not in (None, 0, running.grpc_port):
        _refuse(f"grpc_port={wanted.grpc_port}: gRPC listens on port {running.grpc_port} already", "--grpc-port")
    if wanted.auth is not None and wanted.auth != running.auth:
        state = "asks for a token" if running.auth else "runs without a token"
        _refuse(f"{here} {state}, which holds for all its models")


def _refuse(problem: str, flag: str = "") -> NoReturn:
    """Say what a running server has already; a flag that asks for something else can be left out."""
    stop = "call tfserve_nb.shutdown() first"
    raise InvalidOption(problem, hint=f"leave {flag} out, or {stop}" if flag else f"{stop}, then deploy again")
