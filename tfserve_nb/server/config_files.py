"""TensorFlow Serving's configuration files: protobufs in text form.

`tensorflow-serving-api` brings the messages for models. Those for batching, TLS and monitoring are a table here, not
`.proto` files compiled at build time: the compiler would be one more build dependency, and the modules that it writes
register their messages in the process's pool, where TensorFlow Serving's own may be. Names, numbers and types are
TensorFlow Serving's; error texts name the messages, so their package is its package too.

Thread: any.

Reference: tensorflow_serving/config/{model_server_config,ssl_config,monitoring_config}.proto,
servables/tensorflow/session_bundle_config.proto and batching_util.cc.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # protobuf messages

from ..errors import ConfigRejected, InvalidOption
from ..serving.batching.options import BatchingOptions
from ..serving.models.model_config import LoggingOptions, ModelConfig, VersionPolicy

DEFAULT_MAX_BATCH_SIZE = 1000
DEFAULT_MAX_ENQUEUED_BATCHES = 10
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
PER_MODEL_BATCHING_FILE = "batching_params.pbtxt"

_PACKAGE = "tensorflow.serving"
_MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": (1, "google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, "google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, "google.protobuf.Int64Value"),
        "num_batch_threads": (4, "google.protobuf.Int64Value"),
        "thread_pool_name": (5, "google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, "google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, "google.protobuf.Int64Value"),
    },
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "tensorflow.serving.PrometheusConfig")},
}
"""Message -> field -> (number, type), as a `.proto` file would have them."""

_TENSORFLOW = 1
"""`ModelType.TENSORFLOW`, the deprecated way to name the platform."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Keys and certificates, PEM.

    Attributes:
        key: the server's private key.
        certificate: the server's certificate, with its chain.
        client_ca: certificates of those who may sign clients' certificates; empty for the system's.
        verifies_clients: whether clients must show a certificate.
        path: the file that all this comes from, for errors.
    """

    key: bytes
    certificate: bytes
    client_ca: bytes
    verifies_clients: bool
    path: str


def read_model_configs(path: str) -> tuple[ModelConfig, ...] | None:
    """The models of a `--model_config_file`; None for an empty file, which changes nothing.

    A file that is being written is empty for a moment. To serve no models, write `model_config_list {}`.

    Raises:
        ConfigRejected: naming the file, if it cannot be read or is no `ModelServerConfig`.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    message = _parse(path, ModelServerConfig())
    if message.WhichOneof("config") is None:
        return None
    if message.WhichOneof("config") == "custom_model_config":
        raise ConfigRejected("ModelServer does not yet support custom model config.", hint="use model_config_list")
    return to_model_configs(message.model_config_list)


def to_model_configs(message: Any) -> tuple[ModelConfig, ...]:
    """The models of a `ModelConfigList`.

    Raises:
        ConfigRejected: for a model that names both its type and its platform.
    """
    return tuple([_model_config(model) for model in message.config])


def _model_config(message: Any) -> ModelConfig:
    if message.model_type and message.model_platform:
        raise ConfigRejected(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {message.name}"
        )
    return ModelConfig(
        name=message.name,
        base_path=message.base_path.removeprefix("file://"),
        policy=_policy(message.model_version_policy),
        labels=dict(message.version_labels),
        platform=message.model_platform or ("tensorflow" if message.model_type == _TENSORFLOW else ""),
        logging=_logging(message),
    )


def read_batching(path: str | Path) -> BatchingOptions:
    """The limits of a `BatchingParameters` file, with TensorFlow Serving's defaults.

    Raises:
        ConfigRejected: naming the file, if it cannot be read or holds a value that is not allowed.
    """
    message = _parse(str(path), _message_classes()["BatchingParameters"]())
    try:
        return to_batching(message)
    except InvalidOption as error:
        raise ConfigRejected(f"{path}: {error.message}", hint=error.hint) from error


def to_batching(message: Any | None = None) -> BatchingOptions:
    """The limits of a `BatchingParameters` message; None for the defaults.

    Raises:
        InvalidOption: if a value is not allowed.
    """
    message = _message_classes()["BatchingParameters"]() if message is None else message
    limit = _value(message, "max_batch_size", DEFAULT_MAX_BATCH_SIZE)
    splits = bool(_value(message, "enable_large_batch_splitting", 0))
    size = _value(message, "max_execution_batch_size", limit) if splits else limit
    if size > limit:
        raise InvalidOption(f"max_execution_batch_size={size} is larger than max_batch_size={limit}")
    enqueued = _value(message, "max_enqueued_batches", DEFAULT_MAX_ENQUEUED_BATCHES)
    sizes = list(message.allowed_batch_sizes)
    if sizes and sizes[-1] != limit:
        raise InvalidOption(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; expected {limit}"
        )
    return BatchingOptions(
        max_batch_size=size,
        batch_timeout_micros=_value(message, "batch_timeout_micros", 0),
        max_enqueued_batches=enqueued if splits else max(1, enqueued),
        allowed_batch_sizes=tuple(sorted({size for size in sizes if size <= limit})),
        pads=bool(sizes),
        input_batch_size_limit=limit,
        enable_large_batch_splitting=splits,
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        checks_shapes=False,
    )


def num_batch_threads(path: str | Path) -> int | None:
    """`num_batch_threads` of a `BatchingParameters` file, or None when it does not set it."""
    message = _parse(str(path), _message_classes()["BatchingParameters"]())
    return message.num_batch_threads.value if message.HasField("num_batch_threads") else None


def read_tls(path: str) -> TlsFiles:
    """The keys and certificates of an `SSLConfig` file.

    Raises:
        ConfigRejected: naming the file, if it cannot be read or lacks key or certificate.
    """
    message = _parse(path, _message_classes()["SSLConfig"]())
    for field in ("server_key", "server_cert"):
        if "-----BEGIN " not in getattr(message, field):
            raise ConfigRejected(
                f"{path}: {field} holds no PEM text",
                hint=f'{field}: "-----BEGIN ...\\n...", the contents of the file and not its path',
            )
    return TlsFiles(
        key=message.server_key.encode(),
        certificate=message.server_cert.encode(),
        client_ca=message.custom_ca.encode(),
        verifies_clients=message.client_verify,
        path=path,
    )


def read_session_config(path: str) -> bytes:
    """The `ConfigProto` of a `--tensorflow_session_config_file`, serialized.

    Raises:
        ConfigRejected: naming the file, if it cannot be read.
    """
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    serialized: bytes = _parse(path, ConfigProto()).SerializeToString()
    return serialized


def read_metrics_path(path: str) -> str | None:
    """Where a `MonitoringConfig` file wants the metrics, or None when it does not.

    Raises:
        ConfigRejected: naming the file, if it cannot be read.
    """
    config = _parse(path, _message_classes()["MonitoringConfig"]()).prometheus_config
    return (config.path or DEFAULT_METRICS_PATH) if config.enable else None


def _policy(message: Any) -> VersionPolicy:
    kind = message.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy(latest=None)
    if kind == "specific":
        return VersionPolicy(latest=None, specific=tuple(message.specific.versions))
    return VersionPolicy(latest=max(1, message.latest.num_versions))


def _logging(message: Any) -> LoggingOptions | None:
    if not message.HasField("logging_config"):
        return None
    config = message.logging_config
    prefix = config.log_collector_config.filename_prefix
    rate = config.sampling_config.sampling_rate
    if not prefix:
        raise ConfigRejected(
            f"logging_config of model {message.name} names no filename_prefix",
            hint='log_collector_config { filename_prefix: "/var/log/requests" } sampling_config { sampling_rate: 0.1 }',
        )
    if not 0 <= rate <= 1:
        raise ConfigRejected(f"sampling_rate of model {message.name} is {rate:g}, it must be from 0 to 1")
    return LoggingOptions(prefix, rate)


def _value(message: Any, field: str, default: int) -> int:
    """A wrapped number, or its default."""
    number: int = getattr(message, field).value if message.HasField(field) else default
    return number


def _parse(path: str, message: Any) -> Any:
    from google.protobuf import text_format

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigRejected(f"{path} cannot be read: {reason}", code="NOT_FOUND") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigRejected(
            f"Invalid protobuf file: '{path}': Error parsing text-format {message.DESCRIPTOR.full_name}: {error}"
        ) from error


@functools.cache
def _message_classes() -> dict[str, Any]:
    """Message -> its class, in a pool of their own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    field = descriptor_pb2.FieldDescriptorProto
    scalars = {"int64": field.TYPE_INT64, "bool": field.TYPE_BOOL, "string": field.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(name="tfserve_nb/server_config.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, written) in fields.items():
            kind = written.removeprefix("repeated ")
            described.field.add(
                name=name,
                number=number,
                label=field.LABEL_OPTIONAL if written == kind else field.LABEL_REPEATED,
                type=scalars.get(kind, field.TYPE_MESSAGE),
                type_name=None if kind in scalars else f".{kind}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }
