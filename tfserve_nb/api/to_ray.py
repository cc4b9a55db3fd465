"""From a deployment to replicas on Ray: the same model, versions, labels, traffic, limits and token.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # options of a deployment

from ..errors import InvalidOption, ModelNotFound, NotAvailable
from ..scaleout.ray.cluster import check_installed, free_ports
from ..scaleout.ray.config import RayPlan
from ..scaleout.ray.deploy import RayServer, RayTarget, serve_on_ray
from ..scaleout.ray.replica_model import ReplicaModel
from ..server.child import make_token
from ..server.handle import ServerHandle
from ..serving.batching.options import BatchingOptions
from ..types import Progress

_SWITCHES = frozenset({"deploy", "promote", "rollback"})


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How `Deployment.to_ray` starts replicas; its arguments are described there."""

    address: str | None = None
    min_replicas: int = 1
    max_replicas: int = 3
    port: int | None = None
    grpc_port: int | None = None
    auth_token_file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def server_on_ray(server: ServerHandle, name: str, given: RayOptions, progress: Progress) -> RayServer:
    """Start replicas of a model that is served; see `Deployment.to_ray`.

    Raises:
        ServingError: why that cannot be.
    """
    if given.address is None:
        check_installed()
        free = free_ports(2)
        token = server.token or make_token()
        flags: tuple[str, ...] = ()
    else:
        free = [8501, 8500]
        token, flags = _given_token(given.auth_token_file, server.token)
    model, engine = model_of(server, name)
    plan = RayPlan(
        models=(model,),
        flags=(*flags, *([f"--engine={engine}"] if engine != "tensorflow" else [])),
        min_replicas=given.min_replicas,
        max_replicas=given.max_replicas,
        host="127.0.0.1" if given.address is None else "0.0.0.0",  # noqa: S104 - a cluster is there to be reached
        port=given.port or free[0],
        grpc_port=given.grpc_port or free[1],
        options=given.options,
    )
    return serve_on_ray(plan, RayTarget(given.address, token, given.environment), progress)


def model_of(server: ServerHandle, name: str) -> tuple[ReplicaModel, str]:
    """A model as replicas are to serve it, and the engine that runs it.

    Raises:
        ModelNotFound: if no version answers.
        NotAvailable: if its files are not on this machine.
    """
    models = server.models
    status, loaded, base = models.model_status(name), models.available(name), models.base_path(name)
    if status.default_version is None or not loaded:
        raise ModelNotFound(f"{name} has no version that answers", hint="deploy it first")
    if base is None or not server.is_on_this_machine:
        raise NotAvailable(f"the files of {name} are not on this machine", hint="tfserve-nb ray, there")
    folder = base / name if (base / name).is_dir() else base
    switches = [event for event in reversed(models.history(name)) if event.action in _SWITCHES]
    earlier = dict.fromkeys(event.version for event in switches if event.version in loaded)
    promoted = [version for version in earlier if version is not None and version != status.default_version]
    engine = next((one.engine for one in status.versions if one.version == status.default_version), "tensorflow")
    model = ReplicaModel(
        name=name,
        base_path=str(folder.absolute()),
        versions=tuple(sorted(loaded)),
        traffic=dict(status.traffic),
        labels={label: version for label, version in status.labels.items() if version in loaded},
        promoted=(*promoted, status.default_version),
        batching={
            one.version: BatchingOptions.from_json(one.batching)
            for one in status.versions
            if one.version in loaded and one.batching
        },
    )
    return model, engine


def _given_token(path: str | None, known: str | None) -> tuple[str, tuple[str, ...]]:
    """The token of replicas elsewhere, and the flag that names its file there.

    Raises:
        InvalidOption: if no file is named.
    """
    if path is None:
        raise InvalidOption(
            "replicas on another cluster need a file with their token, which every node has under the same path",
            hint='d.to_ray(address, auth_token_file="/etc/tfserve/token")',
        )
    try:
        token: str | None = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # it is on the nodes, and not here
        token = known
    if not token:
        raise InvalidOption(f"auth_token_file={path} cannot be read here, and d has no token", hint="copy it here")
    return token, (f"--auth_token_file={path}",)
