"""The bodies of status and metadata responses, in protobuf's JSON layout.

Thread: any; pure functions.

Reference: tensorflow_serving/apis/get_model_status.proto, get_model_metadata.proto and the golden files in
servables/tensorflow/testdata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from ...types import SignatureDefs, SignatureSpec, TensorSpec, VersionStatus, in_order
from .json_text import pretty

SIGNATURES_FIELD = "X-TFServe-Signatures"
"""The header field with `signatures_mark`. Metadata responses carry it. A predict request may carry it too: a version
with other signatures refuses it then."""

ORDER_FIELD = "X-TFServe-Input-Order"
"""The header field of metadata responses with `input_orders`: TensorFlow Serving's body has no place for it."""

CHANGES_FIELD = "X-TFServe-Changes"
"""The header field of metadata responses that says, percent-encoded, what requests for the same address leave behind:
see `VersionStatus.changes`. Who makes rows up sends none there."""


def status_body(versions: Iterable[VersionStatus]) -> bytes:
    """`{"model_version_status": [...]}`, in the order given."""
    statuses = [
        {
            "version": str(status.version),
            "state": status.state.name,
            "status": {"error_code": status.error_code, "error_message": status.error_message},
        }
        for status in versions
    ]
    return pretty({"model_version_status": statuses})


def metadata_body(name: str, version: int, signature_defs: SignatureDefs) -> bytes:
    """`{"model_spec": ..., "metadata": {"signature_def": ...}}`."""
    spec = {"name": name, "signature_name": "", "version": str(version)}
    return pretty({"model_spec": spec, "metadata": {"signature_def": signature_defs.json}})


def input_orders(signatures: Mapping[str, SignatureSpec]) -> str:
    """The orders of signatures as JSON, "" when none has one: name -> places of its inputs among their sorted names.

    Example:
        >>> input_orders({"f": SignatureSpec("f", {"a": ..., "b": ...}, {}, order=("b", "a"))})
        '{"f": [1, 0]}'
    """
    orders = {name: list(map(in_order(spec.inputs).index, spec.order)) for name, spec in signatures.items()}
    known = {name: places for name, places in orders.items() if places}
    return json.dumps(known) if known else ""


def signatures_mark(signatures: Mapping[str, SignatureSpec]) -> str:
    """A name for what a version takes and gives: equal for versions that a client can call alike."""

    def summarize(specs: Mapping[str, TensorSpec]) -> list[tuple[str, str, object]]:
        return [(name, spec.dtype, spec.shape) for name, spec in sorted(specs.items())]

    text = repr(
        [
            (name, summarize(spec.inputs), summarize(spec.outputs), spec.order)
            for name, spec in sorted(signatures.items())
        ]
    )
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
