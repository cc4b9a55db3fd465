"""Where models are served: in this kernel, in a child process of it, or on a server elsewhere.

Thread: any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from ..errors import ServingError
from ..experiment.admin import ExperimentAdmin
from ..experiment.engine.experiments import Experiments
from ..serving.admin import ModelAdmin
from ..serving.core import ServingCore
from ..types import Progress, no_progress
from .admin.client import RemoteExperiments, RemoteModels
from .child import ChildServer
from .settings import GrpcSettings, ServerSettings
from .thread import Extras, ServerThread

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """How a server of this process is reached; None stands for "as it is, or the default".

    Attributes:
        port: TCP port of HTTP, 0 for a free one.
        with_token: whether requests must carry a token.
        grpc_port: TCP port of gRPC, 0 for a free one; by default there is no gRPC.
        frontends: processes that hold HTTP and gRPC in front of the core; by default none.
    """

    port: int | None = None
    with_token: bool | None = None
    grpc_port: int | None = None
    frontends: int | None = None


class Home(Protocol):
    """A server with models."""

    token: str | None

    @property
    def core(self) -> ModelAdmin:
        """What administers its models."""

    @property
    def experiments(self) -> ExperimentAdmin:
        """What compares their versions."""

    @property
    def url(self) -> str:
        """Where HTTP answers, without a path."""

    @property
    def port(self) -> int | None:
        """The HTTP port, when the server runs on this machine."""

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC answers, or None."""

    def remember(self, name: str, base_path: Path) -> None:
        """Note that a model is about to be served from a folder."""

    def forget(self, name: str) -> None:
        """The inverse of `remember`."""


def rest_url(home: Home, model: str) -> str:
    """Where TensorFlow Serving's REST API answers for a model."""
    return f"{home.url}/v1/models/{quote(model, safe='')}"


class KernelHome:
    """The core and its server in this process.

    Args:
        port: TCP port, 0 for a free one.
        token: what requests must carry, or None for no authentication.
        doors: gRPC and front ends.
    """

    def __init__(self, port: int, token: str | None, doors: ListenOptions) -> None:
        self.token = token
        self.core = ServingCore()
        self.experiments = Experiments(self.core)
        self.frontends = doors.frontends or 0
        grpc = None if doors.grpc_port is None else GrpcSettings(host=HOST, port=doors.grpc_port)
        settings = ServerSettings(host=HOST, port=port, token=token, grpc=grpc, frontends=self.frontends)
        self.server = ServerThread(self.core, settings, Extras(admin=self.core, experiments=self.experiments))

    @property
    def url(self) -> str:
        """Where HTTP answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self.server.port

    @property
    def grpc_port(self) -> int | None:
        """The port of gRPC, or None."""
        return self.server.grpc_port or None

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC answers, or None."""
        return f"{HOST}:{self.grpc_port}" if self.grpc_port else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is served."""
        return not self.core.names

    def remember(self, name: str, base_path: Path) -> None:
        """The core knows by itself."""

    def forget(self, name: str) -> None:
        """The core knows by itself."""

    def start(self, progress: Progress = no_progress) -> None:
        """Start core and server, or nothing.

        Raises:
            PortInUse: if the port is taken.
            ServerFailed: if a thread does not start.
        """
        del progress  # takes milliseconds
        self.core.start()
        try:
            self.server.start()
        except BaseException:
            self.core.stop()
            raise

    def stop(self) -> None:
        """Stop both; requests that run get a moment to finish. Idempotent, below 2 s."""
        self.server.stop()
        self.experiments.stop()
        self.core.stop()


class ChildHome:
    """A server in a child process, which a busy kernel cannot slow down.

    When the process dies, a new one takes its port and serves the same models again, from the state that is stored
    beside them.

    Args:
        token: what requests must carry.
        doors: ports and front ends.
    """

    def __init__(self, token: str, doors: ListenOptions) -> None:
        self.token: str | None = token
        self.frontends = doors.frontends or 0
        self.child = ChildServer(doors.port, doors.grpc_port, token, self._resume, frontends=self.frontends)
        self.core = RemoteModels(self.child.url, token, unavailable_reason=self.child.problem)
        self.experiments = RemoteExperiments(self.core)
        self._folders: dict[str, Path] = {}

    @property
    def url(self) -> str:
        """Where HTTP answers."""
        return self.child.url

    @property
    def port(self) -> int:
        """The port of HTTP."""
        return self.child.port

    @property
    def grpc_port(self) -> int | None:
        """The port of gRPC, or None."""
        return self.child.grpc_port

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC answers, or None."""
        return f"{HOST}:{self.grpc_port}" if self.grpc_port else None

    @property
    def folders(self) -> Mapping[str, Path]:
        """Model -> the folder that it is served from."""
        return dict(self._folders)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is served."""
        return not self._folders

    def remember(self, name: str, base_path: Path) -> None:
        """Note what to bring back when the process dies."""
        self._folders[name] = base_path

    def forget(self, name: str) -> None:
        """The inverse of `remember`."""
        self._folders.pop(name, None)

    def start(self, progress: Progress = no_progress) -> None:
        """Start the process; returns when it answers.

        Raises:
            ServerFailed: if it does not.
        """
        self.child.start(progress)

    def stop(self) -> None:
        """End the process. Idempotent, bounded."""
        self.child.stop()

    def _resume(self) -> None:
        """Serve everything again; on the thread that watches the process."""
        for name, folder in self.folders.items():
            with contextlib.suppress(ServingError):  # its status says what is wrong
                self.core.resume(folder, name)


@dataclass(slots=True)
class ProcessHome:
    """The core of this process, when `tfserve-nb serve` is what runs in it.

    Attributes:
        core: the models.
        experiments: what compares their versions.
        url: where HTTP answers.
        port: its port.
        token: what requests must carry.
        grpc_address: where gRPC answers, or None.
    """

    core: ServingCore
    experiments: ExperimentAdmin
    url: str = ""
    port: int | None = None
    token: str | None = None
    grpc_address: str | None = None

    def remember(self, name: str, base_path: Path) -> None:
        """The core knows by itself."""

    def forget(self, name: str) -> None:
        """The core knows by itself."""


class RemoteHome:
    """A server elsewhere.

    Args:
        url: such as `https://host:8501`.
        token: what it asks for, or None.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token
        self.core = RemoteModels(url, token)
        self.experiments = RemoteExperiments(self.core)

    def __eq__(self, other: object) -> bool:
        """The same server, asked with the same token: handles of it are the same deployment and share a dashboard."""
        return isinstance(other, RemoteHome) and (other.url, other.token) == (self.url, self.token)

    def __hash__(self) -> int:
        return hash((self.url, self.token))

    @property
    def port(self) -> None:
        """None: proxies of this machine do not lead there."""
        return

    @property
    def grpc_address(self) -> None:
        """None: the admin API does not tell it."""
        return

    @property
    def host(self) -> str:
        """The server's name."""
        return urlsplit(self.url).hostname or ""

    def remember(self, name: str, base_path: Path) -> None:
        """The server knows by itself."""

    def forget(self, name: str) -> None:
        """The server knows by itself."""
