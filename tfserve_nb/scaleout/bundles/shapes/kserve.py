"""What an InferenceService of KServe may hold, as far as bundles have it.

Thread: any; constants.

Reference: KServe's API, serving.kserve.io/v1beta1.
"""

from __future__ import annotations

from .kubernetes import CONTAINER, POD, shape_of
from .shape import Shape

_PREDICTOR: Shape = {
    "minReplicas": int,
    "maxReplicas": int,
    "scaleMetric": frozenset({"cpu", "memory", "concurrency", "rps"}),
    "scaleTarget": int,
    "canaryTrafficPercent": int,
    "model": {
        "modelFormat!": {"name!": str, "version": str},
        "runtime": str,
        "protocolVersion": frozenset({"v1", "v2", "grpc-v1", "grpc-v2"}),
        "storageUri": str,
        "resources": CONTAINER["resources"],
    },
    "containers": [CONTAINER],
    "volumes": POD["volumes"],
}

INFERENCE_SERVICE: Shape = shape_of(
    "serving.kserve.io/v1beta1", "InferenceService", {"spec!": {"predictor!": _PREDICTOR}}
)
