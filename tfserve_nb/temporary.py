"""Temporary folders, what dead processes left of theirs, and files that are written whole or not at all.

The name of a temporary folder holds the process that made it, and that process holds a lock on it: what a killed
process left behind is found and removed later.

Thread: any; also safe against other processes in the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

_MAKING = threading.Lock()
"""Held from making a temporary folder until it is locked: in between, another thread would take it for abandoned."""

_SAVING = ".saving"


class TemporaryFolder:
    """A folder that this process uses for a while; it goes with all its content when it is closed.

    Args:
        purpose: the start of its name, without a dash at the end.
        parent: where it is made, which must exist; by default the system's place for temporary files, where those that
            dead processes left are removed first.

    Attributes:
        path: the folder, which only this user can read.

    Raises:
        OSError: if it cannot be made.
    """

    def __init__(self, purpose: str, parent: Path | None = None) -> None:
        if parent is None:
            # This machine's own, so that names need no host: sockets there need short paths.
            start, where = purpose, Path(tempfile.gettempdir())
            _sweep(where, start)
        else:
            start, where = _start(purpose), parent
        self._lock: int | None = None
        with _MAKING:
            self.path = Path(tempfile.mkdtemp(prefix=f"{start}-{os.getpid()}-", dir=where))
            with contextlib.suppress(OSError):
                self._lock = _locked(self.path)

    def close(self) -> None:
        """Remove it. Idempotent."""
        # While the lock is held no other process removes the same files; after a rename nothing is left to remove.
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file as a whole: it takes the place of `path` when the body ends well, and else nothing is changed.

    Yields:
        The path to write to, in the same file system and with the same name.

    Raises:
        OSError: if there is no place for it.
    """
    target = path.resolve()  # a link stays one
    remove_stale(target.parent, [_SAVING])
    with TemporaryFolder(_SAVING, target.parent) as folder:
        partial = folder.path / path.name
        yield partial
        partial.replace(target)


def remove_stale(parent: Path, purposes: Collection[str]) -> tuple[Path, ...]:
    """Remove the temporary folders that dead processes of this host and user left in a folder.

    A folder stays when its process lives, or when another process holds its lock (a process of another container may
    have the same host name and an unrelated process id).

    Args:
        parent: where they are looked for.
        purposes: whose folders.

    Returns:
        What was removed.
    """
    return tuple(removed for purpose in purposes for removed in _sweep(parent, _start(purpose)))


def _start(purpose: str) -> str:
    """How names begin where several hosts may write."""
    return f"{purpose}-{_host()}"


def _sweep(parent: Path, start: str) -> list[Path]:
    removed = []
    pattern = re.compile(rf"{re.escape(start)}-([0-9]+)-[^-]+")
    try:
        matches = [match for name in os.listdir(parent) if (match := pattern.fullmatch(name))]  # noqa: PTH208 - many
    except OSError:
        return []
    for match in matches:
        folder = parent / match[0]
        with _MAKING:
            is_abandoned = _is_abandoned(folder, int(match[1]))
        if is_abandoned:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _host() -> str:
    return re.sub(r"[^\w.]+", "_", socket.gethostname()) or "localhost"


def _is_abandoned(folder: Path, pid: int) -> bool:
    if pid != os.getpid() and _is_alive(pid):
        return False
    try:
        if folder.lstat().st_uid != os.getuid():
            return False
        lock = _locked(folder)
    except OSError:
        return False
    if lock is not None:
        os.close(lock)
    # Without locks on this file system a folder of our own process may still be in use by another thread.
    return lock is not None or pid != os.getpid()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _locked(folder: Path) -> int | None:
    """Lock a folder for as long as the returned descriptor is open; None where folders cannot be locked.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
