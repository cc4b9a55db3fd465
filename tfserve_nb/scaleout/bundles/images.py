"""The images of a bundle: `tfserve-nb serve` and TensorFlow Serving, both with the models and their configuration.

Thread: any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidOption
from .app import app_lines, engines_of, python_tag, write_app
from .contents import BundleContents
from .files import copy_model, write_text
from .options import BundleOptions
from .serving_files import (
    GRPC_PORT,
    REST_PORT,
    SERVING_IMAGE,
    SERVING_VERSION,
    ServedModel,
    model_path,
    notes_on,
    served_models,
    version_note,
    write_serving_files,
)

OWN_FILE, SERVING_FILE = "Dockerfile", "Dockerfile.tensorflow-serving"
CONFIG = "config"
TOKEN_FILE = "/run/secrets/tfserve/token"  # noqa: S105 - a path
USER = "1000:1000"


@dataclass(frozen=True, slots=True)
class Images:
    """What the images of a bundle are.

    Attributes:
        own: what the image of `tfserve-nb serve` is called.
        serving: what that of TensorFlow Serving is called; "" where it cannot serve the models.
        models: what both serve.
        flags: of both servers.
        notes: what is known of them, one sentence each.
    """

    own: str
    serving: str
    models: tuple[ServedModel, ...]
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def own_command(self) -> list[str]:
        """What runs in the image of `tfserve-nb serve`."""
        return ["python", "-m", "tfserve_nb", "serve", *self.own_flags]

    @property
    def own_flags(self) -> list[str]:
        """The flags of `tfserve-nb serve`, which every machine may reach, with a token."""
        return ["--host=0.0.0.0", *self.flags, f"--auth_token_file={TOKEN_FILE}", *self._engine]

    @property
    def _engine(self) -> list[str]:
        engines = {version.engine for one in self.models for version in one.versions if not version.file}
        return [f"--engine={'auto' if len(engines) > 1 else engines.pop()}"] if engines - {"tensorflow"} else []


def write_images(contents: BundleContents, options: BundleOptions, folder: Path) -> Images:
    """Write what both images are built from.

    Raises:
        InvalidOption: if the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    if not options.copy:
        raise InvalidOption("an image holds its models, so they are copied", hint="leave --no-copy out")
    models = served_models(contents, options, "/models")
    notes: list[str] = []
    for one in models:
        notes += copy_model(one.model, one.versions, folder / "models" / one.model.name)
    flags = write_serving_files(contents, models, folder / CONFIG, f"/{CONFIG}")
    write_app(contents, folder)
    default = models[0].versions[-1].number
    own = options.image or f"{image_name(contents.title)}:{default}"
    files = [version for one in models for version in one.versions if version.file]
    if files:
        notes.append(
            f"There is no image of TensorFlow Serving: it does not serve {files[0].file} of version {files[0].number}."
        )
    serving = "" if files else _tagged(own)
    engines = ", ".join(engines_of(contents))
    said = (f"The image holds the engine {engines}.",) if engines else ()
    about = (*(version_note() if serving else ()), *notes_on(models), *notes, *said)
    images = Images(own, serving, models, flags, about)
    write_text(folder / OWN_FILE, _own_file(images))
    write_text(folder / ".dockerignore", "README.md\ntoken\nkubernetes\nkserve\nstorage\n")
    if serving:
        write_text(folder / SERVING_FILE, _serving_file(images))
    return images


def health_command(path: str, port: int = REST_PORT) -> list[str]:
    """A command that succeeds while a GET of `path` on this machine is answered with 200.

    It needs nothing but bash, which both images have: TensorFlow Serving's has no curl.
    """
    request = rf"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".replace("%", "%%")  # printf's
    return [
        "bash",
        "-c",
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf '{request}' >&3 && head -n 1 <&3 | grep -q ' 200 '",
    ]


def image_name(name: str) -> str:
    """A model's name as images may be called: lower case letters, digits and dashes."""
    cleaned = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
    return "-".join(part for part in cleaned.split("-") if part)[:100] or "model"


def registry_note(options: BundleOptions) -> tuple[str, ...]:
    """What has to be known before an image is pushed."""
    if options.image:
        return ()
    return (
        "The image's name has no registry, so it cannot be pushed as it is: bundle with "
        "`image='registry.example.org/team/NAME:TAG'` (`--image`), or rename it here and in the YAML files.",
    )


def _tagged(image: str) -> str:
    """The same image's name for TensorFlow Serving."""
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:  # a port of a registry, and no tag
        return f"{image}-tensorflow-serving"
    return f"{name}-tensorflow-serving:{tag}"


def _own_file(images: Images) -> str:
    return f"""FROM python:{python_tag()}-slim
{app_lines()}
RUN python -m compileall -q /app
COPY {CONFIG} /{CONFIG}
COPY models /models
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 HOME=/tmp
USER {USER}
EXPOSE {GRPC_PORT} {REST_PORT}
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(health_command("/healthz"))}
ENTRYPOINT {json.dumps(images.own_command)}
"""


def _serving_file(images: Images) -> str:
    check = health_command(model_path(images.models[0].model.name))
    return f"""# The newest image of TensorFlow Serving is {SERVING_VERSION}.
FROM {SERVING_IMAGE}
COPY {CONFIG} /{CONFIG}
COPY models /models
USER {USER}
EXPOSE {GRPC_PORT} {REST_PORT}
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(check)}
ENTRYPOINT {json.dumps(["tensorflow_model_server", *images.flags])}
"""
