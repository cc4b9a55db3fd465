"""Write a bundle: the targets there are, and a folder that is complete or not there.

Thread: any; also safe against other processes that write into the same folder.
"""

from __future__ import annotations

import difflib
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ..._version import __version__
from ...bench.sweep import SweepResult
from ...errors import ExportFailed, InvalidOption
from ...export.layout import check_folder
from ...export.reasons import disk_reason
from ...server.handle import ServerHandle
from ...temporary import TemporaryFolder, remove_stale
from .batching import check_sweep
from .contents import BundleContents, BundledModel
from .files import Readme, write_text
from .gather import contents_of_server
from .options import BundleOptions
from .targets import docker, kserve, kubernetes, mlflow, ray, sagemaker, tf_serving, vertex

Write: TypeAlias = Callable[[BundleContents, BundleOptions, Path], Readme]
"""Writes everything but the README into an empty folder."""

TARGETS: Mapping[str, Write] = {
    "tf-serving": tf_serving.write,
    "docker": docker.write,
    "kubernetes": kubernetes.write,
    "kserve": kserve.write,
    "mlflow": mlflow.write,
    "ray": ray.write,
    "vertex": vertex.write,
    "sagemaker": sagemaker.write,
}

README_FILE = "README.md"
_PURPOSE = ".bundling"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was written.

    Attributes:
        folder: where it lies.
        target: what it is for.
        readme: what its README says.
    """

    folder: Path
    target: str
    readme: Readme

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, relative to the folder, sorted."""
        return tuple(sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()))

    def __repr__(self) -> str:
        steps = "\n".join(f"  {command}" for command in (f"cd {shlex.quote(str(self.folder))}", *self.readme.commands))
        return f"{self.readme.title}: {self.folder / README_FILE} says what was checked\n{steps}"


def check_target(target: str) -> str:
    """Return the name of a target.

    Raises:
        InvalidOption: naming those that there are, and the one that it is close to.
    """
    if target not in TARGETS:
        (meant,) = difflib.get_close_matches(str(target), TARGETS, n=1) or ["tf-serving"]
        raise InvalidOption(
            f"there is no target {target!r}; there are {', '.join(TARGETS)}",
            hint=f"target={meant!r}, or --target {meant}",
        )
    return target


def check_place(folder: Path | str) -> Path:
    """Return the absolute path of a folder that a bundle may be written to: it is not there, or empty.

    Raises:
        InvalidOption: if it is anything else.
    """
    place = check_folder(folder).absolute()
    if place.exists() and not place.is_dir():
        raise InvalidOption(f"{place} is a file, and a bundle is a folder", hint="another path")
    if place.is_dir() and any(place.iterdir()):
        raise InvalidOption(f"{place} is not empty, and nothing in it is replaced", hint="an empty or a new folder")
    return place


def bundle_model(
    server: ServerHandle,
    name: str,
    folder: Path | str,
    target: str,
    options: BundleOptions,
    sweep: SweepResult | None = None,
) -> Bundle:
    """Bundle what is served under a name; see `write_bundle` and `gather.contents_of_server`."""
    check_target(target)
    check_place(folder)
    check_sweep(sweep, name)
    return write_bundle(contents_of_server(server, name, options.versions, sweep), folder, target, options)


def write_bundle(contents: BundleContents, folder: Path | str, target: str, options: BundleOptions) -> Bundle:
    """Write what another kind of server needs to serve the same.

    It is written beside its place and renamed when it is complete; after an error nothing is left.

    Args:
        contents: what is bundled.
        folder: where to; it must be empty or not there.
        target: one of `TARGETS`.
        options: what goes into it.

    Raises:
        InvalidOption: if there is no such target, or the folder is not empty.
        FailedPrecondition: if the target cannot serve a version.
        ExportFailed: if it cannot be written.
    """
    write = TARGETS[check_target(target)]
    place = check_place(folder)
    settings = replace(options, root=options.root or str(place))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(place.parent, [_PURPOSE])
        with TemporaryFolder(_PURPOSE, place.parent) as beside:
            made = beside.path / "bundle"
            made.mkdir()
            readme = write(contents, settings, made)
            write_text(made / README_FILE, readme_text(contents, readme))
            check_place(place)
            made.rename(place)
    except OSError as error:
        raise ExportFailed(
            f"the bundle cannot be written to {place}: {disk_reason(error) or error}",
            hint="another folder, or make room",
        ) from error
    return Bundle(place, target, readme)


def readme_text(contents: BundleContents, readme: Readme) -> str:
    """The README of a bundle, in Markdown."""
    today = time.strftime("%Y-%m-%d")
    held = [_line_of(model) for model in contents.models]
    parts = [
        f"# {readme.title}",
        f"Written by tfserve_nb {__version__} on {today}.",
        "\n".join(held),
        "## What to type in this folder",
        "\n".join(["```sh", *readme.commands, "```"]),
        "## Batching",
        contents.batching.origin,
    ]
    for title, lines in (
        ("What to know", readme.notes),
        ("Checked while this was written", readme.checked),
        ("Not run", readme.not_run),
    ):
        if lines:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _line_of(model: BundledModel) -> str:
    numbers = ", ".join(str(version.number) for version in model.versions)
    labels = "".join(f", label {label} → {number}" for label, number in sorted(model.labels.items()))
    return f"- {model.name}: version{'s' if len(model.versions) > 1 else ''} {numbers}{labels}"
