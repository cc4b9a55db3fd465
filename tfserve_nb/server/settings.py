"""How a server listens and what it allows.

Thread: any; immutable.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from dataclasses import dataclass

from ..errors import InvalidOption
from .config_files import TlsFiles

MAX_WORKERS = 64
AUTO_WORKERS = "auto"
"""As many workers as fit the cores, see `num_workers`."""

_CORE_US, _WORKER_US = 10.0, 55.0
"""Processor time of a request to a small model in the core's process and in a worker; see docs/performance.md."""

MAX_BODY_BYTES = 100 * 1024 * 1024
"""Largest request of a server in a notebook, over HTTP and gRPC."""


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """How gRPC listens.

    Attributes:
        host: the address to bind.
        port: TCP port, 0 for a free one, None for no TCP.
        socket_path: a Unix socket to listen on too, or "".
        max_message_bytes: largest message of a call; larger ones are refused before they are read.
        max_connections: open connections; more are closed at once. `open_files` may allow fewer.
        channel_arguments: gRPC's names and values, which come last.
        tls: key and certificate, or None for plain text.
        as_content: answer numbers as `tensor_content` instead of typed fields.
        checks_method_names: refuse signatures whose `method_name` does not fit the call.
        has_health: answer `grpc.health.v1`.
        core_path: a Unix socket on which the core answers what workers leave to it, or "" without them; when there
            is one, the TCP port is theirs.
        is_port_held: the process that started this one keeps the TCP port, see `sockets.hold`.
    """

    host: str = "127.0.0.1"
    port: int | None = 0
    socket_path: str = ""
    max_message_bytes: int = MAX_BODY_BYTES
    max_connections: int = 1024
    channel_arguments: tuple[tuple[str, int | str], ...] = ()
    tls: TlsFiles | None = None
    as_content: bool = False
    checks_method_names: bool = False
    has_health: bool = True
    core_path: str = ""
    is_port_held: bool = False


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Address, authentication and limits of one server.

    Attributes:
        host: the address to bind.
        port: TCP port for HTTP; 0 for a free one, None for no HTTP.
        listen_fds: listening sockets for HTTP that were inherited, one for each process that accepts; () to bind them.
        token: what requests must carry, or None for no authentication.
        admin_token: what requests of the admin API must carry when others need nothing; `token` by default. Without
            either there is no admin API.
        allow_remote: must be true to bind anything but a loopback address.
        allowed_hosts: names, in lower case, that `Host` may have beside this machine's on a loopback address without a
            token: those by which a proxy or a tunnel is called.
        max_body_bytes: largest request body, compressed or not.
        max_bytes_in_flight: of all unfinished requests together that are larger than `budget.FREE_BYTES`; more are
            refused for the time being.
        max_header_bytes: largest request line and headers.
        idle_timeout_s: how long a connection may wait for the next complete request head.
        body_timeout_s: how long a body may take to arrive.
        write_timeout_s: how long a client may take to read its response.
        request_timeout_s: how long a request may wait and run, as `--rest_api_timeout_in_ms`.
        max_connections: open connections, of which `open_files` may allow fewer; for one more, the connection that was
            idle longest is closed, or that one itself.
        checks_origin: refuse requests from web pages of other origins, as a notebook's server must.
        has_cors: answer web pages of any origin, as `--rest_api_enable_cors_support`.
        tls: key and certificate for HTTPS, or None for plain HTTP.
        metrics_path: where HTTP answers with Prometheus metrics, or None.
        grpc: how gRPC listens, or None for no gRPC.
        workers: processes that hold HTTP, gRPC and codecs in front of the core; 0 does it in the core's process.

    Raises:
        InvalidOption: if a value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int | None = 0
    listen_fds: tuple[int, ...] = ()
    token: str | None = None
    admin_token: str | None = None
    allow_remote: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    max_bytes_in_flight: int = 256 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    request_timeout_s: float = 30.0
    max_connections: int = 4096
    checks_origin: bool = True
    has_cors: bool = False
    tls: TlsFiles | None = None
    metrics_path: str | None = None
    grpc: GrpcSettings | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        _check_port(self.port, "--port 8501")
        check_workers(self.workers)
        if self.grpc is not None:
            _check_port(self.grpc.port, "--grpc-port 8500")
        if not self.allow_remote and not is_loopback(self.host):
            raise InvalidOption(
                f"host={self.host!r} can be reached from other machines", hint="127.0.0.1, or allow_remote=True"
            )

    @property
    def is_grpc_open(self) -> bool:
        """Whether gRPC answers clients that show neither a token nor a certificate."""
        return self.grpc is not None and self.token is None and not _knows_clients(self.grpc.tls)

    @property
    def is_http_open(self) -> bool:
        """Whether HTTP answers clients that show neither a token nor a certificate."""
        return self.port is not None and self.token is None and not _knows_clients(self.tls)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def check_workers(workers: object) -> None:
    """Refuse what is no number of workers.

    Raises:
        InvalidOption: naming it.
    """
    if not isinstance(workers, int) or isinstance(workers, bool) or not 0 <= workers <= MAX_WORKERS:
        raise InvalidOption(
            f"workers={workers!r} must be a number from 0 to {MAX_WORKERS}, or {AUTO_WORKERS}",
            hint=f"--workers {AUTO_WORKERS} for as many as fit the cores",
        )


def num_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_workers(cores: int) -> int:
    """How many workers `auto` is, for a server that has a process of its own.

    Half of the cores: the core's process and the model need the others. No more than keep the core's process busy: they
    would wait for it. Not one alone: it takes as long for a request as the core's process does without workers, and a
    client that asks alone waits longer.

    Args:
        cores: those that the server may use.

    Example:
        >>> [num_workers(cores) for cores in (1, 2, 4, 8, 64)]
        [0, 0, 2, 4, 5]
    """
    workers = min(cores // 2, int(_WORKER_US / _CORE_US))
    return workers if workers > 1 else 0


def _knows_clients(files: TlsFiles | None) -> bool:
    return files is not None and files.verifies_clients


def _check_port(port: object, hint: str) -> None:
    is_number = isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= 65535
    if port is not None and not is_number:
        raise InvalidOption(f"port={port!r} must be a number from 0 (any free port) to 65535", hint=hint)


@functools.lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
