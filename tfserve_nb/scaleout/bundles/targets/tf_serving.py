"""TensorFlow Serving on a machine: models, configuration, a Compose file, a systemd unit, alerts.

Thread: any.

Reference: the Compose specification, compose-spec.json.
"""

from __future__ import annotations

from pathlib import Path

from ..alerts import RULES, alerts
from ..contents import BundleContents
from ..files import Readme, copy_model, write_text, write_yaml
from ..images import health_command
from ..options import BundleOptions
from ..serving_files import (
    CHECKED,
    GRPC_PORT,
    REST_PORT,
    SERVING_IMAGE,
    SERVING_VERSION,
    ServedModel,
    check_for_tensorflow_serving,
    model_path,
    notes_on,
    served_models,
    version_note,
    write_serving_files,
)
from ..shape import Keys, Shape
from ..systemd import UNIT_FILE, check_unit, unit_text

COMPOSE_FILE, RULES_FILE, FLAGS_FILE = "compose.yaml", "prometheus-rules.yaml", "flags.txt"

_SERVICE: Shape = {
    "image!": str,
    "entrypoint": [str],
    "command": [str],
    "user": str,
    "read_only": bool,
    "ports": [str],
    "volumes": [str],
    "tmpfs": [str],
    "cap_drop": [str],
    "security_opt": [str],
    "restart": frozenset({"no", "always", "on-failure", "unless-stopped"}),
    "stop_grace_period": str,
    "healthcheck": {"test!": [str], "interval": str, "timeout": str, "retries": int, "start_period": str},
}

COMPOSE: Shape = {"name": str, "services!": Keys(_SERVICE)}


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        FailedPrecondition: if a version is none that TensorFlow Serving serves.
        OSError: if a version cannot be copied.
    """
    root = options.root
    models = served_models(contents, options, f"{root}/models" if options.copy else None)
    check_for_tensorflow_serving(models)
    warmup: list[str] = []
    for one in models if options.copy else ():
        warmup += copy_model(one.model, one.versions, folder / "models" / one.model.name)
    flags = write_serving_files(contents, models, folder, root)
    write_text(folder / FLAGS_FILE, "\n".join(flags) + "\n")
    write_yaml(folder / COMPOSE_FILE, COMPOSE, _compose(models, flags, root, is_copied=options.copy))
    unit = unit_text(f"TensorFlow Serving: {contents.title}", ["/usr/bin/tensorflow_model_server", *flags])
    write_text(folder / UNIT_FILE, unit)
    check_unit(unit)
    write_yaml(folder / RULES_FILE, RULES, alerts(contents.title))
    return _readme(contents, models, tuple(warmup), root)


def _compose(
    models: tuple[ServedModel, ...], flags: tuple[str, ...], root: str, *, is_copied: bool
) -> dict[str, object]:
    name = models[0].model.name
    elsewhere = [] if is_copied else sorted({one.base_path for one in models})
    return {
        "services": {
            "serving": {
                "image": SERVING_IMAGE,
                "entrypoint": ["tensorflow_model_server"],
                "command": list(flags),
                "user": "1000:1000",
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                # TensorFlow Serving asks for no token: only this machine may call it.
                "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
                "volumes": [f".:{root}:ro", *(f"{path}:{path}:ro" for path in elsewhere)],
                "restart": "unless-stopped",
                "healthcheck": {
                    "test": ["CMD", *health_command(model_path(name))],
                    "interval": "10s",
                    "timeout": "5s",
                    "retries": 3,
                    "start_period": "60s",
                },
            }
        }
    }


def _readme(contents: BundleContents, models: tuple[ServedModel, ...], warmup: tuple[str, ...], root: str) -> Readme:
    url = f"http://127.0.0.1:{REST_PORT}"
    path = model_path(models[0].model.name)
    return Readme(
        title=f"{contents.title} for TensorFlow Serving",
        commands=(
            f"tfserve-nb serve $(cat {FLAGS_FILE})    # here and now: the same files, without TensorFlow Serving",
            "docker compose up --detach --wait    # or TensorFlow Serving in a container",
            f"sudo cp {UNIT_FILE} /etc/systemd/system/ && sudo systemctl enable --now {UNIT_FILE}"
            "    # or its package tensorflow-model-server as a service",
            f"curl {url}{path}    # whichever of the three it is",
            f"# in the notebook, whether it answers the same: d.parity('{url}')",
        ),
        checked=(
            CHECKED,
            f"{COMPOSE_FILE}, {UNIT_FILE} and {RULES_FILE} have no key that they may not have.",
        ),
        not_run=(f"TensorFlow Serving {SERVING_VERSION} itself, in a container or not: run the parity check there.",),
        notes=(
            *version_note(),
            *notes_on(models),
            *warmup,
            f"{root} has to be readable for the user that the server runs as, 1000 in the container and one of its own "
            "as a service: a home folder usually is not. `root='/srv/models'` (`--root`): the bundle will move there.",
            "TensorFlow Serving asks for no token, so the Compose file and the systemd unit let only this machine call "
            "it: put a proxy that checks clients in front of it.",
        ),
    )
