"""Files with secrets: the dashboard's link, and a warning for keys and tokens that other users can read.

Thread: the main one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigRejected
from ..temporary import TemporaryFolder


class PrivateLink:
    """A link with a token, in a file that only this user can read: what is printed ends up in logs.

    Args:
        url: the link.

    Attributes:
        path: the file.
    """

    def __init__(self, url: str) -> None:
        self._folder = TemporaryFolder("tfserve-dashboard")
        self.path = self._folder.path / "link"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(url + "\n")

    def close(self) -> None:
        """Remove the file. Idempotent."""
        self._folder.close()


def read_token(path: str, flag: str) -> str | None:
    """The token in a file; None for no file.

    Args:
        path: the file, or "".
        flag: what named it, for messages.

    Raises:
        ConfigRejected: if it cannot be read, or holds nothing.
    """
    if not path:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigRejected(f"--{flag}={path} cannot be read: {reason}", code="NOT_FOUND") from error
    if not token:
        raise ConfigRejected(f"--{flag}={path} is empty", hint="one line with the token")
    return token


def readable_by_others(files: Mapping[str, str]) -> list[str]:
    """Warnings for files with secrets that other users of this machine can read.

    Args:
        files: flag -> its file, or "".
    """
    warnings = []
    for flag, path in files.items():
        try:
            mode = stat.S_IMODE(Path(path).stat().st_mode) if path else 0
        except OSError:
            continue  # reading it has the better error
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            warnings.append(f"--{flag}={path} can be read by other users (mode {mode:04o}): chmod 600 {path}")
    return warnings
