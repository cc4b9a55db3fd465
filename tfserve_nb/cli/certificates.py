"""Renews TLS certificates without a restart: when their file changes, and when SIGHUP comes.

Thread: `tfserve-certificates`, a daemon, looks; the signal's handler only wakes it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigRejected, ServingError
from ..server.config_files import TlsFiles, read_tls

_log = logging.getLogger("tfserve_nb.serve")
LOOK_EACH_S = 1.0
JOIN_S = 1.5

Renew = Callable[[TlsFiles | None, TlsFiles | None], None]
"""Uses other files for REST and gRPC; None for those that stay. Raises `ServingError` if they do not do."""


class CertificateWatch:
    """Follows the files of `--rest_api_ssl_config_file` and `--ssl_config_file`.

    Args:
        rest: what HTTPS uses, or None for plain HTTP.
        grpc: what gRPC uses, or None for plain text.
        renew: uses other ones.
    """

    def __init__(self, rest: TlsFiles | None, grpc: TlsFiles | None, renew: Renew) -> None:
        self._used = [rest, grpc]
        self._renew = renew
        self._seen = [_state(files) for files in self._used]
        self._wake = threading.Event()
        self._is_asked = False
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on; on the main thread, because of the signal. Does nothing without TLS."""
        if self._used == [None, None]:
            return
        signal.signal(signal.SIGHUP, lambda *_: self._ask())
        self._thread = threading.Thread(target=self._work, name="tfserve-certificates", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent, bounded."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _ask(self) -> None:
        self._is_asked = True
        self._wake.set()

    def _work(self) -> None:
        while True:
            self._wake.wait(LOOK_EACH_S)
            self._wake.clear()
            if self._is_stopping:
                return
            seen = [_state(files) for files in self._used]
            if self._is_asked or seen != self._seen:
                self._is_asked, self._seen = False, seen
                self._look()

    def _look(self) -> None:
        try:
            new = [None if files is None else _read(files) for files in self._used]
            changed = [now if now != before else None for now, before in zip(new, self._used, strict=True)]
            if changed != [None, None]:
                self._renew(*changed)
                self._used = new
                _log.info("The TLS certificates were renewed: new connections get them")
        except ServingError as error:
            _log.error("The TLS certificates stay as they are: %s", error.message)
        except Exception:  # noqa: BLE001 - a defect of ours; the files are read again when they change
            _log.exception("the TLS certificates could not be renewed")


def _read(used: TlsFiles) -> TlsFiles:
    files = read_tls(used.path)
    if files.verifies_clients != used.verifies_clients:
        raise ConfigRejected(f"{used.path}: client_verify changed, which needs a restart")
    if files.verifies_clients and not files.client_ca:
        raise ConfigRejected(f"{used.path}: client_verify needs custom_ca")
    return files


def _state(files: TlsFiles | None) -> tuple[int, int, int] | None:
    """What differs when a file was written or replaced."""
    if files is None:
        return None
    try:
        found = Path(files.path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
