"""This package as part of a bundle: the code that is installed here, and the exact versions of what it needs to serve.

An image that is built from it runs what was measured, wherever the package comes from.

Thread: any.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

from ...errors import ExportFailed
from .contents import BundleContents
from .files import write_text

APP, REQUIREMENTS_FILE = "app", "requirements.txt"
PACKAGE = Path(__file__).parents[2]

NOTEBOOK_ONLY = frozenset({"ipykernel", "ipython", "ipywidgets", "jupyterlab", "matplotlib", "pillow"})
"""What the package needs in a notebook, and `tfserve-nb serve` does not."""

_ALSO_CALLED = {"tensorflow": ("tensorflow-cpu", "tensorflow-intel")}
"""Package -> what else it may be installed as."""

_OF_FILE = {".onnx": "onnx", ".tflite": "litert"}


def python_tag() -> str:
    """The Python that runs here, as images name it: `3.12`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def write_app(contents: BundleContents, folder: Path, extras: tuple[str, ...] = ()) -> None:
    """Write `app/tfserve_nb` and `app/requirements.txt`.

    Args:
        contents: whose engines are needed too.
        folder: of the bundle.
        extras: further extras of this package that are needed.

    Raises:
        ExportFailed: if something that is needed is not installed here.
        OSError: if it cannot be copied.
    """
    shutil.copytree(PACKAGE, folder / APP / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    lines = requirements((*engines_of(contents), *extras))
    head = "# What tfserve_nb was served with when this was written.\n"
    write_text(folder / APP / REQUIREMENTS_FILE, head + "\n".join(lines) + "\n")


def app_lines() -> str:
    """The lines of a Dockerfile that put what `write_app` wrote into an image."""
    return f"""COPY {APP}/{REQUIREMENTS_FILE} /app/{REQUIREMENTS_FILE}
RUN pip install --no-cache-dir --requirement /app/{REQUIREMENTS_FILE}
COPY {APP}/{PACKAGE.name} /app/{PACKAGE.name}"""


def engines_of(contents: BundleContents) -> tuple[str, ...]:
    """The engines that run the versions, without TensorFlow."""
    versions = [version for model in contents.models for version in model.versions]
    engines = {version.engine for version in versions} | {_OF_FILE.get(Path(one.file).suffix, "") for one in versions}
    return tuple(sorted(engines - {"", "tensorflow"}))


def requirements(extras: tuple[str, ...] = ()) -> list[str]:
    """What `tfserve-nb serve` needs, each as `name==version` of this environment.

    Args:
        extras: of this package.

    Raises:
        ExportFailed: if one is not installed.
    """
    found = {}
    try:
        declared = importlib.metadata.requires(PACKAGE.name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ExportFailed(
            f"{PACKAGE} is not installed as a package, so what it needs is not known", hint="pip install"
        ) from error
    for text in declared:
        requirement, _, marker = (part.strip() for part in text.partition(";"))
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (extra[1] not in extras) if extra else False:
            continue
        name = re.split(r"[<>=!~\[ (]", requirement, maxsplit=1)[0]
        if name.lower() in NOTEBOOK_ONLY:
            continue
        options = re.search(r"\[[^\]]*\]", requirement)
        there = installed(name)
        if there is None and "python_version" in marker:
            continue  # not for this Python
        if there is None:
            raise ExportFailed(f"{name}, which the server needs, is not installed here", hint=f"pip install {name}")
        found[name] = f"{there[0]}{options[0] if options else ''}=={there[1]}"
    return sorted(found.values(), key=str.lower)


def installed(name: str) -> tuple[str, str] | None:
    """What a package is installed as, and its version; None where it is not."""
    for called in (name, *_ALSO_CALLED.get(name, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return called, importlib.metadata.version(called)
    return None
