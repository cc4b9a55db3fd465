"""What Ray tells of a deployment: its replicas, how it scales, whether it could be started.

Thread: any; immutable, pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any  # JSON values

from ...errors import ModelNotFound
from ...server.paths import ADMIN
from ...types import ModelStatus
from .config import APPLICATION, DEPLOYMENT

MOST_EVENTS = 20
REPLICA = f"{ADMIN}/replica"
"""Where a replica tells of itself."""
REPLICA_HEADER = "X-TFServe-Replica"
"""Names the replica that answered a request of the admin API."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica.

    Attributes:
        name: Ray's id of it.
        state: `STARTING`, `UPDATING`, `RUNNING`, `STOPPING`, ...
        node: the address of its node.
        pid: its process, or None before there is one.
        started_at: seconds since the epoch.
        running: requests that it works on, when it was asked; None when it did not answer.
        problem: why it does not serve the latest configuration, or "".
    """

    name: str
    state: str
    node: str
    pid: int | None
    started_at: float
    running: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ScalingEvent:
    """Ray wants more replicas, or fewer.

    Attributes:
        at: when it was seen, in seconds since the epoch.
        before: replicas wanted until then.
        after: replicas wanted since.
        reason: Ray's words; may be empty.
    """

    at: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class RayState:
    """The whole deployment.

    Attributes:
        status: of the application: `DEPLOYING`, `RUNNING`, `UNHEALTHY`, `DEPLOY_FAILED`, `DELETING`, ...
        message: why, in Ray's words; may have several lines.
        wanted: replicas that Ray wants now.
        replicas: those that there are.
        scaling: the newest changes of `wanted` that were seen, oldest first; Ray keeps none of them.
    """

    status: str
    message: str
    wanted: int
    replicas: tuple[ReplicaState, ...]
    scaling: tuple[ScalingEvent, ...] = ()

    @property
    def num_running(self) -> int:
        """Replicas that answer."""
        return sum(replica.state == "RUNNING" for replica in self.replicas)

    @property
    def ongoing(self) -> int:
        """Requests that the replicas that answered work on."""
        return sum(replica.running or 0 for replica in self.replicas)

    @property
    def problem(self) -> str:
        """One line about what needs a person, or ""."""
        told = next((replica.problem for replica in self.replicas if replica.problem), "")
        if told or self.status in ("RUNNING", "DEPLOYING"):
            return told
        return f"Ray says {self.status}: {last_line(self.message)}"

    @property
    def is_settled(self) -> bool:
        """Whether every replica has what was deployed last."""
        return self.status == "RUNNING" and all(one.state in ("RUNNING", "STOPPING") for one in self.replicas)

    def with_reports(self, reports: Iterable[Mapping[str, Any]]) -> RayState:
        """The same with what replicas told of themselves."""
        told = {str(report.get("replica", "")): report for report in reports}
        replicas = tuple(
            replace(one, running=int(told[one.name]["running"]), problem=str(told[one.name]["problem"]))
            if one.name in told
            else one
            for one in self.replicas
        )
        return replace(self, replicas=replicas)


@dataclass(frozen=True, slots=True)
class RayModelStatus(ModelStatus):
    """What a model on Ray serves, and by which replicas.

    Attributes:
        ray: the deployment.
    """

    ray: RayState = RayState("", "", 0, ())


def state_of(details: Mapping[str, Any]) -> RayState:
    """Read Ray's answer.

    Raises:
        ModelNotFound: if our application is not deployed there.
    """
    application = details.get("applications", {}).get(APPLICATION)
    if application is None:
        raise ModelNotFound("nothing of tfserve_nb is deployed on this cluster", hint="d.to_ray(address=...)")
    deployment = application.get("deployments", {}).get(DEPLOYMENT, {})
    return RayState(
        status=str(application.get("status", "")),
        message="\n".join(filter(None, [application.get("message"), deployment.get("message")])),
        wanted=int(deployment.get("target_num_replicas") or 0),
        replicas=tuple(
            ReplicaState(
                name=str(one.get("replica_id", "")),
                state=str(one.get("state", "")),
                node=str(one.get("node_ip") or ""),
                pid=one.get("pid"),
                started_at=float(one.get("start_time_s") or 0),
            )
            for one in deployment.get("replicas") or ()
        ),
    )


def last_line(text: str) -> str:
    """The last line of a traceback, where its error stands."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("tfserve_nb.errors.") if lines else ""
