"""Write a model as the next version of its name, so that no server ever reads half of it.

The version is written into a temporary folder beside its place, checked there, brought to the disk, and renamed. A
full disk, a killed kernel or Ctrl-C leaves at most a folder that no server reads, and the next export removes it.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ExportFailed, InvalidOption, ServingError, VersionExists
from ..types import Progress, ProgressEvent, no_progress
from .endpoint import ExportSource
from .layout import check_name, check_version, next_version, remove_stale, sync, temporary_dir, version_dir
from .reasons import disk_reason, innermost
from .signatures import check_portable, read_meta_graph
from .source import prepare_source
from .tracing import write_traced

Verify = Callable[[Path], None]
"""Called with the complete folder before it counts; raises to refuse it."""

MAX_RENAMES = 1000
"""Other exporters that may take the next number before us; each of them made progress, so this is not reached."""

_RESOURCE_TYPE = re.compile(r'type="(?:\w+::)*(\w+)"')
_RESOURCES = {"QueueInterface": "a queue", "IteratorResource": "the iterator of a dataset"}
"""TensorFlow's class -> what people call it."""

_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class ExportedVersion:
    """A version that is complete on disk.

    Attributes:
        name: the model's name.
        version: its number.
        path: the folder, `BASE/NAME/VERSION`.
        num_bytes: size of all its files.
        seconds: how long the export took, `verify` included.
    """

    name: str
    version: int
    path: Path
    num_bytes: int
    seconds: float


def export_version(
    model: object,
    base_path: Path | str,
    name: str,
    *,
    version: int | None = None,
    above: int = 0,
    example: object = None,
    verify: Verify | None = None,
    progress: Progress = no_progress,
) -> ExportedVersion:
    """Write a model as a new version of a name.

    Args:
        model: what `prepare_source` takes or returns.
        base_path: the folder that holds one folder per model; made if it is not there.
        name: the model's name.
        version: the number, or None for the next free one, also when several processes export at the same time.
        above: the next free number is larger than this: numbers that were used and deleted stay used.
        example: a batch of inputs; see `prepare_source`.
        verify: called with the complete temporary folder; when it raises, nothing is left behind.
        progress: called with each step, on this thread.

    Returns:
        The version; from this moment on every server that polls the folder sees it.

    Raises:
        ModelNotServable: if the model is none that can be exported.
        ExportFailed: if it cannot be traced or written; nothing is left behind.
        VersionExists: if the version asked for is there already.
        InvalidOption: if the name or the number is not allowed.
    """
    started_s = time.perf_counter()
    check_name(name)
    if version is not None:
        check_version(version)
    source = prepare_source(model, example=example)
    base = Path(base_path).expanduser().absolute()
    with _made_folder(base / name) as model_dir, temporary_dir(model_dir, "exporting") as workplace:
        _refuse_taken(base, name, version, above)
        folder = workplace / "model"
        _write(source, folder, progress)
        if verify is not None:
            _check(verify, folder, progress)
        num_bytes = sync_tree(folder)
        number = _rename(folder, model_dir, version, above)
        sync(model_dir)
    return ExportedVersion(
        name=name,
        version=number,
        path=model_dir / str(number),
        num_bytes=num_bytes,
        seconds=time.perf_counter() - started_s,
    )


def sync_tree(folder: Path) -> int:
    """Have the operating system write a folder and all its files to the disk.

    Returns:
        The size of the files in bytes.
    """
    num_bytes = 0
    for root, _, files in os.walk(folder):
        for file in files:
            path = Path(root, file)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            num_bytes += path.stat().st_size
        sync(Path(root))
    return num_bytes


def _refuse_taken(base: Path, name: str, version: int | None, above: int) -> None:
    if version is None:
        return
    folder = version_dir(base, name, version)
    if folder.exists():
        raise VersionExists(
            f"version {version} of model {name} exists already: {folder}",
            hint=f"leave --version out to get {next_version(base / name, above=above)}, or remove it: "
            f"%undeploy {name} --version {version} --delete",
        )


@contextlib.contextmanager
def _made_folder(model_dir: Path) -> Iterator[Path]:
    """Make `BASE/NAME`, clean up after dead exporters, and remove again what was made if the export fails.

    Raises:
        ExportFailed: if the folder cannot be written to, at any moment; the message names it.
    """
    made = [folder for folder in (model_dir, *model_dir.parents) if not os.path.lexists(folder)]
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        remove_stale(model_dir)
        yield model_dir
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only when it is empty: another process may be writing there
        if isinstance(error, OSError):
            raise _not_writable(model_dir, error) from error
        raise


def _not_writable(folder: Path, error: BaseException) -> ExportFailed:
    reason = disk_reason(error) or innermost(error)
    is_full = reason in {os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)}
    hint = "make room there, or choose another folder: --base-path FOLDER"
    return ExportFailed(
        f"the model cannot be written to {folder}: {reason}",
        hint=hint if is_full else "choose a folder that you may write to: --base-path FOLDER",
    )


def _write(source: ExportSource, folder: Path, progress: Progress) -> None:
    """Write the model; errors of the disk become `OSError`s or `ExportFailed`, never something else."""
    if source.path is not None:
        progress(ProgressEvent("exporting", 0, 1, "copying"))
        _copy(source.path, folder)
        check_portable(read_meta_graph(folder), source.description)
        progress(ProgressEvent("exporting", 1, 1))
        return
    if source.file is not None:
        progress(ProgressEvent("exporting", 0, 1, "copying"))
        folder.mkdir()
        source.file.write(folder)
        progress(ProgressEvent("exporting", 1, 1))
        return
    try:
        write_traced(source, folder, progress)
        check_portable(read_meta_graph(folder), source.description)
    except (ServingError, OSError):
        raise
    except Exception as error:
        if disk_reason(error) is not None:
            raise _not_writable(folder.parents[1], error) from error
        raise _not_savable(source, error) from error


def _check(verify: Verify, folder: Path, progress: Progress) -> None:
    progress(ProgressEvent("checking", 0, 1))
    try:
        verify(folder)
    except OSError as error:
        # Kept apart from the errors of writing, which are about the folder of the model.
        raise ExportFailed(
            f"the exported model cannot be checked: {innermost(error)}",
            hint="see what the check could not read or write",
        ) from error
    progress(ProgressEvent("checking", 1, 1))


def _not_savable(source: ExportSource, error: Exception) -> ExportFailed:
    if "'untracked' resource" in str(error):
        found = _RESOURCE_TYPE.search(str(error))
        kind = found[1] if found else ""
        if kind not in ("", "Var", "LookupInterface"):
            what = _RESOURCES.get(kind, f"a resource ({kind})")
            return ExportFailed(
                f"{source.description} uses {what}, which a SavedModel cannot hold",
                hint="take what comes from there as an input of the function, or keep it in a tf.Variable",
            )
        return ExportFailed(
            f"{source.description} uses a table or variable that belongs to no object known here",
            hint="make it an attribute of a tf.Module, with the function as a method, and deploy the module",
        )
    return ExportFailed(
        f"{source.description} cannot be saved: {innermost(error)}",
        hint="keep variables, tables and layers as attributes of the model, so that they can be found",
    )


def _copy(source: Path, folder: Path) -> None:
    if folder.resolve().is_relative_to(source.resolve()):
        raise InvalidOption(
            f"base_path lies inside of {source}, the SavedModel to be copied", hint="--base-path tfserve_models"
        )
    try:
        shutil.copytree(source, folder)
    except shutil.Error as error:
        # One entry per file that failed: (from, to, why).
        raise ExportFailed(
            f"{source} cannot be copied to {folder.parents[1]}: {disk_reason(error) or error.args[0][0][2]}",
            hint="make room there, or choose another folder: --base-path FOLDER",
        ) from error


def _rename(folder: Path, model_dir: Path, version: int | None, above: int) -> int:
    """Give the finished folder its number; with none given, the next one that is free.

    Raises:
        VersionExists: if the version asked for appeared in the meantime.
    """
    for _ in range(MAX_RENAMES):
        number = version or check_version(next_version(model_dir, above=above))
        try:
            folder.rename(model_dir / str(number))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            _refuse_taken(model_dir.parent, model_dir.name, version, above)
        else:
            return number
    raise ExportFailed(f"no free version number was found in {model_dir}", hint="give one: --version NUMBER")
