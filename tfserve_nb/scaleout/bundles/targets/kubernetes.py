"""Kubernetes: the images of the docker target, and objects for both servers, with a Job that compares them.

Thread: any.
"""

from __future__ import annotations

from pathlib import Path

from ....server.config_files import DEFAULT_METRICS_PATH
from ..cluster import (
    CONTAINER_SECURITY,
    RESOURCES_NOTE,
    TMP_MOUNT,
    TMP_VOLUME,
    TOKEN_KEY,
    Object,
    labels_of,
    made,
    object_name,
    own_container,
    own_volumes,
    pod,
    serving_container,
    token_command,
    write_objects,
    write_secret,
)
from ..contents import BundleContents
from ..files import Readme, write_text
from ..images import OWN_FILE, SERVING_FILE, Images, registry_note, write_images
from ..options import BundleOptions
from ..serving_files import CHECKED, GRPC_PORT, REST_PORT, model_path

FOLDER, LATER = "kubernetes", "kubernetes/later"
CLIENT_LABEL = "tfserve-nb/client"
"""A namespace with this label may call the servers."""

MAX_UTILISATION = 70
"""Per cent of the processor that a pod asks for, above which the autoscaler adds one."""


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        InvalidOption: if the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    images = write_images(contents, options, folder)
    name = object_name(contents.title)
    other = f"{name}-tensorflow-serving"
    target = folder / FOLDER
    write_secret(target / "secret.yaml", name)
    own = pod(own_container(images, contents), own_volumes(name))
    write_objects(target / "deployment.yaml", deployment(name, own))
    write_objects(target / "service.yaml", service(name))
    write_objects(target / "autoscaler.yaml", autoscaler(name, options))
    write_objects(target / "disruption-budget.yaml", disruption_budget(name))
    write_objects(target / "network-policy.yaml", network_policy(name))
    later = folder / LATER
    write_objects(later / "service-monitor.yaml", service_monitor(name))
    if images.serving:
        serving = deployment(
            other, pod(serving_container(images, contents), [TMP_VOLUME]), replicas=options.min_replicas
        )
        write_objects(later / "tensorflow-serving.yaml", serving, service(other), network_policy(other))
        write_objects(later / "parity-job.yaml", parity_job(name, images, other))
    write_text(folder / ".gitignore", f"{FOLDER}/secret.yaml\n")
    return _readme(contents, images, name, options)


def deployment(name: str, template: Object, **replicas: int) -> Object:
    """Pods that are replaced one by one, each new one before an old one ends.

    Args:
        name: what it is called.
        template: the specification of a pod.
        **replicas: `replicas`, where no autoscaler decides them.
    """
    return made(
        "Deployment",
        name,
        "apps/v1",
        spec={
            **replicas,
            "selector": {"matchLabels": labels_of(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels_of(name)}, "spec": template},
        },
    )


def service(name: str) -> Object:
    """REST and gRPC under one name."""
    ports = [
        {"name": "http", "port": REST_PORT, "targetPort": "http"},
        {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
    ]
    return made("Service", name, spec={"selector": labels_of(name), "ports": ports})


def autoscaler(name: str, options: BundleOptions) -> Object:
    """More pods while their processors are busy."""
    target = {"type": "Utilization", "averageUtilization": MAX_UTILISATION}
    return made(
        "HorizontalPodAutoscaler",
        name,
        "autoscaling/v2",
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": options.min_replicas,
            "maxReplicas": options.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    )


def disruption_budget(name: str) -> Object:
    """Nodes are emptied one pod at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels_of(name)}}
    return made("PodDisruptionBudget", name, "policy/v1", spec=spec)


def network_policy(name: str) -> Object:
    """Pods of this namespace, and of those with `CLIENT_LABEL`, may call; the servers call nobody."""
    return made(
        "NetworkPolicy",
        name,
        "networking.k8s.io/v1",
        spec={
            "podSelector": {"matchLabels": labels_of(name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {CLIENT_LABEL: "true"}}}],
                    "ports": [{"port": REST_PORT}, {"port": GRPC_PORT}],
                }
            ],
            "egress": [],
        },
    )


def service_monitor(name: str) -> Object:
    """Have the Prometheus Operator scrape the pods, with the token."""
    endpoint = {
        "port": "http",
        "path": DEFAULT_METRICS_PATH,
        "interval": "15s",
        "authorization": {"type": "Bearer", "credentials": {"name": name, "key": TOKEN_KEY}},
    }
    spec = {"selector": {"matchLabels": labels_of(name)}, "endpoints": [endpoint]}
    return made("ServiceMonitor", name, "monitoring.coreos.com/v1", spec=spec)


def parity_job(name: str, images: Images, other: str) -> Object:
    """Compare both servers in the cluster; the Job fails when they differ."""
    container = {
        "name": "parity",
        "image": images.own,
        "command": ["python", "-m", "tfserve_nb"],
        "args": [
            "parity",
            f"http://{name}:{REST_PORT}",
            f"http://{other}:{REST_PORT}",
            "--grpc",
            f"{name}:{GRPC_PORT}",
            f"{other}:{GRPC_PORT}",
            "--model",
            ",".join(one.model.name for one in images.models),
            "--token-env",
            "TFSERVE_TOKEN",
            "-",
        ],
        "env": [{"name": "TFSERVE_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": TOKEN_KEY}}}],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [TMP_MOUNT],
    }
    template = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000},
        "containers": [container],
        "volumes": [TMP_VOLUME],
    }
    spec = {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 86_400,
        "template": {"metadata": {"labels": labels_of(f"{name}-parity")}, "spec": template},
    }
    return made("Job", f"{name}-parity", "batch/v1", spec=spec)


def _readme(contents: BundleContents, images: Images, name: str, options: BundleOptions) -> Readme:
    alone = "One replica: while its node is emptied, nothing answers. `min_replicas=2` keeps one."
    commands = [
        f"docker build --tag {images.own} . && docker push {images.own}",
        f"kubectl apply --filename {FOLDER}/ && kubectl rollout status deployment/{name}",
        f"kubectl port-forward service/{name} {REST_PORT}    # goes on until Ctrl-C",
        f'curl --header "Authorization: Bearer $({token_command(name)})" '
        f"http://127.0.0.1:{REST_PORT}{model_path(images.models[0].model.name)}    # in another shell",
    ]
    if images.serving:
        commands.append(
            f"docker build --tag {images.serving} --file {SERVING_FILE} . && docker push {images.serving} && "
            f"kubectl apply --filename {LATER}/tensorflow-serving.yaml --filename {LATER}/parity-job.yaml && "
            f"kubectl wait --for=condition=complete --timeout=300s job/{name}-parity    # whether both answer the same"
        )
    return Readme(
        title=f"{contents.title} on Kubernetes",
        commands=tuple(commands),
        checked=(CHECKED, "Every object has only keys that its kind has in Kubernetes (1.30 and later)."),
        not_run=(
            "No cluster was there: nothing was applied.",
            f"Neither image ({OWN_FILE}, {SERVING_FILE}) was built: there was no container engine.",
        ),
        notes=(
            *images.notes,
            *registry_note(options),
            f"{FOLDER}/secret.yaml holds a token that was made for it: whoever reads it may call the server. "
            ".gitignore names the file.",
            f"Pods of the same namespace may call, and those of namespaces with the label {CLIENT_LABEL}=true: "
            f"kubectl label namespace NAME {CLIENT_LABEL}=true. An ingress controller and Prometheus need it too.",
            f"{LATER}/service-monitor.yaml needs the Prometheus Operator.",
            RESOURCES_NOTE,
            *([alone] if options.min_replicas == 1 else []),
            f"To roll back: kubectl rollout undo deployment/{name}. A new version is a new tag of the image.",
        ),
    )
