"""One replica on Ray Serve: a serving core with our batching, engines and protocols, which follows its `user_config`.

Ray starts replicas, gives each the requests of its proxies, and calls `reconfigure` with each new `user_config`. A
configuration that cannot be served never ends a replica that serves: it goes on with what it has, and tells why.

Thread: Ray's loop for user code; a configuration is applied on `tfserve-configure`, a daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # Ray's objects, JSON values

from ...errors import ServingError
from ...protos.postponed import postpone
from ...server import interpreter, open_files
from ...server.calls import Calls
from ...server.event_loop import run_in_thread
from ...server.settings import ServerSettings
from ...serving.configured import FollowOptions
from ...serving.core import ServingCore
from ...serving.engines.accelerated import SavedModelLoader
from ...serving.engines.saved_model.session import SessionOptions
from .http_door import HttpDoor
from .replica_model import models_of
from .served_models import ServedModels
from .services import GrpcDoor

_log = logging.getLogger("tfserve_nb.ray")
IDLE_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """How a replica is started; what it serves comes later.

    Attributes:
        follow: how models are loaded.
        session: TensorFlow's settings.
        num_run_threads: batches that may run at the same time.
        server: token and limits; its ports are Ray's business.
    """

    follow: FollowOptions
    session: SessionOptions
    num_run_threads: int
    server: ServerSettings


class Replica:
    """What Ray Serve runs as one replica.

    Args:
        settings: how it is started.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        postpone()  # versions that an engine runs need no more of TensorFlow than its messages
        open_files.raise_limit()
        interpreter.server_starts()
        self._settings = settings
        self._core = ServingCore(SavedModelLoader(settings.session), num_run_threads=settings.num_run_threads)
        self._models = ServedModels(self._core, settings.follow)
        self._name = _replica_name()
        self._started_s = time.perf_counter()
        self._revision, self._problem = "", ""
        self._is_serving = False
        self._calls: Calls | None = None
        self._http: HttpDoor | None = None
        self._grpc: GrpcDoor | None = None
        self._tidying: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: object) -> None:
        """Serve what a configuration says, while what was served goes on.

        Raises:
            ServingError: if the first one cannot be served. A later one that cannot is told by `about` instead: Ray
                would end a replica that raises here, although it answers.
        """
        if self._calls is None:
            self._open_doors()
        revision = str(user_config.get("revision", "")) if isinstance(user_config, Mapping) else ""
        try:
            models = models_of(user_config)
            await run_in_thread("tfserve-configure", lambda: self._models.apply(models))
        except ServingError as error:
            self._revision, self._problem = revision, f"{error.message}{f' (try: {error.hint})' if error.hint else ''}"
            if not self._is_serving:
                raise
            _log.error("The configuration %s is not followed: %s", revision, self._problem)
        else:
            self._revision, self._problem, self._is_serving = revision, "", True

    async def __call__(self, request: Any) -> Any:
        """Answer an HTTP request."""
        assert self._http is not None  # noqa: S101 - Ray configures a replica before it gives it requests
        return await self._http.answer(request)

    # gRPC's methods by their names on the wire; Ray passes its context by the parameter's name.

    async def Predict(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `PredictionService`."""
        return await self._answer("Predict", request, grpc_context)

    async def Classify(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `PredictionService`."""
        return await self._answer("Classify", request, grpc_context)

    async def Regress(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `PredictionService`."""
        return await self._answer("Regress", request, grpc_context)

    async def MultiInference(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `PredictionService`."""
        return await self._answer("MultiInference", request, grpc_context)

    async def GetModelMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `PredictionService`."""
        return await self._answer("GetModelMetadata", request, grpc_context)

    async def GetModelStatus(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `ModelService`."""
        return await self._answer("GetModelStatus", request, grpc_context)

    async def HandleReloadConfigRequest(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """See `ModelService`; a replica follows Ray's configuration only."""
        return await self._answer("HandleReloadConfigRequest", request, grpc_context)

    async def _answer(self, method: str, request: Any, grpc_context: Any) -> Any:
        assert self._grpc is not None  # noqa: S101 - see `__call__`
        return await self._grpc.answer(method, request, grpc_context)

    def __del__(self) -> None:
        """Ray's way to say that the replica ends: running requests are over."""
        if not hasattr(self, "_tidying"):
            return  # it could not be made
        if self._tidying is not None:
            self._tidying.cancel()
        self._models.stop()
        self._core.stop()

    def about(self) -> dict[str, Any]:
        """What the replica tells of itself.

        `revision` names the configuration that it got last, and `problem` why it does not serve it, or is empty.
        """
        return {
            "replica": self._name,
            "node": socket.gethostname(),
            "pid": os.getpid(),
            "revision": self._revision,
            "problem": self._problem,
            "running": 0 if self._calls is None else self._calls.num_running,
            "up_s": round(time.perf_counter() - self._started_s, 1),
            "serving": [model.to_json() for model in self._models.models],
            "on_disk": {name: list(self._models.on_disk(name)) for name in self._core.names},
        }

    def _open_doors(self) -> None:
        """Make what belongs to the loop."""
        loop, server = asyncio.get_running_loop(), self._settings.server
        self._core.start()
        self._models.start()
        self._calls = Calls(self._core, loop)
        self._http = HttpDoor(self._calls, server, self._core, self.about, self._name, _log)
        self._grpc = GrpcDoor(self._calls, server, _log)
        self._tidying = loop.create_task(self._tidy(self._calls))

    @staticmethod
    async def _tidy(calls: Calls) -> None:
        while True:
            await asyncio.sleep(IDLE_LOOK_S)
            interpreter.collect_when_idle(is_idle=not calls.num_running)


def application_of(replica: type[Replica], flags: list[str]) -> Any:
    """Ray Serve's application of one deployment.

    Args:
        replica: its class; it is made with the flags.
        flags: those of `tfserve-nb serve`.
    """
    from ray import serve

    from .config import DEPLOYMENT

    return serve.deployment(replica, name=DEPLOYMENT).bind(flags)


def _replica_name() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_tag)
