"""From flags to what a server needs: models, addresses and limits, or the reason why it cannot start.

Reference: the checks and their texts are those of tensorflow_serving/model_servers/server.cc.
"""

from __future__ import annotations

import argparse
import os
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..errors import ConfigRejected, InvalidOption
from ..server.config_files import (
    PER_MODEL_BATCHING_FILE,
    num_batch_threads,
    read_batching,
    read_metrics_path,
    read_model_configs,
    read_session_config,
    read_tls,
    to_batching,
)
from ..server.settings import (
    AUTO_WORKERS,
    GrpcSettings,
    ServerSettings,
    is_loopback,
    num_cores,
    num_workers,
)
from ..serving.batching.options import BatchingOptions
from ..serving.configured import FollowOptions
from ..serving.engines.kinds import check_engine, check_installed
from ..serving.engines.saved_model.session import SessionOptions
from ..serving.models.model_config import ModelConfig
from .private_files import read_token

MAX_INT32 = 2**31 - 1
"""gRPC's limits are numbers of this size."""

_HOST_CHARS = frozenset(string.ascii_lowercase + string.digits + ".-_")

UNBATCHED = BatchingOptions(is_enabled=False, checks_shapes=False, max_batch_size=1, max_enqueued_batches=10_000)
FREELY_BATCHED = BatchingOptions(checks_shapes=False, pads=False, max_batch_size=1000, max_enqueued_batches=10)
"""Without a word about batching: what waits when a thread is free runs together. No request waits for others, none is
too large, and as many rows may wait as requests without batching."""


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What the flags of `tfserve-nb serve` mean.

    Attributes:
        read_configs: reads the models, or None when there is nothing to follow; again and again when a file is polled.
        poll_configs_s: seconds between two readings; 0 reads once.
        follow: how the models are loaded.
        session: TensorFlow's settings.
        num_run_threads: batches that may run at the same time.
        settings: addresses and limits.
        drain_s: how long running requests may take at the end.
        parent_pid: end with this process, or 0.
        resuming: models that are about to be resumed.
        ready_fd: a file descriptor that is told when requests are answered, or 0.
        dashboard: whether the REST port shows the dashboard.
        reload_base_paths: folders that reloads may name beside the configured ones; None for any folder, when every
            client has shown a token or a certificate.
    """

    read_configs: Callable[[], tuple[ModelConfig, ...] | None]
    poll_configs_s: float
    follow: FollowOptions
    session: SessionOptions
    num_run_threads: int
    settings: ServerSettings
    drain_s: float
    parent_pid: int = 0
    resuming: tuple[str, ...] = ()
    ready_fd: int = 0
    dashboard: bool = False
    reload_base_paths: tuple[str, ...] | None = None


def make_plan(flags: argparse.Namespace, *, names_models: bool = True) -> ServePlan:
    """Read the files that the flags name, and combine all settings.

    Args:
        flags: those of `parse_serve`.
        names_models: whether they name models and ports; those of a replica on Ray do not.

    Raises:
        ServingError: what is wrong, with the flag or file.
    """
    _check(flags, names_models=names_models)
    settings = _settings(flags)
    return ServePlan(
        read_configs=_config_reader(flags),
        poll_configs_s=flags.model_config_file_poll_wait_seconds if flags.model_config_file else 0,
        follow=FollowOptions(
            batching=_batching(flags),
            poll_wait_s=flags.file_system_poll_wait_seconds,
            allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
            max_num_load_retries=max(0, flags.max_num_load_retries),
            load_retry_interval_s=max(0, flags.load_retry_interval_micros) * 1e-6,
            num_warmup_iterations=max(1, flags.num_request_iterations_for_warmup) if flags.enable_model_warmup else 0,
            device=flags.device or None,
            engine=flags.engine,
        ),
        session=_session(flags),
        num_run_threads=_num_run_threads(flags),
        settings=settings,
        drain_s=max(0.0, flags.drain_seconds),
        parent_pid=flags.parent_pid,
        resuming=tuple(unquote(name) for name in flags.resuming.split(",") if name),
        ready_fd=flags.ready_fd,
        dashboard=flags.dashboard,
        reload_base_paths=_folders(flags.reload_base_paths) if settings.is_grpc_open else None,
    )


def _check(flags: argparse.Namespace, *, names_models: bool) -> None:
    _check_limits(flags)
    try:
        check_installed(check_engine(flags.engine))
    except InvalidOption as error:
        raise ConfigRejected(f"--{error.message}", hint=error.hint) from error
    if flags.dashboard and _rest_port(flags) is None:
        raise ConfigRejected("--dashboard needs --rest_api_port", hint="--rest_api_port=8501 --dashboard")
    if flags.managed:
        if not flags.auth_token_file or not flags.rest_api_port:
            raise ConfigRejected("--managed needs --auth_token_file and --rest_api_port")
        return
    if names_models:
        _check_places(flags)
    if flags.use_alts_credentials and flags.ssl_config_file:
        raise ConfigRejected("Either use_alts_credentials must be false or ssl_config_file must be empty.")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise ConfigRejected(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    if flags.enable_per_model_batching_parameters and not flags.enable_batching:
        raise ConfigRejected("enable_per_model_batching_parameters needs enable_batching", hint="--enable_batching")


def _check_places(flags: argparse.Namespace) -> None:
    if not flags.port and not flags.grpc_socket_path:
        raise ConfigRejected(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
            hint="--port=8500",
        )
    if not flags.model_base_path and not flags.model_config_file:
        raise ConfigRejected(
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
            hint="--model_base_path=/path/to/model, the folder that holds numbered versions",
        )


def _check_limits(flags: argparse.Namespace) -> None:
    for name, most in (
        ("max_request_bytes", MAX_INT32),
        ("max_connections", MAX_INT32),
        ("max_bytes_in_flight", 2**62),
    ):
        value = getattr(flags, name)
        if not 1 <= value <= most:
            raise ConfigRejected(f"--{name}={value} must be a number from 1 to {most}", hint="leave it out")


def _config_reader(flags: argparse.Namespace) -> Callable[[], tuple[ModelConfig, ...] | None]:
    if flags.model_config_file:
        return lambda: read_model_configs(flags.model_config_file)
    if flags.managed:
        return lambda: ()
    single = ModelConfig(flags.model_name, flags.model_base_path.removeprefix("file://"))
    return lambda: (single,)


def _batching(flags: argparse.Namespace) -> Callable[[Path], BatchingOptions]:
    """Version folder -> its limits."""
    if not flags.enable_batching:
        return lambda _: FREELY_BATCHED if flags.enable_batching is None else UNBATCHED
    if flags.enable_per_model_batching_parameters:
        return _per_model
    common = read_batching(flags.batching_parameters_file) if flags.batching_parameters_file else to_batching()
    return lambda _: common


def _per_model(version_dir: Path) -> BatchingOptions:
    file = version_dir / PER_MODEL_BATCHING_FILE
    return read_batching(file) if file.is_file() else UNBATCHED


def _num_run_threads(flags: argparse.Namespace) -> int:
    if flags.managed:
        return 1
    cores = os.cpu_count() or 1
    if flags.enable_batching is False:
        return 4 * cores
    threads = num_batch_threads(flags.batching_parameters_file) if flags.batching_parameters_file else None
    if threads is not None and threads < 1:
        raise ConfigRejected(f"{flags.batching_parameters_file}: num_batch_threads is {threads}, it must be at least 1")
    return threads or cores


def _session(flags: argparse.Namespace) -> SessionOptions:
    both = flags.tensorflow_session_parallelism
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    if both and (intra or inter):
        raise ConfigRejected(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )
    file = flags.tensorflow_session_config_file
    return SessionOptions(
        tags=tuple(tag for tag in flags.saved_model_tags.split(",") if tag),
        intra_op_threads=both or intra,
        inter_op_threads=both or inter,
        gpu_memory_fraction=flags.per_process_gpu_memory_fraction,
        config=read_session_config(file) if file else b"",
        limited_threads=_num_run_threads(flags),
        prefers_tflite=flags.prefer_tflite_model,
        allowed_ops=None if flags.managed else _allowed_ops(flags.allow_ops),
    )


def _allowed_ops(text: str) -> frozenset[str] | None:
    """The ops that `--allow_ops` names; None for all."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if [name.lower() for name in names] in (["all"], ["true"]):
        return None
    if [name.lower() for name in names] in ([], ["none"], ["false"]):
        return frozenset()
    wrong = [name for name in names if not name.replace(">", "").isidentifier()]
    if wrong:
        raise ConfigRejected(f"--allow_ops: {wrong[0]!r} is no name of an op", hint="--allow_ops=ReadFile,WriteFile")
    return frozenset(names)


def _settings(flags: argparse.Namespace) -> ServerSettings:
    tls, rest_tls = flags.ssl_config_file, flags.rest_api_ssl_config_file
    metrics_path = read_metrics_path(flags.monitoring_config_file) if flags.monitoring_config_file else None
    return ServerSettings(
        host=flags.host,
        port=_rest_port(flags),
        listen_fds=tuple(int(number) for number in flags.listen_fds.split(",") if number),
        token=read_token(flags.auth_token_file, "auth_token_file"),
        admin_token=secrets.token_urlsafe(32) if flags.dashboard and not flags.auth_token_file else None,
        allow_remote=not is_loopback(flags.host),
        allowed_hosts=_host_names(flags.allowed_hosts),
        max_body_bytes=flags.max_request_bytes,
        max_bytes_in_flight=flags.max_bytes_in_flight,
        max_connections=flags.max_connections,
        request_timeout_s=flags.rest_api_timeout_in_ms * 1e-3,
        checks_origin=not flags.rest_api_enable_cors_support,
        has_cors=flags.rest_api_enable_cors_support,
        tls=read_tls(rest_tls) if rest_tls else None,
        metrics_path=metrics_path,
        workers=num_workers(num_cores()) if flags.workers == AUTO_WORKERS else flags.workers,
        grpc=None
        if not flags.port and not flags.grpc_socket_path
        else GrpcSettings(
            host=flags.host,
            port=flags.port or None,
            socket_path=flags.grpc_socket_path,
            max_message_bytes=flags.max_request_bytes,
            max_connections=flags.max_connections,
            channel_arguments=_channel_arguments(flags.grpc_channel_arguments),
            tls=read_tls(tls) if tls else None,
            as_content=flags.enable_serialization_as_tensor_content,
            checks_method_names=flags.enable_signature_method_name_check,
            has_health=flags.enable_grpc_healthcheck_service,
            is_port_held=bool(flags.listen_fds),
        ),
    )


def _host_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if not set(name) <= _HOST_CHARS:
            raise ConfigRejected(
                f"--allowed_hosts: {name!r} is no name of a host",
                hint="--allowed_hosts=models.example.org, without a port",
            )
    return names


def _folders(text: str) -> tuple[str, ...]:
    return tuple(str(Path(folder).absolute()) for folder in text.split(",") if folder)


def _rest_port(flags: argparse.Namespace) -> int | None:
    """None for no REST; a port that gRPC has is none either, see `serve`."""
    return flags.rest_api_port if flags.rest_api_port and flags.rest_api_port != flags.port else None


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    arguments: list[tuple[str, int | str]] = []
    for entry in filter(None, text.split(",")):
        name, equals, value = entry.partition("=")
        if not equals:
            raise ConfigRejected(
                f"--grpc_channel_arguments: {entry!r} is no k=v", hint="grpc.max_connection_age_ms=2000,..."
            )
        is_number = value.removeprefix("-").isdigit()
        arguments.append((name, int(value) if is_number else value))
    return tuple(arguments)
