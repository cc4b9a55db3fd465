"""Ray Serve: `serve.yaml` for a cluster that sees this folder, and a RayService of KubeRay with an image of its own.

Thread: any.

Reference: Ray Serve's configuration file as of Ray 2.60; KubeRay's API, ray.io/v1.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import fields
from pathlib import Path

from ....errors import InvalidOption
from ....serving.batching.options import BatchingOptions
from ...ray.config import ACTOR_OPTIONS, AUTOSCALING_OPTIONS, DEPLOYMENT_OPTIONS, RayPlan
from ...ray.replica_model import ReplicaModel
from ..app import APP, app_lines, python_tag, write_app
from ..cluster import (
    RESOURCES_NOTE,
    TOKEN_MOUNT,
    Object,
    made,
    object_name,
    resources,
    token_volume,
    write_secret,
)
from ..contents import BundleContents
from ..files import Readme, as_yaml, copy_model, write_text, write_yaml
from ..images import TOKEN_FILE, image_name, registry_note
from ..kubernetes_shapes import POD, shape_of
from ..options import BundleOptions
from ..serving_files import GRPC_PORT, REST_PORT
from ..shape import Keys, Shape

SERVE_FILE, SERVICE_FILE, SECRET_FILE = "serve.yaml", "rayservice.yaml", "secret.yaml"
PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "http": REST_PORT, "grpc": GRPC_PORT}

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


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        InvalidOption: if the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    if not options.copy:
        raise InvalidOption("the image for KubeRay holds its models, so they are copied", hint="leave --no-copy out")
    name = object_name(contents.title)
    notes: list[str] = []
    for model in contents.models:
        notes += copy_model(model, model.versions, folder / "models" / model.name)
    write_app(contents, folder, ("ray",))
    here = plan(contents, options, f"{options.root}/models", f"{options.root}/token")
    write_yaml(folder / SERVE_FILE, SERVE, here.as_config())
    image = options.image or f"{image_name(contents.title)}-ray:{contents.models[0].default_version}"
    write_text(folder / "Dockerfile", _dockerfile())
    write_text(folder / ".dockerignore", f"README.md\ntoken\n{SECRET_FILE}\n")
    there = plan(contents, options, "/models", TOKEN_FILE)
    write_yaml(folder / SERVICE_FILE, RAY_SERVICE, _service(contents, options, there, name, image))
    write_secret(folder / SECRET_FILE, name)
    write_text(folder / ".gitignore", f"{SECRET_FILE}\ntoken\n")
    environment = " ".join(_word(f"{key}={value}") for key, value in here.environment().items())
    return Readme(
        title=f"{contents.title} on Ray Serve",
        commands=(
            "(umask 077; openssl rand -hex 32 > token)",
            f"env PYTHONPATH=$PWD/{APP} {environment} ray start --head    # on other nodes: --address=HEAD:6379",
            f"serve deploy {SERVE_FILE}    # or: kubectl apply --filename {SECRET_FILE} --filename {SERVICE_FILE}",
            f'curl --header "Authorization: Bearer $(cat token)" http://127.0.0.1:{REST_PORT}/v1/models/{contents.models[0].name}',
            f"docker build --tag {image} . && docker push {image}    # for KubeRay",
        ),
        checked=(f"{SERVE_FILE} and {SERVICE_FILE} have only keys that Ray Serve 2.60 and ray.io/v1 have.",),
        not_run=(
            "No cluster of several nodes and no KubeRay was there; the image was not built.",
            "`serve deploy` itself was not run: the same configuration was sent by this package.",
        ),
        notes=(
            *notes,
            *registry_note(options),
            f"Every node must see {options.root} under this path, or have a copy of it there.",
            "Ray opens further ports on every interface, its dashboard among them, without a token: keep the cluster "
            "in a network of its own. The token is checked in the replicas.",
            "A change of user_config (versions, traffic, labels) takes about a second; a change of anything else "
            "replaces replicas one by one.",
            f"{SECRET_FILE} holds a token that was made for it; .gitignore names it.",
            RESOURCES_NOTE,
        ),
    )


def plan(contents: BundleContents, options: BundleOptions, base: str, token_file: str) -> RayPlan:
    """What shall run.

    Args:
        contents: the models.
        options: how many replicas.
        base: the folder that holds a folder for each model, the same on every node.
        token_file: where nodes find the token.
    """
    limits = contents.batching.options
    models = tuple(
        ReplicaModel(
            model.name,
            f"{base}/{model.name}",
            versions=tuple(version.number for version in model.versions),
            traffic=dict(model.traffic),
            labels=dict(model.labels),
            batching={} if limits is None else {version.number: limits for version in model.versions},
        )
        for model in contents.models
    )
    return RayPlan(
        models,
        flags=(f"--auth_token_file={token_file}",),
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        host="0.0.0.0",  # noqa: S104 - of containers and clusters, with a token
        port=REST_PORT,
        grpc_port=GRPC_PORT,
    )


def _word(text: str) -> str:
    """A text as one word of a shell; with a line end in it, of bash and zsh."""
    return f"${text!r}" if "\n" in text else f"{text!r}"


def _service(contents: BundleContents, options: BundleOptions, there: RayPlan, name: str, image: str) -> Object:
    env = [{"name": key, "value": value} for key, value in there.environment().items()]

    def group(kind: str) -> Object:
        container = {
            "name": f"ray-{kind}",
            "image": image,
            "env": env,
            "ports": [{"name": port, "containerPort": number} for port, number in PORTS.items()]
            if kind == "head"
            else [],
            "resources": resources(contents),
            "volumeMounts": [TOKEN_MOUNT],
        }
        spec = {
            "securityContext": {"fsGroup": 1000},
            "containers": [container],
            "volumes": [token_volume(name)],
        }
        return {"rayStartParams": {}, "template": {"spec": spec}}

    cluster = {
        "rayVersion": importlib.metadata.version("ray"),
        "enableInTreeAutoscaling": True,
        "headGroupSpec": group("head"),
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": options.min_replicas,
                "minReplicas": options.min_replicas,
                "maxReplicas": options.max_replicas,
                **group("worker"),
            }
        ],
    }
    spec = {"serveConfigV2": as_yaml(there.as_config()), "rayClusterConfig": cluster}
    return made("RayService", name, "ray.io/v1", spec=spec)


def _dockerfile() -> str:
    tag = f"{importlib.metadata.version('ray')}-py{python_tag().replace('.', '')}"
    return f"""FROM rayproject/ray:{tag}
{app_lines()}
COPY models /models
ENV PYTHONPATH=/app
"""
