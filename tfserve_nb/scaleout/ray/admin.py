"""Models on Ray, administered as those of any server: a change is a new configuration that all replicas follow.

What is read comes from the replicas, through the address that clients use. A request reaches one of them, so those of
all are asked for until each has answered, or enough have been tried.

Thread: any. Changes of one handle are made one after the other.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any  # JSON values
from urllib.parse import quote, urlencode

from ...errors import ConfigRejected, ModelNotFound, NotAvailable, ServingError, Unimplemented, VersionNotFound
from ...serialization import from_json
from ...server.admin.client import RemoteModels
from ...server.admin.operations import PREFIX, READ_S, Operation
from ...serving.models.routing import Routing
from ...serving.telemetry.model_metrics import ModelMetrics
from ...types import ModelStatus, Progress, ProgressEvent, no_progress
from .combined_metrics import combined_metrics
from .config import APPLICATION, DEPLOYMENT, check_range
from .replica_model import ReplicaModel, models_of
from .serve_api import ServeApi
from .state import (
    MOST_EVENTS,
    REPLICA,
    REPLICA_HEADER,
    RayModelStatus,
    RayState,
    ScalingEvent,
    last_line,
    state_of,
)

POLL_S = 0.2
CHANGE_LIMIT_S = 300.0
TRIES_EACH = 4
"""Requests for each replica, on average, until all have answered."""


class RayModels(RemoteModels):
    """A `ModelAdmin` for models on Ray Serve.

    Args:
        api: of the cluster.
        url: where REST answers.
        token: what requests must carry.
    """

    def __init__(self, api: ServeApi, url: str, token: str | None) -> None:
        super().__init__(url, token)
        self._api = api
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        self._wanted = 0
        self._scaling: deque[ScalingEvent] = deque(maxlen=MOST_EVENTS)

    # --- what is read --------------------------------------------------------------------------------------------

    def model_status(self, name: str) -> ModelStatus:
        """The status of a model, as one of the replicas sees it, with what Ray tells of all."""
        state, reports = self._state()
        found = super().model_status(name)
        values = {field: getattr(found, field) for field in ModelStatus.__dataclass_fields__}
        on_disk = next((tuple(report["on_disk"].get(name, ())) for report in reports), found.on_disk)
        return RayModelStatus(**{**values, "problem": state.problem or found.problem, "on_disk": on_disk}, ray=state)

    def state(self) -> RayState:
        """The replicas, what they work on, and how Ray scales them."""
        return self._state()[0]

    def _state(self) -> tuple[RayState, list[Any]]:
        """The same, and what replicas told of themselves."""
        state = self._noted(state_of(self._api.details()))
        reports = self.each_replica(REPLICA, state.num_running)
        return state.with_reports(reports), reports

    def _noted(self, state: RayState) -> RayState:
        """The state with what was seen of scaling, now and before."""
        with self._noting:
            if self._wanted and state.wanted not in (0, self._wanted):
                event = ScalingEvent(time.time(), self._wanted, state.wanted, last_line(state.message))
                self._scaling.append(event)
            self._wanted = state.wanted or self._wanted
            return replace(state, scaling=tuple(self._scaling))

    def model_metrics(
        self, name: str, span_s: int = 120, step_s: int = 2, signature: str | None = None
    ) -> ModelMetrics:
        """The numbers of all replicas together."""
        query = {"span_s": span_s, "step_s": step_s, **({} if signature is None else {"signature": signature})}
        path = f"{PREFIX}/models/{quote(name, safe='')}/metrics?{urlencode(query)}"
        parts = self.each_replica(path, state_of(self._api.details()).num_running)
        if not parts:
            return super().model_metrics(name, span_s, step_s, signature)
        return combined_metrics([from_json(part, ModelMetrics) for part in parts])

    def each_replica(self, path: str, number: int) -> list[Any]:
        """What replicas answer to a GET of the admin API: of each one, as long as it is reached in a few tries."""
        found: dict[str, Any] = {}
        for _ in range(TRIES_EACH * max(1, number)):
            try:
                answer, fields = self.connection.call("GET", path, None, READ_S)
            except NotAvailable:
                break  # between two replicas, or none is there; what was answered counts
            found[fields.get(REPLICA_HEADER, "")] = answer
            if len(found) >= number:
                break
        return list(found.values())

    # --- what is changed -----------------------------------------------------------------------------------------

    def promote(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Give all traffic to a version, in all replicas."""
        self._change(name, lambda routing: routing.promote(version), progress)

    def roll_back(self, name: str, to: int | None = None, progress: Progress = no_progress) -> int:
        """Go back to an earlier version, in all replicas."""
        changed = self._change(name, lambda routing: routing.roll_back(to), progress)
        return changed.promoted[-1]

    def stage(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Load a version in all replicas, without traffic."""
        self._change(name, lambda routing: routing.stage(version), progress)

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = no_progress) -> None:
        """Point a label to a version (None removes it), in all replicas."""
        self._change(name, lambda routing: routing.with_label(label, version), progress)

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = no_progress) -> None:
        """Split the traffic between versions, in all replicas."""
        self._change(name, lambda routing: routing.with_traffic(weights), progress)

    def undeploy(self, name: str, version: int | None = None, *, delete: bool = False, force: bool = False) -> None:
        """Unload one version, or stop serving a model while there are others; files stay."""
        del force
        if delete:
            raise Unimplemented(
                "replicas on Ray do not delete files", hint="undeploy without delete, and remove the folder yourself"
            )
        if version is None:
            with self._lock:
                models = self._deployed()
                if name in models and len(models) == 1:
                    raise Unimplemented(f"{name} is the only model on Ray", hint="r.stop() ends the replicas")
                self._send(models, {other: model for other, model in models.items() if other != name}, no_progress)
            return
        self._change(name, lambda routing: routing.without(version), no_progress)

    def scale(self, min_replicas: int, max_replicas: int) -> None:
        """Let Ray run so many replicas; returns when there are as many as it wants within these bounds, and all answer.

        No replica restarts, and one that goes finishes what it works on; that is not waited for.

        Raises:
            ConfigRejected: with the reason of a replica that cannot be started; Ray goes on trying.
            InvalidOption: for a number that is not allowed.
            NotAvailable: if it takes too long.
        """
        check_range(min_replicas, max_replicas)
        with self._lock:
            details = self._api.details()
            self._noted(state_of(details))
            self._api.deploy(with_application(details, lambda ours: _with_replicas(ours, min_replicas, max_replicas)))
            self._wait_until(
                lambda state: (
                    min_replicas <= state.num_running == state.wanted <= max_replicas
                    and len(self.each_replica(REPLICA, state.num_running)) >= state.num_running
                ),
                f"there were not {min_replicas} to {max_replicas} replicas that answer",
                ("DEPLOY_FAILED",),  # unhealthy is one that has just died, and Ray starts another
            )

    def carry_out(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        """Ask a replica for what only reads.

        Raises:
            Unimplemented: for all else: one replica would do it, and the others would not.
        """
        if operation.http_method != "GET":
            raise Unimplemented(
                f"{operation.call.__name__} is not there for replicas on Ray",
                hint="promote, roll_back, stage, set_label, set_traffic and undeploy are; export new versions below "
                "the base path, and promote them",
            )
        return super().carry_out(operation, arguments)

    def _change(self, name: str, transform: Callable[[Routing], Routing], progress: Progress) -> ReplicaModel:
        """Move a model's routing in all replicas; returns when they have it."""
        with self._lock:
            models = self._deployed()
            model = models.get(name)
            if model is None:
                raise ModelNotFound(f"{name} is not served on Ray", hint=f"served: {', '.join(models) or 'none'}")
            routing = model.routing(self.available(name))
            changed = model.changed_to(transform(routing))
            self._check_there(changed)
            self._send(models, {**models, name: changed}, progress)
            return changed

    def _check_there(self, model: ReplicaModel) -> None:
        """Refuse versions that a node does not have, before anything is sent.

        Raises:
            VersionNotFound: naming the node, and the versions that it has.
        """
        wanted = sorted({*model.named, *model.needed})
        for report in self.each_replica(REPLICA, state_of(self._api.details()).num_running):
            on_disk = report["on_disk"].get(model.name, [])
            missing = [version for version in wanted if version not in on_disk]
            if missing:
                raise VersionNotFound(
                    f"{model.name} has no version {missing[0]} in {model.base_path} on the node {report['node']}; "
                    f"it has {', '.join(map(str, on_disk)) or 'none'}",
                    hint="export or copy it there; nothing was changed",
                )

    def _deployed(self) -> dict[str, ReplicaModel]:
        """The models that Ray's configuration names; when replicas refuse it, those that they serve instead."""
        details = self._api.details()
        try:
            models = models_of(_deployment_of(self._config(details))["user_config"])
        except ConfigRejected:
            serving = [report["serving"] for report in self.each_replica(REPLICA, 1)]
            if not serving:
                raise
            models = models_of({"models": serving[0]})
        return {model.name: model for model in models}

    @staticmethod
    def _config(details: Mapping[str, Any]) -> dict[str, Any]:
        """Our application's configuration, as it was sent."""
        config = details.get("applications", {}).get(APPLICATION, {}).get("deployed_app_config")
        if not config:
            raise ModelNotFound("nothing of tfserve_nb is deployed on this cluster", hint="d.to_ray(address=...)")
        return dict(config)

    def _send(self, before: Mapping[str, ReplicaModel], models: Mapping[str, ReplicaModel], progress: Progress) -> None:
        """Deploy other models, and wait until all replicas have them; the earlier ones again if that cannot be."""
        details = self._api.details()
        revision = secrets.token_hex(4)
        progress(ProgressEvent("switching", 0, 1))
        user_config = {"models": [model.to_json() for model in models.values()], "revision": revision}
        self._api.deploy(with_user_config(details, user_config))
        try:
            self._wait_for(revision)
        except ConfigRejected:
            # The replicas go on with what they had; those that are still to come shall have it too.
            earlier = {"models": [model.to_json() for model in before.values()], "revision": secrets.token_hex(4)}
            self._api.deploy(with_user_config(self._api.details(), earlier))
            raise
        progress(ProgressEvent("switching", 1, 1))

    def _wait_for(self, revision: str) -> None:
        """Wait until every replica serves a revision.

        Raises:
            ConfigRejected: with the reason of a replica that cannot.
            NotAvailable: if that takes too long.
        """

        def is_followed(state: RayState) -> bool:
            reports = self.each_replica(REPLICA, state.num_running)
            told = next((one["problem"] for one in reports if one["revision"] == revision and one["problem"]), "")
            if told:
                raise ConfigRejected(told)
            if not reports or any(one["revision"] != revision for one in reports):
                return False
            return state_of(self._api.details()).is_settled  # asked now: Ray may have begun with some replicas only

        failed = ("DEPLOY_FAILED", "UNHEALTHY")
        self._wait_until(is_followed, "the replicas did not follow the new configuration", failed)

    def _wait_until(self, is_so: Callable[[RayState], bool], otherwise: str, failed: Container[str]) -> None:
        """Wait until something holds.

        Raises:
            ConfigRejected: if Ray says that it `failed`, with its reason.
            NotAvailable: if that takes too long; the message begins with `otherwise`.
        """
        until_s = time.perf_counter() + CHANGE_LIMIT_S
        while time.perf_counter() < until_s:
            state = self._noted(state_of(self._api.details()))
            if state.status in failed:
                raise ConfigRejected(state.problem)
            if is_so(state):
                return
            time.sleep(POLL_S)
        raise NotAvailable(
            f"{otherwise} within {CHANGE_LIMIT_S:g} s: Ray says {state.status}",
            hint="r.status().ray tells what each replica does",
        )

    def base_path(self, name: str) -> Path | None:
        """The folder with the model's, if that is named as the model; else the model's; None if it is not served."""
        model = self._deployed().get(name)
        folder = None if model is None else Path(model.base_path)
        return folder.parent if folder is not None and folder.name == name else folder


def with_user_config(details: Mapping[str, Any], user_config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that Ray has, all of it, with another `user_config` for ours.

    Ray deletes applications that a new configuration does not list, so those of others are listed as they are.
    """
    return with_application(details, lambda ours: _with_deployment(ours, user_config))


def with_application(
    details: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> dict[str, Any]:
    """The configuration that Ray has, with our application changed, added or (None) left out."""
    deployed = {
        name: dict(one["deployed_app_config"])
        for name, one in details.get("applications", {}).items()
        if one.get("deployed_app_config")
    }
    ours = change(deployed.pop(APPLICATION, {}))
    kept = {name: details[name] for name in ("proxy_location", "http_options", "grpc_options") if details.get(name)}
    return {**kept, "applications": [*deployed.values(), *([] if ours is None else [ours])]}


def _with_deployment(application: Mapping[str, Any], user_config: Mapping[str, Any]) -> dict[str, Any]:
    deployment = {**_deployment_of(application), "user_config": dict(user_config)}
    return {**application, "deployments": [deployment]}


def _with_replicas(application: Mapping[str, Any], least: int, most: int) -> dict[str, Any]:
    deployment = _deployment_of(application)
    deployment.pop("num_replicas", None)  # of a configuration that somebody wrote; Ray takes one of the two
    scaling = {**(deployment.get("autoscaling_config") or {}), "min_replicas": least, "max_replicas": most}
    return {**application, "deployments": [{**deployment, "autoscaling_config": scaling}]}


def _deployment_of(application: Mapping[str, Any]) -> dict[str, Any]:
    """The options of our deployment.

    Raises:
        ServingError: if somebody else deployed something under our name.
    """
    for one in application.get("deployments", ()):
        if one.get("name") == DEPLOYMENT and "user_config" in one:
            return dict(one)
    raise ServingError(
        f"the application {APPLICATION} on this cluster has no deployment {DEPLOYMENT} with a user_config",
        hint="deploy it with d.to_ray, tfserve-nb ray or a bundle",
    )
