"""`tfserve-nb ray`: the models of `tfserve-nb serve`, by replicas on Ray that come and go with the load.

Without `--address` a cluster of this machine is started, which ends with the command. With it the replicas are deployed
to a cluster that runs, and stay there.

Thread: the main one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from dataclasses import replace

from ..errors import ConfigRejected, ServingError
from ..scaleout.ray.config import RayPlan
from ..scaleout.ray.deploy import RayServer, RayTarget, serve_on_ray
from ..scaleout.ray.replica_model import ReplicaModel
from ..serving.models.model_config import check_configs
from ..types import ProgressEvent
from .private_files import readable_by_others
from .serve import Signals, Terminated, failed, log_to_stderr
from .serve_flags import GROUPS, Flag, ignored_flags, parse_flags
from .serve_plan import make_plan

_log = logging.getLogger("tfserve_nb.ray")
REST_PORT = 8501

RAY_FLAGS = (
    Flag("address", "", "URL of Ray's dashboard on a cluster that runs; by default one is started on this machine"),
    Flag("min_replicas", 1, "replicas without load"),
    Flag("max_replicas", 3, "replicas at most"),
    Flag("target_ongoing_requests", 16.0, "requests of one replica at a time, above which there shall be another"),
    Flag("upscale_delay_s", 3.0, "how long there must be more before a replica is added"),
    Flag("downscale_delay_s", 60.0, "how long there must be less before one is removed"),
    Flag("max_ongoing_requests", 256, "requests that Ray gives to one replica at a time"),
    Flag(
        "num_cpus",
        0.0,
        "processors of one replica, as Ray counts; 0 for one; on a cluster of this machine they share it",
    ),
    Flag("num_gpus", 0.0, "GPUs of one replica, as Ray counts"),
)
IN_REPLICAS = frozenset({
    "file_system_poll_wait_seconds", "saved_model_tags", "enable_model_warmup", "num_request_iterations_for_warmup",
    "enable_signature_method_name_check", "prefer_tflite_model", "enable_serialization_as_tensor_content",
    "rest_api_timeout_in_ms", "rest_api_enable_cors_support", "enable_batching", "batching_parameters_file",
    "enable_per_model_batching_parameters", "tensorflow_session_parallelism", "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism", "tensorflow_session_config_file", "per_process_gpu_memory_fraction",
    "auth_token_file", "allowed_hosts", "allow_ops", "device", "engine", "max_request_bytes", "max_bytes_in_flight",
})  # fmt: skip
"""Flags of `tfserve-nb serve` that replicas are started with."""
HERE = frozenset({"model_name", "model_base_path", "model_config_file", "port", "rest_api_port", "host"})
"""Those that this command reads itself."""
REFUSED = {
    "ssl_config_file": "Ray's proxies do no TLS here: put nginx, Caddy or an ingress in front",
    "rest_api_ssl_config_file": "Ray's proxies do no TLS here: put nginx, Caddy or an ingress in front",
    "managed": "replicas serve what a configuration names",
    "dashboard": "the handle that to_ray gives has a dashboard in the notebook",
    "workers": "replicas are processes already: --max_replicas",
}
ON_NODES = frozenset({"batching_parameters_file", "tensorflow_session_config_file"})
"""Flags with a file that only replicas read."""
_ELSEWHERE = "Ray does that, or replicas have no use for it"


def _groups() -> dict[str, tuple[Flag, ...]]:
    """The flags of the command."""
    known = IN_REPLICAS | HERE | REFUSED.keys()
    groups = {
        title: tuple(
            flag if flag.name in known or flag.ignored_because else replace(flag, ignored_because=_ELSEWHERE)
            for flag in flags
        )
        for title, flags in GROUPS.items()
    }
    return {"Ray": RAY_FLAGS, **groups}


def ray(arguments: list[str]) -> int:
    """Serve models on Ray, until a signal comes if the cluster is this machine's.

    Args:
        arguments: what stands after `ray`.

    Returns:
        0 after a signal, or when replicas on another cluster answer; 255 when that cannot be.
    """
    groups = _groups()
    flags = parse_flags(
        "tfserve-nb ray", "Serve SavedModels by replicas on Ray, as many as the load needs.", groups, arguments
    )
    log_to_stderr()
    for line in (*ignored_flags(arguments, groups), *readable_by_others({"auth_token_file": flags.auth_token_file})):
        _log.warning("%s", line)
    server: RayServer | None = None
    signals = Signals()
    try:
        plan, token = plan_of(flags)
        server = serve_on_ray(plan, RayTarget(flags.address or None, token), _Teller().tell)
        _show(server)
        if flags.address:
            return 0
        signals.wait()
    except ServingError as error:
        return failed("Failed to start on Ray", error)
    except Terminated:
        _log.info("Stopping")
    finally:
        if server is not None and not flags.address:
            server.stop()
            _log.info("Stopped")
    return 0


def plan_of(flags: argparse.Namespace) -> tuple[RayPlan, str | None]:
    """What flags mean: what shall run on Ray, and the token that requests must carry.

    Raises:
        ServingError: what is wrong, with the flag or file.
    """
    for name, reason in REFUSED.items():
        if getattr(flags, name):
            raise ConfigRejected(f"--{name} does not work with replicas on Ray", hint=reason)
    if not flags.model_base_path and not flags.model_config_file:
        raise ConfigRejected(
            "Neither --model_base_path nor --model_config_file names a model",
            hint="--model_base_path=/path/to/model, the folder that holds numbered versions",
        )
    checked = make_plan(_read_here(flags), names_models=False)
    configs = checked.read_configs() or ()
    check_configs(configs, {})
    options = {
        "max_ongoing_requests": flags.max_ongoing_requests,
        "autoscaling_config": {
            name: getattr(flags, name) for name in ("target_ongoing_requests", "upscale_delay_s", "downscale_delay_s")
        },
        "ray_actor_options": {name: getattr(flags, name) for name in ("num_cpus", "num_gpus") if getattr(flags, name)},
    }
    plan = RayPlan(
        models=tuple(ReplicaModel.of(config) for config in configs),
        flags=tuple(_replica_flags(flags)),
        min_replicas=flags.min_replicas,
        max_replicas=flags.max_replicas,
        host=flags.host,
        port=flags.rest_api_port or REST_PORT,
        grpc_port=flags.port or None,
        request_timeout_s=max(60.0, 2e-3 * flags.rest_api_timeout_in_ms),
        options=options,
    )
    return plan, checked.settings.token


def _read_here(flags: argparse.Namespace) -> argparse.Namespace:
    """The flags whose files are read by this command: none that has no effect, and none that only other nodes have."""
    read = (IN_REPLICAS | HERE) - (ON_NODES if flags.address else frozenset())
    by_default = {flag.name: flag.default for group in GROUPS.values() for flag in group if flag.name not in read}
    return argparse.Namespace(**{**vars(flags), **by_default})


def _replica_flags(flags: argparse.Namespace) -> Iterable[str]:
    """The flags that differ from what they are by default, as they are written."""
    for flag in (flag for group in GROUPS.values() for flag in group):
        value = getattr(flags, flag.name)
        if flag.name in IN_REPLICAS and value != flag.default:
            yield f"--{flag.name}={str(value).lower() if isinstance(value, bool) else value}"


def _show(server: RayServer) -> None:
    """Say where models answer, and what has to be known of it."""
    handle, plan = server.handle, server.plan
    for name in plan.names:
        _log.info(
            "%s answers at %s, by %d to %d replicas", name, handle.rest_url(name), plan.min_replicas, plan.max_replicas
        )
    if handle.grpc_address is not None:
        _log.info("gRPC answers at %s", handle.grpc_address)
    _log.info("Ray's dashboard: %s", server.api.url)
    for note in server.notes:
        _log.info("%s", note)
    if handle.token is None:
        _log.warning("Everyone who can reach these ports may call the models; --auth_token_file asks for a token")


class _Teller:
    """Logs each new step."""

    def __init__(self) -> None:
        self._said = ""

    def tell(self, event: ProgressEvent) -> None:
        """A step, or its progress; a line for each step and each reason."""
        is_time = event.detail.endswith(" s") and event.detail[:-2].isdigit()
        if is_time and self._said.startswith(event.phase):
            return
        text = event.phase if is_time or not event.detail else f"{event.phase}: {event.detail}"
        if text != self._said and event.phase not in ("answering", "done"):  # notes are logged one by one
            self._said = text
            _log.info("%s ...", text[:1].upper() + text[1:])
