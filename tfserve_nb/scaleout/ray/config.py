"""The declarative configuration of Ray Serve: one application whose deployment is our server, and Ray's settings.

Ray passes over names that it does not know, so all names are checked here, before anything is sent.

Thread: any; immutable. Nothing here imports Ray.

Reference: Ray Serve's configuration file (`serve deploy`, PUT /api/serve/applications/), as of Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any  # JSON values

from ...errors import InvalidOption
from .replica_model import ReplicaModel, check_keys

IMPORT_PATH = "tfserve_nb.cli.ray_replica:application"
"""What builds the application on the cluster."""
SERVICES = "tfserve_nb.scaleout.ray.services.add_services"
"""What tells Ray's gRPC proxy the methods that there are."""
APPLICATION, DEPLOYMENT = "tfserve_nb", "Models"
TESTED_RAY = ((2, 60), (2, 61))
"""Ray's versions that were tested: from the first, up to below the second."""

DEPLOYMENT_OPTIONS = frozenset({
    "name", "num_replicas", "max_ongoing_requests", "max_queued_requests", "backpressure_config", "user_config",
    "autoscaling_config", "graceful_shutdown_wait_loop_s", "graceful_shutdown_timeout_s", "health_check_period_s",
    "health_check_timeout_s", "ray_actor_options", "placement_group_bundles", "placement_group_strategy",
    "placement_group_bundle_label_selector", "max_replicas_per_node", "logging_config", "request_router_config",
    "gang_scheduling_config", "deployment_actors", "rolling_update_percentage", "max_surge_percent",
})  # fmt: skip
"""The options of a deployment that Ray reads."""
AUTOSCALING_OPTIONS = frozenset({
    "min_replicas", "initial_replicas", "max_replicas", "target_ongoing_requests", "look_back_period_s",
    "upscaling_factor", "downscaling_factor", "upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s",
    "aggregation_function", "policy",
})  # fmt: skip
ACTOR_OPTIONS = frozenset({
    "runtime_env", "num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "label_selector",
    "fallback_strategy",
})  # fmt: skip
_NESTED = {"autoscaling_config": AUTOSCALING_OPTIONS, "ray_actor_options": ACTOR_OPTIONS}
_OWN = frozenset({"name", "user_config", "num_replicas"})
"""What the plan itself decides."""

FALLBACK_PORTS = {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": "8590", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": "8591"}
"""Ray's own default for the first, 8500, is TensorFlow Serving's port of gRPC."""
RETRY_ON = "conn-failure empty-response junk-response response-timeout\n    option http-buffer-request"
"""When HAProxy sends a request again, and a second line for its section `defaults`.

HAProxy never sends a request again that it began to pass on before the body was there, and many clients send head and
body apart; if the replica dies then, their connection is closed without an answer. The second line makes it wait for
the body. Ray has no setting for that; it copies this one into HAProxy's configuration as it is.
"""


@dataclass(frozen=True, slots=True)
class RayPlan:
    """What shall run on Ray.

    Attributes:
        models: what the replicas serve.
        flags: those of `tfserve-nb serve` that replicas are started with; of models and ports none.
        min_replicas: replicas without load.
        max_replicas: replicas at most.
        host: where REST and gRPC listen; `0.0.0.0` for every machine that can reach the cluster.
        port: TCP port of REST.
        grpc_port: TCP port of gRPC; None for no gRPC.
        request_timeout_s: when Ray itself gives a request up; the replicas' own limit is shorter.
        options: further options of the deployment, such as `max_ongoing_requests`; those of `autoscaling_config` and
            `ray_actor_options` are added to ours.
        revision: a name for this state of `models`, which replicas report once they serve it.

    Raises:
        ConfigRejected: for an option that Ray does not have.
        InvalidOption: naming the value that is not allowed.
    """

    models: tuple[ReplicaModel, ...]
    flags: tuple[str, ...] = ()
    min_replicas: int = 1
    max_replicas: int = 3
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = 8500
    request_timeout_s: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""

    def __post_init__(self) -> None:
        check_range(self.min_replicas, self.max_replicas)
        for name, port in (("port", self.port), ("grpc_port", self.grpc_port)):
            if port is not None:
                check_number(name, port, 1, 65535)
        check_options(self.options)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(model.name for model in self.models)

    def user_config(self) -> dict[str, Any]:
        """What replicas follow; another one is a reconfiguration, not a restart."""
        revision = {"revision": self.revision} if self.revision else {}
        return {"models": [model.to_json() for model in self.models], **revision}

    def deployment(self) -> dict[str, Any]:
        """The options of the deployment."""
        given = {name: value for name, value in self.options.items() if name not in _NESTED}
        autoscaling = {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": 16,
            "upscale_delay_s": 3,
            "downscale_delay_s": 60,
            "look_back_period_s": 12,  # Ray wants more than the 10 s of a setting that it does not use any more
            **self.options.get("autoscaling_config", {}),
        }
        return {
            "name": DEPLOYMENT,
            "user_config": self.user_config(),
            "autoscaling_config": autoscaling,
            "max_ongoing_requests": 256,  # Ray's default, 5, would leave nothing to batch
            "max_queued_requests": 1024,
            "max_surge_percent": 100,  # Ray's default, 0, ends the only replica before the next one answers
            "graceful_shutdown_timeout_s": 30,
            "health_check_period_s": 5,
            "health_check_timeout_s": 30,
            "logging_config": {"enable_access_log": False},  # a line for each request takes longer than a small model
            "ray_actor_options": {"num_cpus": 1, **self.options.get("ray_actor_options", {})},
            **given,
        }

    def application(self) -> dict[str, Any]:
        """The entry of `applications`."""
        return {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": IMPORT_PATH,
            "args": {"flags": [f"--host={self.host}", *self.flags]},
            "deployments": [self.deployment()],
        }

    def as_config(self) -> dict[str, Any]:
        """The whole configuration, as `serve deploy` reads it from YAML and the REST API from JSON."""
        grpc: dict[str, Any] = {} if self.grpc_port is None else {
            "grpc_options": {
                "port": self.grpc_port,
                "grpc_servicer_functions": [SERVICES],
                "enable_reflection": False,
                "request_timeout_s": self.request_timeout_s,
            }
        }  # fmt: skip
        return {
            "proxy_location": "EveryNode",
            "http_options": {
                "host": self.host,
                "port": self.port,
                "request_timeout_s": self.request_timeout_s,
                "keep_alive_timeout_s": 75,
            },
            **grpc,
            "applications": [self.application()],
        }

    @staticmethod
    def environment(*, has_haproxy: bool = True) -> dict[str, str]:
        """What every process of Ray must have in its environment, on all nodes.

        Args:
            has_haproxy: whether HAProxy, which sends a request again when its replica dies, is installed there.
        """
        haproxy = {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
            "RAY_SERVE_HAPROXY_RETRIES": "3",
            **FALLBACK_PORTS,
        }
        return {
            **(haproxy if has_haproxy else {}),
            # Ray tells its autoscaler of requests each 10 s by default: too late for most loads.
            "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
            "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
            "RAY_USAGE_STATS_ENABLED": "0",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }

    def with_models(self, models: tuple[ReplicaModel, ...], revision: str) -> RayPlan:
        """The same with other models."""
        return replace(self, models=models, revision=revision)


def check_number(name: str, value: object, least: int, most: int = 10_000) -> None:
    """Refuse what is no whole number of a range.

    Raises:
        InvalidOption: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOption(f"{name}={value!r} must be a whole number from {least} to {most}", hint=f"{name}={least}")


def check_range(min_replicas: object, max_replicas: object) -> None:
    """Refuse numbers of replicas that are not in order.

    Raises:
        InvalidOption: naming the first wrong one.
    """
    check_number("min_replicas", min_replicas, 1)
    check_number("max_replicas", max_replicas, int(min_replicas))  # type: ignore[call-overload]  # it was checked


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a deployment that Ray would pass over, and those that the plan decides.

    Raises:
        ConfigRejected: naming the first unknown one.
        InvalidOption: for one of the plan's own.
    """
    check_keys(options, DEPLOYMENT_OPTIONS, "a deployment of Ray Serve")
    for name, known in _NESTED.items():
        nested = options.get(name, {})
        if not isinstance(nested, Mapping):
            raise InvalidOption(f"{name}={nested!r:.100} must hold options", hint=f"{name}={{...}}")
        check_keys(nested, known, name)
    own = sorted(_OWN & options.keys())
    if own:
        raise InvalidOption(f"{own[0]} follows from the models and the replicas", hint="min_replicas=, max_replicas=")
