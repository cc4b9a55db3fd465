"""How a server with models is reached: in this kernel, in a child process of it, or elsewhere.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from ..errors import InvalidOption
from ..experiment.admin import ExperimentAdmin
from ..serving.admin import ModelAdmin

Kind: TypeAlias = Literal["in_kernel", "in_child", "remote", "standalone"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A server with models: what administers them, and its addresses.

    Handles of the same server with the same token are equal, so that deployments of it are equal too and share a
    dashboard.

    Attributes:
        kind: `in_kernel` for a thread of this process, `in_child` for a child process of it, `remote` for a server that
            is reached by its URL only, `standalone` for the process of `tfserve-nb serve` itself.
        models: administers its models.
        experiments: compares versions of them.
        url: address of HTTP, without a path; "" for `standalone`, whose pages know it by themselves.
        token: what requests must carry, or None for a server without authentication.
        grpc_address: address of gRPC, or None; the admin API of a remote server does not report it.
        on_stop: ends the server, for one that only a handle holds; None for others.
        on_scale: changes the least and the largest number of replicas; None for a server without replicas.
    """

    kind: Kind
    models: ModelAdmin = field(compare=False, repr=False)
    experiments: ExperimentAdmin = field(compare=False, repr=False)
    url: str = ""
    token: str | None = field(default=None, repr=False)
    grpc_address: str | None = None
    on_stop: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    on_scale: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)

    def rest_url(self, name: str) -> str:
        """Where TensorFlow Serving's REST API answers for a model."""
        return f"{self.url}/v1/models/{quote(name, safe='')}"

    @property
    def port(self) -> int | None:
        """TCP port of HTTP; None for a remote server, to which proxies of this machine do not lead."""
        return None if self.kind == "remote" else urlsplit(self.url).port

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its files are on this machine."""
        return self.kind != "remote" or urlsplit(self.url).hostname in _LOOPBACK


def split_url(url: str) -> tuple[str, str]:
    """The URL of a server, and the model that it names or "".

    Args:
        url: `http://HOST:PORT`, also with a path before `/v1/models/NAME`, as proxies have.

    Raises:
        InvalidOption: if it is neither HTTP nor HTTPS.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidOption(f"url={url!r} must begin with http:// or https://", hint="http://127.0.0.1:8501")
    prefix, _, rest = parts.path.partition("/v1/models/")
    name = unquote(rest.split("/")[0].split(":")[0])
    return f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}", name
