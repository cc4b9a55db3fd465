"""KServe: an InferenceService with its TensorFlow runtime, another with `tfserve-nb serve`, and a canary.

Thread: any.

Reference: KServe's API, serving.kserve.io/v1beta1.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ....export.layout import folder_bytes
from ..cluster import (
    CONTAINER_SECURITY,
    GIB,
    MIB,
    RESOURCES_NOTE,
    Object,
    made,
    object_name,
    own_container,
    own_volumes,
    resources,
    write_objects,
    write_secret,
)
from ..contents import BundleContents, BundledModel, BundledVersion
from ..files import Readme, copy_model, write_text, write_yaml
from ..images import Images, registry_note, write_images
from ..kubernetes_shapes import CONTAINER, POD, shape_of
from ..options import BundleOptions
from ..serving_files import CHECKED, version_note
from ..shape import Shape

FOLDER = "kserve"
API, MODE = "serving.kserve.io/v1beta1", "serving.kserve.io/deploymentMode"
REST_PORT, GRPC_PORT = 8080, 9000
"""The ports that KServe expects."""

DEFAULT_STORAGE = "pvc://tfserve-models"
VOLUME_FILE = "volume.yaml"
COPY_IMAGE = "busybox:1.37"
STORAGE = "storage"
"""The folder of a bundle that is copied there."""

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


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        InvalidOption: if there are several models, or the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    model = contents.model
    storage = (options.storage or DEFAULT_STORAGE).rstrip("/")
    name = object_name(model.name)
    images = write_images(contents, options, folder)
    own = made("InferenceService", f"{name}-own", API, spec=_own_spec(images, contents, name, options))
    _write(folder / FOLDER / "tfserve-nb.yaml", own)
    write_secret(folder / FOLDER / "secret.yaml", name)
    write_text(folder / ".gitignore", f"{FOLDER}/secret.yaml\n")
    canary = _canary(model)
    if images.serving:
        versions = (model.default, *((canary[0],) if canary else ()))
        for version in versions:
            copy_model(model, (version,), folder / STORAGE / _revision(model, version))
        stable = _runtime(contents, options, model.default, storage, is_split=canary is not None)
        _write(folder / FOLDER / "tensorflow.yaml", stable)
        if storage.startswith("pvc://"):
            write_objects(folder / FOLDER / VOLUME_FILE, *copy_objects(storage, contents))
        if canary:
            _write(folder / FOLDER / "canary.yaml", _with_canary(contents, options, canary, storage))
    return _readme(contents, images, options, storage, canary)


def upload_command(address: str) -> str:
    """What copies the bundle's `storage/` to an address; to a volume, by way of `copy_objects`."""
    scheme, _, place = address.partition("://")
    if scheme == "gs":
        return f"gcloud storage cp --recursive {STORAGE}/* {shlex.quote(address + '/')}"
    if scheme == "s3":
        return f"aws s3 cp --recursive {STORAGE}/ {shlex.quote(address + '/')}"
    claim, _, below = place.partition("/")
    pod_name = _copier(claim)
    return (
        f"kubectl apply --filename {FOLDER}/{VOLUME_FILE} && kubectl wait --for=condition=Ready pod/{pod_name} && "
        f"kubectl cp {STORAGE}/. {shlex.quote(f'{pod_name}:/mnt/{below}')} && kubectl delete pod {pod_name}"
    )


def copy_objects(address: str, contents: BundleContents) -> tuple[Object, Object]:
    """The claim of a volume, `pvc://CLAIM/FOLDER`, and a pod through which files are copied into it."""
    claim, _, below = address.removeprefix("pvc://").partition("/")
    files = sum(folder_bytes(version.folder) for model in contents.models for version in model.versions)
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": f"{(GIB + 4 * files) // MIB}Mi"}}}
    container = {
        "name": "copy",
        "image": COPY_IMAGE,
        "command": ["sh", "-c", f"mkdir -p {shlex.quote(f'/mnt/{below}')} && sleep 3600"],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "models", "mountPath": "/mnt"}],
    }
    pod_spec = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000},
        "containers": [container],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return made("PersistentVolumeClaim", claim, spec=spec), made("Pod", _copier(claim), spec=pod_spec)


def _copier(claim: str) -> str:
    return f"{claim}-copy"


def _revision(model: BundledModel, version: BundledVersion) -> str:
    """The folder of one revision: KServe's runtime serves the highest version of its folder, so it has one."""
    return f"{model.name}-{version.number}"


def _canary(model: BundledModel) -> tuple[BundledVersion, int] | None:
    """The version that shares the traffic with the promoted one, and its percentage; None without a split in two."""
    others = {number: percent for number, percent in model.traffic.items() if number != model.default_version}
    if len(others) != 1:
        return None
    ((number, percent),) = others.items()
    version = model.version(number)
    return None if version.file else (version, round(percent))


def _runtime(
    contents: BundleContents, options: BundleOptions, version: BundledVersion, storage: str, *, is_split: bool
) -> Object:
    """An InferenceService with KServe's own runtime, which is TensorFlow Serving."""
    predictor = {
        "minReplicas": options.min_replicas,
        "maxReplicas": options.max_replicas,
        "model": {
            "modelFormat": {"name": "tensorflow", "version": "2"},
            "runtime": "kserve-tensorflow-serving",
            "protocolVersion": "v1",
            "storageUri": f"{storage}/{_revision(contents.model, version)}",
            "resources": resources(contents),
        },
    }
    service = made("InferenceService", object_name(contents.model.name), API, spec={"predictor": predictor})
    # Only Knative divides the traffic of two revisions.
    service["metadata"]["annotations"] = {MODE: "Knative" if is_split else "Standard"}
    return service


def _with_canary(
    contents: BundleContents, options: BundleOptions, canary: tuple[BundledVersion, int], storage: str
) -> Object:
    """The same with the other version, which gets its percentage while the earlier revision keeps the rest."""
    version, percent = canary
    changed = _runtime(contents, options, version, storage, is_split=True)
    changed["spec"]["predictor"]["canaryTrafficPercent"] = percent
    return changed


def _own_spec(images: Images, contents: BundleContents, token: str, options: BundleOptions) -> Object:
    """A predictor with `tfserve-nb serve`, on KServe's ports."""
    container = own_container(images, contents, "kserve-container")
    # The last of two flags of a name counts.
    container["args"] = [*images.own_flags, f"--rest_api_port={REST_PORT}", f"--port={GRPC_PORT}"]
    container["ports"] = [{"containerPort": REST_PORT, "protocol": "TCP"}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        container[probe]["httpGet"]["port"] = REST_PORT
    return {
        "predictor": {
            "minReplicas": options.min_replicas,
            "maxReplicas": options.max_replicas,
            "containers": [container],
            "volumes": own_volumes(token),
        }
    }


def _write(path: Path, document: Object) -> None:
    write_yaml(path, INFERENCE_SERVICE, document)


def _readme(
    contents: BundleContents,
    images: Images,
    options: BundleOptions,
    storage: str,
    canary: tuple[BundledVersion, int] | None,
) -> Readme:
    model = contents.model
    name = object_name(model.name)
    commands = []
    if images.serving:
        commands += [upload_command(storage), f"kubectl apply --filename {FOLDER}/tensorflow.yaml"]
        commands += [f"kubectl apply --filename {FOLDER}/canary.yaml    # once the first is ready"] if canary else []
    commands += [
        f"docker build --tag {shlex.quote(images.own)} . && docker push {shlex.quote(images.own)}",
        f"kubectl apply --filename {FOLDER}/secret.yaml --filename {FOLDER}/tfserve-nb.yaml",
        f"kubectl get inferenceservice {name} {name}-own",
    ]
    notes = [*images.notes, *registry_note(options)]
    if images.serving:
        notes += [
            f"With KServe's TensorFlow runtime, clients call /v1/models/{name}:predict, without labels; "
            "batching is not set up there.",
            *version_note(),
        ]
        if storage.startswith("pvc://"):
            notes.append(
                f"{FOLDER}/{VOLUME_FILE} makes the volume claim, and a pod of {COPY_IMAGE} that files are copied by. "
                "Pods on several nodes need ReadWriteMany there, or a bucket: `storage='s3://...'`."
            )
        if canary:
            notes.append(
                f"Version {canary[0].number} gets {canary[1]} % of the traffic. canaryTrafficPercent works in KServe's "
                "Knative mode only; in Standard mode bundle without a split."
            )
    notes += [f"{FOLDER}/secret.yaml holds a token that was made for {name}-own; .gitignore names it.", RESOURCES_NOTE]
    return Readme(
        title=f"{model.name} on KServe",
        commands=tuple(commands),
        checked=(CHECKED, "The InferenceServices have only keys of serving.kserve.io/v1beta1."),
        not_run=(
            "No cluster was there: nothing was applied, and KServe's runtime did not serve the model.",
            "The image was not built: there was no container engine.",
        ),
        notes=tuple(dict.fromkeys(notes)),
    )
