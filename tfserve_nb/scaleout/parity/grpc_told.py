"""What a server tells of a model over gRPC, as JSON values.

Thread: the caller's.
"""

from __future__ import annotations

from typing import Any  # JSON values

from .doors import METADATA, STATUS
from .side import Side


def grpc_status(side: Side, name: str, version: int) -> Any:
    """State and error of a version: numbers of their enumerations, and the text; of a call that fails, its error."""
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse

    request = GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version.value = name, version
    code, text, response = side.call(STATUS, request.SerializeToString())
    if code != "OK":
        return f"{code} {text}"
    statuses = GetModelStatusResponse.FromString(response).model_version_status
    return [[one.version, one.state, one.status.error_code, one.status.error_message] for one in statuses]


def grpc_metadata(side: Side, name: str, version: int) -> Any:
    """The signatures of a version in protobuf's JSON; of a call that fails, its error."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
        SignatureDefMap,
    )

    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name, request.model_spec.version.value = name, version
    code, text, response = side.call(METADATA, request.SerializeToString())
    if code != "OK":
        return f"{code} {text}"
    packed = GetModelMetadataResponse.FromString(response).metadata["signature_def"]
    return MessageToDict(SignatureDefMap.FromString(packed.value), preserving_proto_field_name=True)
