"""What clients may take: bytes, seconds, connections.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one HTTP server.

    Attributes:
        max_header_bytes: largest request line and header fields.
        max_body_bytes: largest body as it is sent.
        idle_timeout_s: how long a connection may wait for the next complete head.
        body_timeout_s: how long a body may take to arrive.
        write_timeout_s: how long a client may take to read what waits for it.
        max_connections: open connections; more are cut off.
        keeps_alive: False closes each connection after its answer.
    """

    max_header_bytes: int = 64 * 1024
    max_body_bytes: int = 100 * 1024 * 1024
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_connections: int = 4096
    keeps_alive: bool = True
