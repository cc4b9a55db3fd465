"""How a server listens and what it allows.

Thread: any; immutable.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ..errors import InvalidOption


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Address, authentication and limits of one server.

    Attributes:
        host: the address to bind.
        port: TCP port; 0 for a free one.
        token: what requests must carry, or None for no authentication.
        allow_remote: must be true to bind anything but a loopback address.
        max_body_bytes: largest request body, compressed or not.
        max_header_bytes: largest request line and headers.
        idle_timeout_s: how long a connection may wait for the next complete request head.
        body_timeout_s: how long a body may take to arrive.
        write_timeout_s: how long a client may take to read its answer.
        request_timeout_s: how long a request may wait and run, as `--rest_api_timeout_in_ms`.
        max_connections: open connections; more are closed at once.

    Raises:
        InvalidOption: if a value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    allow_remote: bool = False
    max_body_bytes: int = 100 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    request_timeout_s: float = 30.0
    max_connections: int = 4096

    def __post_init__(self) -> None:
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise InvalidOption(
                f"port={self.port!r} must be a number from 0 (any free port) to 65535", hint="--port 8501"
            )
        if not self.allow_remote and not is_loopback(self.host):
            raise InvalidOption(
                f"host={self.host!r} can be reached from other machines", hint="127.0.0.1, or allow_remote=True"
            )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
