"""The bodies of status and metadata answers, in protobuf's JSON layout.

Thread: any; pure functions.

Reference: tensorflow_serving/apis/get_model_status.proto, get_model_metadata.proto and the golden files in
servables/tensorflow/testdata.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...types import SignatureDefs, VersionStatus
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


def metadata_body(name: str, version: int, signature_defs: SignatureDefs) -> bytes:
    """`{"model_spec": ..., "metadata": {"signature_def": ...}}`."""
    return pretty(
        {
            "model_spec": {"name": name, "signature_name": "", "version": str(version)},
            "metadata": {"signature_def": signature_defs.json},
        }
    )
