"""How the files of a bundle are written: text, YAML, copies of versions, and the README.

Thread: any.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # what YAML can hold

from ...export.warmup_requests import WARMUP_FILE
from .contents import BundledModel, BundledVersion
from .shape import Shape, check


@dataclass(frozen=True, slots=True)
class Readme:
    """What the README of a bundle says.

    Attributes:
        title: one line.
        commands: what to type, in the bundle's folder; about five lines.
        checked: what was checked while it was written, one sentence each.
        not_run: what nobody has run, one sentence each.
        notes: what the reader has to know, one sentence each.
    """

    title: str
    commands: tuple[str, ...]
    checked: tuple[str, ...]
    not_run: tuple[str, ...]
    notes: tuple[str, ...] = ()


def write_text(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text, encoding="utf-8")
    return path


def write_yaml(path: Path, shape: Shape, *documents: Any, comment: str = "", mode: int = 0o644) -> Path:
    """Write checked documents into a file, the next one after a line `---`.

    Args:
        path: the file.
        shape: what keys they may have.
        *documents: what is written.
        comment: lines for people, at the top.
        mode: who may read it.

    Raises:
        ExportFailed: naming the place that does not fit the shape.
    """
    for document in documents:
        check(document, shape, path.name)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return write_text(path, head + "---\n".join(as_yaml(document) for document in documents), mode)


def as_yaml(document: Any) -> str:
    """A value as YAML, in the order in which it was made."""
    import yaml

    # Parts that stand twice in it are written twice: people read it, and few know anchors.
    dumper: Any = type("_Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(str, _scalar)
    text: str = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text


def _scalar(dumper: Any, text: str) -> Any:
    """Text of several lines as a block."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def copy_version(version: BundledVersion, to: Path) -> None:
    """Copy a version's folder, links followed; what a server is just writing in it is left out.

    Raises:
        OSError: if a file cannot be read or written.
    """
    shutil.copytree(version.folder, to, ignore=shutil.ignore_patterns(".saving-*"))


def copy_model(model: BundledModel, versions: tuple[BundledVersion, ...], to: Path) -> tuple[str, ...]:
    """Copy versions into `to/NUMBER`; those without a warm-up file get one from captured requests.

    Returns:
        What is known of their warm-up, one sentence for each version.

    Raises:
        OSError: if a file cannot be read or written.
    """
    notes = []
    for version in versions:
        target = to / str(version.number)
        copy_version(version, target)
        called = f"Version {version.number} of {model.name}"
        if (target / WARMUP_FILE).is_file():
            notes.append(f"{called} has a warm-up file.")
        elif model.captured is not None and not version.file:
            model.captured.save_warmup(target)
            notes.append(f"{called} is warmed up with captured requests.")
        else:
            notes.append(
                f"{called} has no warm-up file; `%deploy --warmup ROWS`, or captured requests, would give it one."
            )
    return tuple(notes)
