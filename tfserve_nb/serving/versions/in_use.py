"""Which version folders are in use: a server holds a shared lock on the folder of each version that it has loaded.

The operating system gives the lock back when the process ends, however it ends. TensorFlow Serving takes none, and some
network file systems have none: a folder that is served so counts as free.

Thread: any; one lock for each folder that is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

NUM_TRIES, PAUSE_S = 20, 0.005
"""Another process that asks whether a folder is free holds it alone for a moment."""


class FolderInUse:
    """The lock of one server on the folder of a version.

    Args:
        folder: the folder; one that is not there is not locked.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, ValueError):
            self._descriptor = os.open(folder, os.O_RDONLY)
            _share(self._descriptor)

    def is_for(self, folder: Path) -> bool:
        """Whether this is the lock on that folder, by whatever path."""
        with self._lock, contextlib.suppress(OSError):
            return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), folder.stat())
        return False

    def is_shared(self) -> bool:
        """Whether another server uses the folder too."""
        with self._lock:
            if self._descriptor is None:
                return False
            try:
                return not _is_alone(self._descriptor)
            finally:
                _share(self._descriptor)  # asking gave it up, or made it exclusive

    def close(self) -> None:
        """Use the folder no more. Idempotent."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)  # processes forked meanwhile have the descriptor too
                os.close(descriptor)


def is_in_use(folder: Path) -> bool:
    """Whether any server, of this process or another, uses a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _is_alone(descriptor)
    finally:
        os.close(descriptor)


def _share(descriptor: int) -> None:
    for _ in range(NUM_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_S)
        except OSError:
            return
        else:
            return


def _is_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
