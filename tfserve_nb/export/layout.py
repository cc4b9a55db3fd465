"""Folders as TensorFlow Serving polls them: `BASE/NAME/VERSION/saved_model.pb`.

A child of `BASE/NAME` counts as a version when its name is a number (`00000123` is version 123); every other name is
invisible to servers. A version is therefore written into a folder whose name is no number and then renamed, so that
no server ever reads half of one.

Thread: any; also safe against other processes that write into the same folders.

Reference: tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc (which children count).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from .. import temporary
from ..errors import ExportFailed, InvalidOption, VersionNotFound

MAX_VERSION = 2**63 - 1
"""The largest version number; TensorFlow Serving keeps it in an int64."""

MAX_NAME_BYTES = 200
"""Below the 255 bytes that file systems allow, with room for suffixes."""

_FORBIDDEN = frozenset('/\\:*?"<>|#%')
NAME_RULE = (
    f"a name of at most {MAX_NAME_BYTES} bytes that does not begin with a dot, has no space at either end, no control "
    'character and none of / \\ : * ? " < > | # % or their look-alikes'
)
"""What `is_name` asks for, in words."""
PURPOSES = (".exporting", ".deleting")
"""The temporary folders below `BASE/NAME`."""


def check_name(name: object) -> str:
    """Return the name if it can stand in a URL and in a file system; otherwise raise what is allowed.

    Args:
        name: the name of a model; TensorFlow Serving's routes take `[^/:]+`, file systems and URLs refuse some more.

    Raises:
        InvalidOption: if the name is not allowed.

    Example:
        >>> check_name("digits-2")
        'digits-2'
    """
    if isinstance(name, str) and is_name(name):
        return name
    shown = f"{name!r:.300}"
    raise InvalidOption(f"name={shown} cannot name a model: needed is {NAME_RULE}", hint=_name_hint(name))


def check_folder(path: Path | str) -> Path:
    """Return the path of a folder, whether it is there or not.

    Raises:
        InvalidOption: if there can be none: file systems end paths at a NUL.
    """
    if "\0" in str(path):
        raise InvalidOption(f"{str(path)!r:.300} cannot be a folder: it has a NUL", hint="another path")
    return Path(path)


def check_version(version: object) -> int:
    """Return the version number if it is one.

    Raises:
        InvalidOption: if it is no integer from 1 to `MAX_VERSION`.
    """
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= MAX_VERSION:
        raise InvalidOption(
            f"version={version!r} must be an integer from 1 to {MAX_VERSION}",
            hint="--version 1, or leave it out for the next free number",
        )
    return version


def list_versions(model_dir: Path) -> tuple[int, ...]:
    """The versions below `BASE/NAME`, smallest first; empty when the folder does not exist.

    Folders whose name is no number, and files, are left out; whether a folder is complete is not checked.
    """
    return tuple(sorted({number for number, entry in _numbered(model_dir) if entry.is_dir()}))


def next_version(model_dir: Path, *, above: int = 0) -> int:
    """The smallest number that is larger than `above` and than all numbers below `BASE/NAME`."""
    return max([above, *(number for number, _ in _numbered(model_dir))]) + 1


def version_dir(base: Path | str, name: str, version: int) -> Path:
    """The folder of a version: the one on disk, however many zeros its name begins with, else where it would be."""
    model_dir = Path(base) / name
    plain = model_dir / str(version)
    if plain.exists():
        return plain
    return next((entry for number, entry in _numbered(model_dir) if number == version), plain)


def find_version(base: Path, name: str, version: int) -> Path | None:
    """The folder of a version that is there: `BASE/NAME/VERSION`, or `BASE/VERSION` as configurations name it."""
    model_dir = base / name if (base / name).is_dir() else base
    return next((folder for number, folder in _numbered(model_dir) if number == version), None)


def deletable_dir(base: Path | str, name: str, version: int) -> Path:
    """The folder of a version that may be removed: it lies, links followed, where its name says.

    Raises:
        VersionNotFound: if there is no such version.
        InvalidOption: if the name is not allowed, or a link on the way leads elsewhere.
    """
    folder = version_dir(base, check_name(name), version)
    if not folder.is_dir():
        on_disk = ", ".join(map(str, list_versions(folder.parent))) or "none"
        raise VersionNotFound(f"Could not find version {version} of model {name}", hint=f"on disk: {on_disk}")
    place = folder.resolve()
    if place != Path(base).resolve() / name / folder.name:
        raise InvalidOption(
            f"{folder} is a link or lies behind one, and what it leads to, {place}, is not removed",
            hint=f"unload without --delete, and remove {place} yourself",
        )
    return folder


def is_below(path: Path | str, roots: Iterable[Path]) -> bool:
    """Whether a path, links followed, is one of some resolved folders or lies below one."""
    try:
        place = Path(path).resolve()
    except (OSError, RuntimeError):  # links in a circle
        return False
    return any(place.is_relative_to(root) for root in roots)


def leading_out(folder: Path, roots: Collection[Path]) -> Path | None:
    """What leads out of some resolved folders: this folder, or a link somewhere below it; None if nothing does."""
    waiting, seen = [folder], set[Path]()
    while waiting:
        entry = waiting.pop()
        if not is_below(entry, roots):
            return entry
        place = entry.resolve()
        if place.is_dir() and place not in seen:
            seen.add(place)
            waiting += [child for child in place.iterdir() if child.is_symlink() or child.is_dir()]
    return None


def delete_version(base: Path | str, name: str, version: int) -> None:
    """Remove a version from disk; it disappears at once and as a whole.

    Raises:
        VersionNotFound: if there is no such version.
        InvalidOption: if it may not be removed; see `deletable_dir`.
        ExportFailed: if the folder cannot be removed.
    """
    folder = deletable_dir(base, name, version)
    try:
        with temporary_dir(folder.parent, "deleting") as bin_dir:
            folder.rename(bin_dir / folder.name)
            sync(folder.parent)
    except OSError as error:
        raise ExportFailed(
            f"version {version} of model {name} cannot be removed from {folder.parent}: {error.strerror or error}",
            hint=f"check that you may write there: ls -ld '{folder.parent}'",
        ) from error


@contextlib.contextmanager
def temporary_dir(model_dir: Path, purpose: str) -> Iterator[Path]:
    """A folder below `BASE/NAME` that no server reads; removed with all its content at the end, after errors too.

    Args:
        model_dir: `BASE/NAME`, which must exist.
        purpose: `exporting` or `deleting`.

    Yields:
        The folder, locked by this process for as long as it is in use.
    """
    with temporary.TemporaryFolder(f".{purpose}", model_dir) as folder:
        yield folder.path


def remove_stale(model_dir: Path) -> tuple[Path, ...]:
    """Remove the temporary folders that dead processes of this host left below `BASE/NAME`; what was removed."""
    return temporary.remove_stale(model_dir, PURPOSES)


def sweep(base: Path) -> None:
    """Remove what dead processes left of all models below a folder, also of those whose first export they began."""
    with contextlib.suppress(OSError):  # what cannot be read is left alone
        for model_dir in _children(base):
            if model_dir.is_dir() and not model_dir.is_symlink():
                remove_stale(model_dir)


def sync(folder: Path) -> None:
    """Have the operating system write a folder's list of entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this for folders; there is nothing else to be done on them.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _numbered(model_dir: Path) -> list[tuple[int, Path]]:
    """All entries below `BASE/NAME` whose name is a version number, files too."""
    pairs = [(entry.name, entry) for entry in _children(model_dir)]
    numbers = [(int(text), entry) for text, entry in pairs if text.isascii() and text.isdigit()]
    return [(number, entry) for number, entry in numbers if number <= MAX_VERSION]


def is_name(name: str) -> bool:
    """Whether a text can stand in a URL and in a file system, and mean the same there.

    Also as file systems and clients may rewrite it: composed, and with look-alikes as what they look like.
    """
    plain = unicodedata.normalize("NFKC", name)
    return (
        bool(name)
        and not plain.startswith(".")
        and plain == plain.strip()
        and name.isprintable()
        and name == unicodedata.normalize("NFC", name)
        and not _FORBIDDEN.intersection(plain)
        and len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    )


def _name_hint(name: object) -> str:
    cleaned = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFKC", str(name))).strip("._")[:60]
    return f"--name {cleaned or 'my_model'}"


def folder_bytes(path: Path) -> int:
    """The size of all files in a folder, in bytes; files that vanish meanwhile do not count."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
