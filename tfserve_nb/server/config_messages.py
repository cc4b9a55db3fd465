"""The messages of TensorFlow Serving's configuration files that `tensorflow-serving-api` does not bring.

Names, numbers and types are TensorFlow Serving's; error texts name the messages, so their package is its package too.

A table, not `.proto` files compiled at build time: the compiler would be one more build dependency, and the modules
that it writes register their messages in the process's pool, where TensorFlow Serving's own may be. These have a pool
of their own.

Thread: any.

Reference: tensorflow_serving/config/{ssl_config,monitoring_config}.proto,
servables/tensorflow/session_bundle_config.proto.
"""

from __future__ import annotations

import functools
from typing import Any  # protobuf messages

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


def new_message(name: str) -> Any:
    """An empty message of one of the types above."""
    return _classes()[name]()


@functools.cache
def _classes() -> dict[str, Any]:
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
