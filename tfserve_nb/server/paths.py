"""Where the parts of the HTTP API lie, for those who route requests and those who let them in.

Thread: any; constants.
"""

from __future__ import annotations

REST = "/v1/"
V2 = "/v2"
V2_HEALTH = "/v2/health/"
ADMIN = "/tfserve/v1"
DASHBOARD = "/tfserve/dashboard"
HEALTH = "/healthz"


def is_inference(target: str) -> bool:
    """Whether a request's target belongs to TensorFlow Serving's REST API or to the Open Inference Protocol."""
    return target[:4].lower() == REST or is_v2(target)


def is_v2(target: str) -> bool:
    """Whether a request's target belongs to the Open Inference Protocol."""
    return target[:3] == V2 and (target == V2 or target[3] in "/?")
