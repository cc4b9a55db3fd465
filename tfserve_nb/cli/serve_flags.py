"""The flags of `tfserve-nb serve`: those of `tensorflow_model_server`, and ours.

Flags are written `--name=value` or `--name value`; booleans also as `--name` alone. An unknown flag is
printed once and ignored, as there.

Reference: tensorflow_serving/model_servers/main.cc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn  # values of flags, of any type

from ..options import number_or_auto

EXIT_FAILED = 255
"""What `tensorflow_model_server` exits with when it cannot start (-1)."""

_TRUE = frozenset({"true", "1", "t", "y", "yes"})
_FALSE = frozenset({"false", "0", "f", "n", "no"})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: without dashes.
        default: its value when it is not given; its type is the flag's. None for a boolean that is neither then.
        help: one line.
        ignored_because: why it changes nothing here, or "".
        alias: another name for it, or "".
        bare: the value of a text flag that is given without one; None if it needs one.
        parse: reads its value, where the type of its default does not.
    """

    name: str
    default: str | int | float | bool | None
    help: str
    ignored_because: str = ""
    alias: str = ""
    bare: str | None = None
    parse: Callable[[str], Any] | None = None


GROUPS: dict[str, tuple[Flag, ...]] = {
    "models": (
        Flag("model_name", "default", "name of the model at --model_base_path"),
        Flag("model_base_path", "", "folder with numbered version folders"),
        Flag("model_config_file", "", "ModelServerConfig, text proto; replaces the two above"),
        Flag("model_config_file_poll_wait_seconds", 0, "read that file again so often; 0 reads it once"),
        Flag("file_system_poll_wait_seconds", 1, "look for new versions so often; 0 once, below 0 never"),
        Flag("saved_model_tags", "serve", "tags of the graph to load, separated by commas"),
        Flag("allow_version_labels_for_unavailable_models", False, "labels may name versions that are not loaded yet"),
        Flag("max_num_load_retries", 5, "how often a failed load is tried again"),
        Flag("load_retry_interval_micros", 60_000_000, "pause between two tries; below 0 none"),
        Flag("enable_model_warmup", True, "run assets.extra/tf_serving_warmup_requests before a version serves"),
        Flag("num_request_iterations_for_warmup", 0, "how often each of those requests is run; 0 is once"),
        Flag("enable_signature_method_name_check", False, "refuse signatures with another method_name than the call's"),
        Flag("prefer_tflite_model", False, "load model.tflite where a version has one"),
        Flag("num_load_threads", 0, "", "versions are loaded one after the other"),
        Flag("num_unload_threads", 0, "", "versions are unloaded one after the other"),
        Flag("flush_filesystem_caches", True, "", "the operating system does that"),
        Flag("remove_unused_fields_from_bundle_metagraph", True, "", "nothing but the signatures is kept anyway"),
        Flag("num_tflite_pools", 0, "", "one interpreter serves one version"),
        Flag("num_tflite_interpreters_per_pool", 1, "", "one interpreter serves one version"),
    ),
    "gRPC": (
        Flag("port", 8500, "TCP port; 0 for none"),
        Flag("grpc_socket_path", "", "Unix socket to listen on too"),
        Flag("ssl_config_file", "", "SSLConfig, text proto with PEM texts: TLS for gRPC"),
        Flag("grpc_channel_arguments", "", "gRPC's own settings: k=v,k=v"),
        Flag("enable_grpc_healthcheck_service", False, "serve grpc.health.v1"),
        Flag("enable_serialization_as_tensor_content", False, "respond with tensor_content instead of typed fields"),
        Flag("enable_profiler", True, "", "TensorFlow's profiler is not reachable over this port"),
        Flag("grpc_max_threads", 0, "", "gRPC runs on one event loop"),
        Flag("use_alts_credentials", False, "", "ALTS works inside of Google's cloud only; use --ssl_config_file"),
    ),
    "REST": (
        Flag("rest_api_port", 0, "TCP port; 0 for no REST"),
        Flag("rest_api_timeout_in_ms", 30_000, "how long a request may wait and run"),
        Flag("rest_api_enable_cors_support", False, "let web pages of any origin call"),
        Flag("monitoring_config_file", "", "MonitoringConfig, text proto: Prometheus metrics on the REST port"),
        Flag("rest_api_num_threads", 0, "", "REST runs on one event loop"),
    ),
    "batching": (
        Flag("enable_batching", None, "requests share runs; they also do, with no file to say how, unless it is false"),
        Flag("batching_parameters_file", "", "BatchingParameters, text proto"),
        Flag("enable_per_model_batching_parameters", False, "read batching_params.pbtxt in the version's folder"),
    ),
    "TensorFlow": (
        Flag("tensorflow_session_parallelism", 0, "threads, within one op and of ops; 0 lets TensorFlow choose"),
        Flag("tensorflow_intra_op_parallelism", 0, "threads within one op"),
        Flag("tensorflow_inter_op_parallelism", 0, "ops at the same time"),
        Flag("tensorflow_session_config_file", "", "ConfigProto, text proto"),
        Flag("per_process_gpu_memory_fraction", 0.0, "share of a GPU's memory; 0 takes what is needed"),
        Flag("platform_config_file", "", "", "give the flags for batching and sessions instead"),
        Flag("mixed_precision", "", "", "export the model in the precision that it should run in"),
        Flag("xla_cpu_compilation_enabled", False, "", "deploy with --optimize xla, or use jit_compile=True"),
        Flag("xla_gpu_compilation_enabled", False, "", "deploy with --optimize xla, or use jit_compile=True"),
        Flag("thread_pool_factory_config_file", "", "", "there is one thread pool, TensorFlow's"),
        Flag("skip_initialize_tpu", False, "", "no TPU is used"),
    ),
    "tfserve_nb's own": (
        Flag("host", "127.0.0.1", "address to listen on; 0.0.0.0 for every machine that can reach this one"),
        Flag("auth_token_file", "", "file with a token that every request must carry"),
        Flag(
            "allowed_hosts",
            "",
            "names, with commas between them, by which a proxy or tunnel on this machine is called; without a token, "
            "only they and this machine's own are answered",
        ),
        Flag(
            "reload_base_paths",
            "",
            "folders, separated by commas, in which reloads without a token may name models, beside the configured "
            "ones; / for any",
        ),
        Flag("rest_api_ssl_config_file", "", "SSLConfig, text proto: HTTPS"),
        Flag("dashboard", False, "show versions, latency and controls as a web page on the REST port"),
        Flag("managed", False, "serve what the admin API deploys; no model is named here, and a token is needed"),
        Flag("parent_pid", 0, "end when this process is no longer our parent"),
        Flag(
            "allow_ops",
            "",
            "ops with which SavedModels may reach files, Python and the network: names separated by commas, or all",
            alias="allow-ops",
            bare="all",
        ),
        Flag("resuming", "", "models that the parent is about to resume: quoted as in URLs, with commas"),
        Flag("listen_fds", "", "sockets for REST that the parent keeps, with gRPC's port; numbers, with commas"),
        Flag("ready_fd", 0, "write a line here when requests are answered"),
        Flag("device", "", "TensorFlow device to load the models on, such as /GPU:0"),
        Flag("engine", "tensorflow", "what runs the models: tensorflow, onnx, litert, or auto for the fastest here"),
        Flag(
            "workers",
            0,
            "processes for HTTP, gRPC and codecs in front of the one with TensorFlow; 0 for none, auto for as many as "
            "fit the cores",
            alias="frontends",
            parse=number_or_auto,
        ),
        Flag("max_request_bytes", 1024**3, "largest body of REST and message of gRPC"),
        Flag("max_bytes_in_flight", 2 * 1024**3, "of all unfinished requests together; more are refused for a moment"),
        Flag("max_connections", 4096, "open connections, REST and gRPC each; fewer where fewer files may be open"),
        Flag("drain_seconds", 30.0, "how long running requests may take after SIGTERM"),
    ),
}


class _Parser(argparse.ArgumentParser):
    """Exits as `tensorflow_model_server` does."""

    def error(self, message: str) -> NoReturn:
        """Print the problem and how to get help."""
        self.exit(EXIT_FAILED, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def parse_serve(arguments: list[str]) -> argparse.Namespace:
    """The values of all flags.

    Args:
        arguments: what stands after `serve`.

    Returns:
        One attribute for each flag, and `version`.
    """
    text = "Serve SavedModels as tensorflow_model_server does: same flags, files and protocols."
    return parse_flags("tfserve-nb serve", text, GROUPS, arguments)


def parse_flags(
    program: str, description: str, groups: Mapping[str, Iterable[Flag]], arguments: list[str]
) -> argparse.Namespace:
    """The values of the flags of a command; those of `groups` that are ignored are shown apart.

    Args:
        program: the command.
        description: what it does, in a line.
        groups: title -> flags.
        arguments: what stands after the command.

    Returns:
        One attribute for each flag, and `version`.
    """
    parser = _Parser(
        program,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", nargs="?", const=True, default=False, type=_boolean, help="print versions")
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            if not flag.ignored_because:
                _add(group, flag)
    ignored = parser.add_argument_group("accepted, and without effect here")
    for flag in _ignored(groups):
        _add(ignored, flag)
    values, unknown = parser.parse_known_args(arguments)
    if unknown:
        print(f"unknown argument: {unknown[0]}\n{parser.format_usage().splitlines()[0]} (see --help)", file=sys.stderr)
    return values


def ignored_flags(arguments: list[str], groups: Mapping[str, Iterable[Flag]] = GROUPS) -> list[str]:
    """A warning for each flag that was given and changes nothing."""
    given = {argument.removeprefix("--").split("=")[0] for argument in arguments if argument.startswith("--")}
    return [f"--{flag.name} has no effect: {flag.ignored_because}" for flag in _ignored(groups) if flag.name in given]


def _ignored(groups: Mapping[str, Iterable[Flag]]) -> list[Flag]:
    return [flag for flags in groups.values() for flag in flags if flag.ignored_because]


def _add(group: argparse._ArgumentGroup, flag: Flag) -> None:
    names = [f"--{name}" for name in (flag.name, flag.alias) if name]
    about = flag.ignored_because or flag.help
    if flag.default is None or isinstance(flag.default, bool):
        group.add_argument(
            *names, nargs="?", const=True, default=flag.default, type=_boolean, metavar="BOOL", help=about
        )
        return
    kind = type(flag.default)
    metavar = {int: "N", float: "X", str: "TEXT"}[kind]
    if flag.bare is not None:
        group.add_argument(*names, nargs="?", const=flag.bare, default=flag.default, metavar=metavar, help=about)
        return
    # Numbers of 64 bits and no text beside them, as there; argparse names flag and value when they do not fit.
    group.add_argument(
        *names, default=flag.default, type=flag.parse or kind, metavar=metavar, help=about.replace("%", "%%")
    )


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
