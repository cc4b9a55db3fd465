"""Listening sockets: bound once, shared with processes of ours, and inherited by them.

Thread: any.

Reference: socket(7), SO_REUSEPORT: only sockets of the same user share a port.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from ..errors import PortInUse, ServerFailed
from . import open_files

MAX_BACKLOG = 1024


def backlog() -> int:
    """How many clients may wait to be accepted: all of them may be accepted at once."""
    return open_files.share(MAX_BACKLOG, open_files.BACKLOG_SHARE)


def bind(host: str, port: int, *, shares: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: the address.
        port: 0 for a free one.
        shares: let other sockets of this user listen on the same port; the system spreads clients over them.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    takes_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=backlog(), dualstack_ipv6=takes_both, reuse_port=shares
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is taken", hint="another --port, or none for a free one") from error
        raise ServerFailed(f"{host}:{port} cannot be bound: {error.strerror or error}", hint="--port 0") from error
    listener.setblocking(False)
    return listener


def bind_shared(host: str, port: int, number: int) -> list[socket.socket]:
    """Listening sockets for several processes on one port.

    Args:
        host: the address.
        port: 0 for a free one.
        number: how many.

    Raises:
        PortInUse: if the port is taken, also by a server that shares its port with others.
        ServerFailed: if the address cannot be bound.
    """
    if port:
        bind(host, port).close()
    first = bind(host, port, shares=True)
    return [first, *(bind(host, first.getsockname()[1], shares=True) for _ in range(number - 1))]


def hold(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for processes which share it, without listening itself.

    Args:
        host: the address.
        port: 0 for a free one.

    Raises:
        PortInUse: if the port is taken.
        ServerFailed: if the address cannot be bound.
    """
    listener = bind(host, port)
    with listener:
        number = listener.getsockname()[1]
        family = listener.family
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        place.bind((host, number))
    except OSError as error:
        place.close()
        raise PortInUse(f"port {number} on {host} is taken", hint="another port, or none for a free one") from error
    return place


def inherited(descriptors: tuple[int, ...]) -> list[socket.socket]:
    """The listening sockets that a parent process has bound.

    Args:
        descriptors: file descriptors.

    Raises:
        ServerFailed: if one of them is no socket.
    """
    try:
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except OSError as error:
        raise ServerFailed(f"inherited sockets {descriptors}: {error.strerror or error}") from error


def turn_away(listener: socket.socket) -> None:
    """Close the connections of all clients that wait; without blocking.

    The socket goes on listening. One that stopped would give its port to other programs: Linux frees a port that it
    chose itself, and lets others that set SO_REUSEADDR take any port on which no socket listens.
    """
    with contextlib.suppress(OSError):  # no client waits, or the socket was closed
        for _ in range(MAX_BACKLOG):
            client, _address = listener.accept()
            client.close()
