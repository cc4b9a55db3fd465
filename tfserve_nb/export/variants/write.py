"""Write a variant of a version into a folder of its own, which any server loads.

Thread: any.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidOption
from ...temporary import TemporaryFolder
from ...types import PLAIN, Tensors, no_progress
from ..endpoint import ExportSource
from ..layout import folder_bytes
from ..provenance.provenance import PROVENANCE_FILE
from ..provenance.variant import NotedVariant, note_variant, read_variant
from ..reasons import shorten
from ..signatures import read_signatures
from ..single_file.source import single_file
from ..tracing import write_traced
from ..warmup_requests import WARMUP_FILE
from .bfloat16 import mixed
from .packed_version import write_packed
from .packing import to_float16, to_int8
from .tflite import write_tflite
from .variants import check_possible, check_variant, no_variants_of
from .xla import write_compiled

_COPIED = (Path("assets"), WARMUP_FILE, PROVENANCE_FILE)
"""What a variant has in common with the version that it was made from, beside its graph."""

_MOST_NAMED = 3
_LEAVE_OUT = "leave --optimize out"


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


def write_variant(
    name: str, folder: Path, target: Path, *, source: ExportSource | None = None, rows: Tensors | None = None
) -> WrittenVariant:
    """Write a variant of a version.

    Args:
        name: a key of `VARIANTS`.
        folder: the plain version: a SavedModel folder, deployed or just exported. It is only read.
        target: the new folder, which must not exist; what lies above it must.
        source: the model in memory that the version was exported from, for variants that need it.
        rows: rows of the user for its main signature, for variants that need them.

    Raises:
        InvalidOption: if it cannot be made of this version, or on this machine; the target is not there then.
        OSError: if it cannot be written; the target is not there then.
    """
    check_possible(check_variant(name))
    file = single_file(folder)
    if file is not None:
        raise no_variants_of(file.name)
    before = read_variant(folder).name
    if before != PLAIN:
        raise InvalidOption(f"{folder} is a variant already ({before})", hint="make it of the plain version")
    target.mkdir()
    try:
        for part in _COPIED:
            _copy(folder / part, target / part)
        notes = _WRITERS[name](_Making(folder, target, source, rows))
        if name != PLAIN:
            note_variant(target, NotedVariant(name))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return WrittenVariant(name, target, folder_bytes(target), tuple(notes))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)


@dataclass(frozen=True, slots=True)
class _Making:
    """What a variant is made of, and where; see `write_variant`."""

    folder: Path
    target: Path
    source: ExportSource | None
    rows: Tensors | None


def _plain(making: _Making) -> list[str]:
    shutil.copytree(making.folder, making.target, dirs_exist_ok=True)
    return []


def _float16(making: _Making) -> list[str]:
    return _packed("float16", making)


def _int8(making: _Making) -> list[str]:
    return _packed("int8", making)


def _packed(name: str, making: _Making) -> list[str]:
    """Pack the weights.

    Raises:
        InvalidOption: if none of them can be.
    """
    report = write_packed(making.folder, making.target, to_float16 if name == "float16" else to_int8)
    kept = [f"{weight} stays float32: {why}" for weight, why in report.kept.items()]
    named = kept[:_MOST_NAMED] + ([f"and {len(kept) - _MOST_NAMED} more"] if len(kept) > _MOST_NAMED else [])
    if not report.packed:
        why = "; ".join(named) or "it has no float32 weights of two dimensions that are large enough"
        raise InvalidOption(
            f"optimize={name!r}: nothing of this model can be stored in fewer bytes: {shorten(why)}", hint=_LEAVE_OUT
        )
    return named


def _xla(making: _Making) -> list[str]:
    """Have XLA compile the graph.

    Raises:
        InvalidOption: if none of it can be, or another backend has compiled it already.
    """
    if making.source is not None and making.source.backend != "tensorflow":
        raise InvalidOption(
            f"optimize='xla' is for models of TensorFlow, and {making.source.description} computes with "
            f"{making.source.backend}",
            hint="leave --optimize out: what JAX exports is compiled by XLA in any case",
        )
    _copy(making.folder / "variables", making.target / "variables")
    without = write_compiled(making.folder, making.target)
    if set(without) == set(read_signatures(making.folder)):
        raise InvalidOption("optimize='xla': its graph has no function that XLA could compile", hint=_LEAVE_OUT)
    return [f"{name} is not compiled: it is no function" for name in without]


def _bfloat16(making: _Making) -> list[str]:
    """Export a copy of the model.

    Raises:
        InvalidOption: without the model in memory, and if it cannot be copied.
    """
    if making.source is None:
        raise InvalidOption(
            "optimize='bfloat16' is made from the Keras model in memory, and this is a version",
            hint="deploy(model, optimize='bfloat16')",
        )
    with TemporaryFolder("tfserve-variant") as place:
        write_traced(mixed(making.source), place.path / "model", no_progress)
        shutil.copytree(place.path / "model", making.target, dirs_exist_ok=True)
    return []


def _tflite(making: _Making) -> list[str]:
    write_tflite(making.folder, making.target, making.rows)
    shutil.rmtree(making.target / "assets", ignore_errors=True)
    return []


_WRITERS: dict[str, Callable[[_Making], list[str]]] = {
    PLAIN: _plain,
    "float16": _float16,
    "int8": _int8,
    "xla": _xla,
    "bfloat16": _bfloat16,
    "tflite-int8": _tflite,
}
