"""The bodies of status and metadata answers, in protobuf's JSON layout.

Thread: any; pure functions.

Reference: tensorflow_serving/apis/get_model_status.proto, get_model_metadata.proto and the golden files in
servables/tensorflow/testdata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any  # JSON values

from ..types import SignatureSpec, TensorSpec, VersionStatus
from .json_text import pretty


def status_body(versions: Iterable[VersionStatus]) -> bytes:
    """`{"model_version_status": [...]}`, in the order given."""
    return pretty(
        {
            "model_version_status": [
                {
                    "version": str(status.version),
                    "state": status.state.name,
                    "status": {"error_code": status.error_code, "error_message": status.error_message},
                }
                for status in versions
            ]
        }
    )


def metadata_body(name: str, version: int, signatures: Mapping[str, SignatureSpec]) -> bytes:
    """`{"model_spec": ..., "metadata": {"signature_def": ...}}`."""
    return pretty(
        {
            "model_spec": {"name": name, "signature_name": "", "version": str(version)},
            "metadata": {
                "signature_def": {
                    "signature_def": {
                        signature.name: {
                            "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs.values()},
                            "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs.values()},
                            "method_name": signature.method_name,
                            "defaults": {},
                        }
                        for signature in signatures.values()
                    }
                }
            },
        }
    )


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dimensions = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape or ()]
    dtype = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}.get(spec.dtype, spec.dtype.upper())
    return {
        "dtype": f"DT_{dtype}",
        "tensor_shape": {"dim": dimensions, "unknown_rank": spec.shape is None},
        "name": spec.tensor_name,
    }
