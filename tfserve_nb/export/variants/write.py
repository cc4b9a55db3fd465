"""Write a variant of a version into a folder of its own, which any server loads.

Thread: any.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidOption
from ..layout import folder_bytes
from ..provenance.provenance import PROVENANCE_FILE
from ..reasons import shorten
from ..signatures import read_signatures
from ..warmup_requests import WARMUP_FILE
from .packed_version import write_packed
from .packing import to_float16, to_int8
from .variants import PLAIN, VARIANTS, check_variant
from .xla import write_compiled

VARIANT_FILE = Path("assets.extra", "tfserve_nb_variant.json")
_COPIED = (Path("assets"), WARMUP_FILE, PROVENANCE_FILE)
"""What a variant has in common with the version that it was made from, beside its graph."""

_MOST_NAMED = 3
_LEAVE_OUT = "leave --optimize out"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WrittenVariant:
    """A variant on disk.

    Attributes:
        name: a key of `VARIANTS`.
        path: its folder.
        num_bytes: size of all its files.
        notes: what users have to know, one line each, such as weights that could not be packed.
    """

    name: str
    path: Path
    num_bytes: int
    notes: tuple[str, ...] = ()


def write_variant(name: str, folder: Path, target: Path) -> WrittenVariant:
    """Write a variant of a version.

    Args:
        name: a key of `VARIANTS`.
        folder: the plain version: a SavedModel folder, deployed or just exported. It is only read.
        target: the new folder, which must not exist; what lies above it must.

    Raises:
        InvalidOption: if it cannot be made of this version, or on this machine; the target is not there then.
        OSError: if it cannot be written; the target is not there then.
    """
    variant = VARIANTS[check_variant(name)]
    if variant.missing:
        raise InvalidOption(f"optimize={name!r} cannot be used here: {variant.missing}", hint="--optimize float16")
    before = variant_of(folder)
    if before != PLAIN:
        raise InvalidOption(f"{folder} is a variant already ({before})", hint="make it of the plain version")
    target.mkdir()
    try:
        for part in _COPIED:
            _copy(folder / part, target / part)
        notes = _WRITERS[name](folder, target)
        _note(target, name)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return WrittenVariant(name, target, folder_bytes(target), tuple(notes))


def variant_of(folder: Path) -> str:
    """The variant that a version's folder holds; the plain one when nothing else is noted in it."""
    path = folder / VARIANT_FILE
    try:
        return str(json.loads(path.read_text("utf-8"))["variant"])
    except FileNotFoundError:
        return PLAIN
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s cannot be read and is ignored: %s", path, error)
        return PLAIN


def _note(folder: Path, name: str) -> None:
    if name != PLAIN:
        path = folder / VARIANT_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"variant": name}), "utf-8")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)


def _plain(folder: Path, target: Path) -> list[str]:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return []


def _float16(folder: Path, target: Path) -> list[str]:
    return _packed("float16", folder, target)


def _int8(folder: Path, target: Path) -> list[str]:
    return _packed("int8", folder, target)


def _packed(name: str, folder: Path, target: Path) -> list[str]:
    """Pack the weights.

    Raises:
        InvalidOption: if none of them can be.
    """
    report = write_packed(folder, target, to_float16 if name == "float16" else to_int8)
    kept = [f"{weight} stays float32: {why}" for weight, why in report.kept.items()]
    named = kept[:_MOST_NAMED] + ([f"and {len(kept) - _MOST_NAMED} more"] if len(kept) > _MOST_NAMED else [])
    if not report.packed:
        why = "; ".join(named) or "it has no float32 weights of two dimensions that are large enough"
        raise InvalidOption(
            f"optimize={name!r}: nothing of this model can be stored in fewer bytes: {shorten(why)}",
            hint=_LEAVE_OUT,
        )
    return named


def _xla(folder: Path, target: Path) -> list[str]:
    """Have XLA compile the graph.

    Raises:
        InvalidOption: if none of it can be.
    """
    _copy(folder / "variables", target / "variables")
    without = write_compiled(folder, target)
    if set(without) == set(read_signatures(folder)):
        raise InvalidOption("optimize='xla': its graph has no function that XLA could compile", hint=_LEAVE_OUT)
    return [f"{name} is not compiled: it is no function" for name in without]


_WRITERS: dict[str, Callable[[Path, Path], list[str]]] = {
    PLAIN: _plain,
    "float16": _float16,
    "int8": _int8,
    "xla": _xla,
}
