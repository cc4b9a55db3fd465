"""Compare the server of a model with another one.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

from ..errors import InvalidOption
from ..scaleout.parity.options import ParityOptions
from ..scaleout.parity.result import ParityResult
from ..server.handle import ServerHandle, split_url
from ..types import Progress


def compare_with(
    server: ServerHandle,
    name: str,
    other: str | ServerHandle,
    token: str | None,
    grpc_address: str | None,
    options: ParityOptions,
    progress: Progress,
) -> ParityResult:
    """Compare what two servers answer for a model; see `scaleout.parity.check.compare_servers` for errors.

    Args:
        server: A, the measure.
        name: the model.
        other: B: its URL, or its handle.
        token: what B asks for, when a URL is given.
        grpc_address: where B listens for gRPC; that of its handle by default.
        options: what is compared.
        progress: called with each step.
    """
    from ..scaleout.parity.check import compare_servers
    from ..scaleout.parity.side import Address

    a = Address(server.url, server.token, server.grpc_address, server.models)
    if isinstance(other, ServerHandle):
        b = Address(other.url, other.token, grpc_address or other.grpc_address, other.models)
    else:
        url, named = split_url(other)
        if named not in ("", name):
            raise InvalidOption(f"url={other!r} names {named}, and this is {name}", hint=f"{url}/v1/models/{name}")
        b = Address(url, token, grpc_address)
    return compare_servers(a, b, (name,), options, progress)
