"""What objects of Kubernetes and of the Prometheus Operator may hold, as far as bundles have them.

Thread: any; constants.

Reference: the Kubernetes API, v1.30 and later (`preStop.sleep`); the Prometheus Operator's API,
monitoring.coreos.com/v1.
"""

from __future__ import annotations

from typing import Any

from .shape import Keys, Shape, check

_PORT: Shape = (int, str)
_METADATA: Shape = {"name!": str, "labels": Keys(str), "annotations": Keys(str)}
_QUANTITIES: Shape = {"requests": Keys(str), "limits": Keys(str)}
_PROBE: Shape = {
    "httpGet": {"path!": str, "port!": _PORT},
    "tcpSocket": {"port!": _PORT},
    "exec": {"command!": [str]},
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
_ENV: Shape = [
    {"name!": str, "value": str, "valueFrom": {"secretKeyRef": {"name!": str, "key!": str}}},
]

CONTAINER: Shape = {
    "name!": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": _ENV,
    "ports": [{"name": str, "containerPort!": int, "protocol": str}],
    "resources": _QUANTITIES,
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
        "seccompProfile": {"type!": str},
    },
    "startupProbe": _PROBE,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "lifecycle": {"preStop": {"sleep": {"seconds!": int}}},
    "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool}],
}

POD: Shape = {
    "automountServiceAccountToken": bool,
    "terminationGracePeriodSeconds": int,
    "restartPolicy": frozenset({"Always", "OnFailure", "Never"}),
    "securityContext": {"runAsNonRoot": bool, "fsGroup": int},
    "containers!": [CONTAINER],
    "volumes": [
        {
            "name!": str,
            "emptyDir": {},
            "secret": {"secretName!": str, "defaultMode": int, "items": [{"key!": str, "path!": str}]},
            "persistentVolumeClaim": {"claimName!": str, "readOnly": bool},
        }
    ],
}

_SELECTOR: Shape = {"matchLabels!": Keys(str)}
_TEMPLATE: Shape = {"metadata!": {"labels!": Keys(str), "annotations": Keys(str)}, "spec!": POD}


def shape_of(api: str, kind: str, parts: dict[str, Shape]) -> Shape:
    """The shape of one kind of object."""
    return {"apiVersion!": frozenset({api}), "kind!": frozenset({kind}), "metadata!": _METADATA, **parts}


KINDS: dict[str, Shape] = {
    "Deployment": shape_of(
        "apps/v1",
        "Deployment",
        {
            "spec!": {
                "replicas": int,
                "selector!": _SELECTOR,
                "strategy": {
                    "type": frozenset({"RollingUpdate", "Recreate"}),
                    "rollingUpdate": {"maxUnavailable": (int, str), "maxSurge": (int, str)},
                },
                "template!": _TEMPLATE,
            }
        },
    ),
    "Service": shape_of(
        "v1",
        "Service",
        {
            "spec!": {
                "selector!": Keys(str),
                "ports!": [{"name": str, "port!": int, "targetPort": _PORT, "appProtocol": str}],
            }
        },
    ),
    "HorizontalPodAutoscaler": shape_of(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {
            "spec!": {
                "scaleTargetRef!": {"apiVersion": str, "kind!": str, "name!": str},
                "minReplicas": int,
                "maxReplicas!": int,
                "metrics": [
                    {
                        "type!": frozenset({"Resource"}),
                        "resource": {"name!": str, "target!": {"type!": str, "averageUtilization": int}},
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": int}},
            }
        },
    ),
    "PodDisruptionBudget": shape_of(
        "policy/v1",
        "PodDisruptionBudget",
        {"spec!": {"selector!": _SELECTOR, "maxUnavailable": (int, str), "minAvailable": (int, str)}},
    ),
    "NetworkPolicy": shape_of(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {
            "spec!": {
                "podSelector!": _SELECTOR,
                "policyTypes": [frozenset({"Ingress", "Egress"})],
                "ingress": [
                    {
                        "from": [{"podSelector": {"matchLabels": Keys(str)}, "namespaceSelector": _SELECTOR}],
                        "ports": [{"port!": _PORT, "protocol": str}],
                    }
                ],
                "egress": [{}],
            }
        },
    ),
    "Pod": shape_of("v1", "Pod", {"spec!": POD}),
    "PersistentVolumeClaim": shape_of(
        "v1", "PersistentVolumeClaim", {"spec!": {"accessModes!": [str], "resources!": _QUANTITIES}}
    ),
    "Secret": shape_of("v1", "Secret", {"type": str, "stringData": Keys(str)}),
    "Job": shape_of(
        "batch/v1",
        "Job",
        {"spec!": {"backoffLimit": int, "ttlSecondsAfterFinished": int, "template!": _TEMPLATE}},
    ),
    "ServiceMonitor": shape_of(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        {
            "spec!": {
                "selector!": _SELECTOR,
                "endpoints!": [
                    {
                        "port": str,
                        "path": str,
                        "interval": str,
                        "authorization": {"type": str, "credentials": {"name!": str, "key!": str}},
                    }
                ],
            }
        },
    ),
}


def check_object(document: Any, where: str) -> None:
    """See that an object of a known kind has no other keys than its kind may have.

    Raises:
        ExportFailed: naming the place.
    """
    kind = document.get("kind", "")
    check(kind, frozenset(KINDS), f"{where}: kind")
    check(document, KINDS[kind], f"{where}: {kind}")
