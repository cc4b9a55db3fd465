"""The signatures that converters before TensorFlow 2.5 stored in the metadata of a TensorFlow Lite model.

Thread: any.

Reference: tensorflow/lite/tools/signature/signature_def_util.cc: the buffer of one entry of the metadata is a map of
FlexBuffers from signature names to serialized `SignatureDef`s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any  # protobuf messages

from ...errors import NotAvailable

ENTRY = "signature_defs_metadata"


def stored_signature_defs(file: Path) -> dict[str, Any]:
    """The `SignatureDef`s in a model's metadata by name; empty when it has none.

    Args:
        file: a model that LiteRT can load.

    Raises:
        NotAvailable: if they are damaged.
    """
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

    model = schema.Model.GetRootAs(file.read_bytes(), 0)
    found: dict[str, Any] = {}
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() != ENTRY.encode():
            continue
        try:
            stored = flexbuffers.GetRoot(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()).AsMap
            for key, value in zip(stored.Keys, stored.Values, strict=True):
                found[key.AsKey] = SignatureDef.FromString(value.AsStringBytes)
        except Exception as error:  # FlexBuffers' and protobuf's, of many kinds
            raise NotAvailable(f"{file}: {ENTRY} is damaged: {error}", hint="convert the model again") from error
    return found
