"""What a file for `serve deploy`, and a RayService of KubeRay, may hold.

Thread: any; constants.

Reference: Ray Serve's configuration file as of Ray 2.60; KubeRay's API, ray.io/v1.
"""

from __future__ import annotations

from dataclasses import fields

from ....serving.batching.options import BatchingOptions
from ...ray.config import ACTOR_OPTIONS, AUTOSCALING_OPTIONS, DEPLOYMENT_OPTIONS
from .kubernetes import POD, shape_of
from .shape import Keys, Shape

_ANY: Shape = object
_DEPLOYMENT: Shape = {
    **dict.fromkeys(sorted(DEPLOYMENT_OPTIONS), _ANY),
    "autoscaling_config": dict.fromkeys(sorted(AUTOSCALING_OPTIONS), _ANY),
    "ray_actor_options": dict.fromkeys(sorted(ACTOR_OPTIONS), _ANY),
    "user_config": {
        "models!": [
            {
                "name!": str,
                "base_path!": str,
                "versions": ([int], str),
                "traffic": Keys((int, float)),
                "labels": Keys(int),
                "promoted": [int],
                "batching": Keys(dict.fromkeys((one.name for one in fields(BatchingOptions)), _ANY)),
            }
        ],
        "revision": str,
    },
}

SERVE: Shape = {
    "proxy_location": frozenset({"EveryNode", "HeadOnly", "Disabled"}),
    "http_options": {"host": str, "port": int, "request_timeout_s": (int, float), "keep_alive_timeout_s": (int, float)},
    "grpc_options": {
        "port": int,
        "grpc_servicer_functions": [str],
        "enable_reflection": bool,
        "request_timeout_s": (int, float),
    },
    "applications!": [
        {
            "name!": str,
            "route_prefix": str,
            "import_path!": str,
            "args": {"flags": [str]},
            "deployments": [_DEPLOYMENT],
        }
    ],
}

_GROUP: Shape = {"rayStartParams!": Keys(str), "template!": {"spec!": POD}}

RAY_SERVICE: Shape = shape_of(
    "ray.io/v1",
    "RayService",
    {
        "spec!": {
            "serveConfigV2!": str,
            "rayClusterConfig!": {
                "rayVersion": str,
                "enableInTreeAutoscaling": bool,
                "headGroupSpec!": _GROUP,
                "workerGroupSpecs": [
                    {**_GROUP, "groupName!": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
                ],
            },
        }
    },
)
