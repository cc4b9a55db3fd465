"""One of the two servers that are compared: how it is reached, and what it tells of itself.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar  # JSON values
from urllib.parse import quote

from ...errors import InvalidOption, NotAvailable, ServingError
from ...server.admin.client import RemoteModels
from ...server.admin.connection import ServerConnection
from ...server.paths import V2
from ...serving.admin import ModelAdmin
from ...types import ModelStatus
from .grpc_client import GrpcClient

T = TypeVar("T")

POLL_S = 0.2
_NO_TOKEN = (401, 403)
_GRPC_NO_TOKEN = ("UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass(frozen=True, slots=True)
class Address:
    """How a server is reached.

    Attributes:
        url: such as `http://127.0.0.1:8501`, without a model.
        token: what it asks for, or None.
        grpc: `HOST:PORT`, or `grpcs://HOST:PORT` for TLS; None to leave gRPC out.
        admin: administers its models, where that is known; otherwise its admin API is asked if there is a token.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    grpc: str | None = None
    admin: ModelAdmin | None = None


class Reply(NamedTuple):
    """A response to an HTTP request."""

    status: int
    body: bytes
    fields: Mapping[str, str]

    @property
    def json(self) -> Any:
        """Its JSON value; None for a body that is none."""
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    @property
    def text(self) -> str:
        """The error in it, or its beginning."""
        value = self.json
        if isinstance(value, dict) and "error" in value:
            return str(value["error"])
        return self.body.decode("utf-8", "replace").strip()[:300] or "no text"


class Side:
    """A server under comparison.

    Args:
        letter: `A` or `B`, for messages.
        address: how it is reached.
        limit_s: how long a response may take.
    """

    def __init__(self, letter: str, address: Address, limit_s: float) -> None:
        self.letter = letter
        self.url = address.url
        self._limit_s = limit_s
        self._connection = ServerConnection(address.url, address.token)
        admin = address.admin
        self._admin: ModelAdmin | None = admin
        if admin is None and address.token:
            self._admin = RemoteModels(address.url, address.token)
        self.grpc = None if address.grpc is None else GrpcClient(address.grpc, address.token, limit_s)

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._connection.close()
        if isinstance(self._admin, RemoteModels):
            self._admin.connection.close()
        if self.grpc is not None:
            self.grpc.close()

    def wait(self, limit_s: float) -> None:
        """Wait until the server answers anything.

        Raises:
            NotAvailable: if it does not within `limit_s`.
            InvalidOption: if it wants another token.
        """
        until_s = time.perf_counter() + limit_s
        while True:
            try:
                self.get(V2)
            except NotAvailable:
                if time.perf_counter() >= until_s:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def get(self, path: str) -> Reply:
        """A response; see `send`."""
        return self.send("GET", path, None)

    def send(self, method: str, path: str, body: bytes | None, more: Mapping[str, str] | None = None) -> Reply:
        """A response, whatever its status.

        Raises:
            NotAvailable: if the server cannot be reached.
            DeadlineExceeded: if it does not answer in time.
            InvalidOption: if it wants another token.
        """
        response = self._connection.send(method, path, body, self._limit_s, more)
        reply = Reply(response.status_code, response.content, response.headers)
        if reply.status in _NO_TOKEN:
            raise self.refused(f"{reply.status} {reply.text}")
        return reply

    def call(self, method: str, message: bytes) -> tuple[str, str, bytes]:
        """A gRPC call: the code's name, the text of an error, the response.

        Raises:
            NotAvailable: if the server cannot be reached.
            InvalidOption: if it wants another token.
        """
        assert self.grpc is not None  # noqa: S101 - who calls has asked
        code, text, response = self.grpc.call(method, message)
        if code in _GRPC_NO_TOKEN:
            raise self.refused(f"{code} {text}")
        return code, text, response

    def refused(self, why: str) -> InvalidOption:
        """The error for a server that does not let us in."""
        return InvalidOption(
            f"{self.letter} ({self.url}) refuses: {why}",
            hint="--token-file FILE_A FILE_B or --token-env NAME_A NAME_B, with - for none; in Python token=...",
        )

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """The models that it serves; None when it does not list them, as TensorFlow Serving."""
        admin = self._admin
        return None if admin is None else _told(lambda: admin.names)

    def status(self, name: str) -> ModelStatus | None:
        """What it tells of labels, traffic and versions; None when it does not."""
        admin = self._admin
        return None if admin is None else _told(lambda: admin.model_status(name))

    @property
    def admin(self) -> ModelAdmin | None:
        """Its admin API, when it has one."""
        return None if self.names is None else self._admin

    @cached_property
    def why_no_v2(self) -> str:
        """Why there is no Open Inference Protocol; "" when there is."""
        reply = self.get(V2)
        is_there = reply.status == 200 and isinstance(reply.json, dict)
        return "" if is_there else f"{self.letter} has no Open Inference Protocol ({reply.status} for {V2})"

    @property
    def why_no_grpc(self) -> str:
        """Why gRPC is left out; "" when it is not."""
        return f"no gRPC address is given for {self.letter} (--grpc HOST:PORT HOST:PORT)" if self.grpc is None else ""


def model_path(name: str, version: int | None = None, label: str | None = None) -> str:
    """The path of a model in TensorFlow Serving's REST API."""
    path = f"/v1/models/{quote(name, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return path if label is None else f"{path}/labels/{quote(label, safe='')}"


def _told(ask: Callable[[], T]) -> T | None:
    """What an admin API tells; None for a server without one, or without this model."""
    try:
        return ask()
    except NotAvailable as error:
        if "no admin API" not in error.message:
            raise
        return None
    except ServingError:
        return None
