"""What the objects of Kubernetes, KServe and KubeRay have in common: names, containers, pods.

Thread: any.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any  # YAML

from ...export.layout import folder_bytes
from .contents import BundleContents
from .files import as_yaml, write_text
from .images import TOKEN_FILE, Images, image_name
from .kubernetes_shapes import check_object
from .serving_files import GRPC_PORT, REST_PORT, model_path

MAX_NAME = 50
"""Of the 63 letters of a name, so that suffixes fit in."""

DRAIN_S = 30
"""Running requests may take so long when a pod ends: what `--drain_seconds` is by default."""

SLEEP_S = 5
"""A pod that ends goes on answering so long, until every proxy has heard of it."""

GIB, MIB = 1024**3, 1024**2
MIN_MEMORY = GIB
TOKEN_KEY = "token"  # noqa: S105 - what the token is called in its Secret

Object = dict[str, Any]


def object_name(name: str) -> str:
    """A model's name as objects may be called."""
    cleaned = image_name(name)[:MAX_NAME].strip("-")
    return cleaned if cleaned[0].isalpha() else f"m-{cleaned}"


def labels_of(name: str) -> dict[str, str]:
    """The label that an object has, and by which others find it."""
    return {"app.kubernetes.io/name": name}


def made(kind: str, name: str, version: str = "v1", **parts: Any) -> Object:
    """An object with its labels."""
    labels = {**labels_of(name), "app.kubernetes.io/managed-by": "tfserve-nb"}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **parts}


def write_objects(path: Path, *objects: Object, mode: int = 0o644) -> None:
    """Write objects of Kubernetes, each of which has only keys of its kind.

    Raises:
        ExportFailed: naming the place that has another.
    """
    for one in objects:
        check_object(one, path.name)
    write_text(path, "---\n".join(as_yaml(one) for one in objects), mode)


def write_secret(path: Path, name: str) -> None:
    """Write a Secret with a new token, which only its owner can read; that of the notebook stays where it is."""
    secret = made("Secret", name, type="Opaque", stringData={TOKEN_KEY: secrets.token_urlsafe(32)})
    write_objects(path, secret, mode=0o600)


def token_command(secret: str) -> str:
    """What shows the token of a Secret that is in a cluster."""
    return f"kubectl get secret {secret} --output jsonpath='{{.data.{TOKEN_KEY}}}' | base64 --decode"


def resources(contents: BundleContents) -> Object:
    """An estimate of what a server takes: one core, and memory for TensorFlow and three times the files."""
    files = sum(folder_bytes(version.folder) for model in contents.models for version in model.versions)
    memory = f"{(MIN_MEMORY + 3 * files) // MIB}Mi"
    return {"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}}


RESOURCES_NOTE = (
    "Memory and processor that a server asks for are an estimate (1 GiB and three times the files), not measured."
)

TMP_VOLUME: Object = {"name": "tmp", "emptyDir": {}}
TMP_MOUNT: Object = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - of the container
"""All else in a container is read-only."""

TOKEN_MOUNT: Object = {"name": "token", "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True}

CONTAINER_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def own_container(images: Images, contents: BundleContents, name: str = "server") -> Object:
    """A container with `tfserve-nb serve`; it needs `own_volumes`."""
    return {
        **_container(name, images.own, contents),
        "args": images.own_flags,
        "command": ["python", "-m", "tfserve_nb", "serve"],
        "startupProbe": _probe("/healthz", failureThreshold=60),
        # All versions are loaded before the port opens; it answers without a token.
        "readinessProbe": _probe("/v2/health/ready"),
        "livenessProbe": _probe("/healthz", failureThreshold=6),
        "volumeMounts": [TMP_MOUNT, TOKEN_MOUNT],
    }


def own_volumes(secret: str) -> list[Object]:
    """The volumes of `own_container`.

    Args:
        secret: the Secret that holds the token.
    """
    return [TMP_VOLUME, token_volume(secret)]


def token_volume(secret: str) -> Object:
    """The volume of `TOKEN_MOUNT`.

    Args:
        secret: the Secret that holds the token.
    """
    token = {
        "secretName": secret,
        "defaultMode": 0o440,
        "items": [{"key": TOKEN_KEY, "path": TOKEN_FILE.rpartition("/")[2]}],
    }
    return {"name": TOKEN_MOUNT["name"], "secret": token}


def serving_container(images: Images, contents: BundleContents) -> Object:
    """A container with TensorFlow Serving; it needs `TMP_VOLUME`."""
    status = model_path(images.models[0].model.name)
    return {
        **_container("server", images.serving, contents),
        "command": ["tensorflow_model_server"],
        "args": list(images.flags),
        "startupProbe": _probe(status, failureThreshold=60),
        "readinessProbe": _probe(status),
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [TMP_MOUNT],
    }


def pod(container: Object, volumes: list[Object]) -> Object:
    """The specification of a pod that ends without losing a request."""
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": DRAIN_S + SLEEP_S + 10,
        # The token's file belongs to this group.
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000},
        "containers": [{**container, "lifecycle": {"preStop": {"sleep": {"seconds": SLEEP_S}}}}],
        "volumes": volumes,
    }


def _container(name: str, image: str, contents: BundleContents) -> Object:
    return {
        "name": name,
        "image": image,
        "ports": [{"name": "http", "containerPort": REST_PORT}, {"name": "grpc", "containerPort": GRPC_PORT}],
        "resources": resources(contents),
        "securityContext": CONTAINER_SECURITY,
    }


def _probe(path: str, **settings: Any) -> Object:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3, **settings}
