"""The way to another server: HTTP with kept connections, and its errors as ours.

Thread: any. A fork of the process gets connections of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import urllib.request
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any  # JSON values
from urllib.parse import urlsplit

from ... import errors
from ...errors import DeadlineExceeded, NotAvailable, ServingError
from .operations import PREFIX

if TYPE_CHECKING:
    import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")
IDLE_S = 5.0
"""How long a connection is kept without a request: well below the 75 s after which our server closes it, so that no
request meets a connection that is being closed."""
MOST_IDLE = 8

SIGNATURES_CHANGED = 412
_KINDS = {
    400: "InvalidRequest",
    401: "InvalidRequest",
    403: "InvalidRequest",
    404: "ModelNotFound",
    501: "Unimplemented",
    503: "QueueFull",
    504: "DeadlineExceeded",
}
"""HTTP status -> our class for it, for responses of TensorFlow Serving's API, which name no class."""


class SignaturesChanged(ServingError):
    """The version that answers has other signatures than the request was made for; it was not run."""


class ServerConnection:
    """Sends requests to one server.

    Connections are kept between requests; `close` ends them, and so does the end of this object or of the process.

    Args:
        url: such as `http://127.0.0.1:8501`, without a path.
        token: what requests must carry, or None.
        unavailable_reason: returns why the server cannot be reached, when that is known; "" otherwise.
    """

    def __init__(self, url: str, token: str | None, *, unavailable_reason: Callable[[], str] = lambda: "") -> None:
        self.url = url
        self.token = token
        self._unavailable_reason = unavailable_reason
        self._client: httpx.Client | None = None
        self._pid = 0

    def close(self) -> None:
        """Close all connections. Idempotent; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            _close(client, self._pid)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None,
        limit_s: float,
        more: Mapping[str, str] | None = None,
        *,
        is_raw: bool = False,
    ) -> tuple[Any, Mapping[str, str]]:
        """One request; its JSON response and the response's header fields.

        Args:
            method: as for `send`.
            path: as for `send`.
            body: as for `send`.
            limit_s: as for `send`.
            more: as for `send`.
            is_raw: return the response's bytes instead.

        Raises:
            NotAvailable: as `send`, and if what comes is no JSON.
            DeadlineExceeded: if it does not answer in time.
            SignaturesChanged: see there.
            ServingError: the server's error.
        """
        response = self.send(method, path, body, limit_s, more)
        if response.is_error:
            self._check_available()  # it ended meanwhile
            raise error_from_response(response, self.url, path)
        try:
            return response.content if is_raw else response.json(), response.headers
        except ValueError as error:
            raise NotAvailable(f"{self.url} answered what is no JSON: {error}", hint="is the URL right?") from error

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None,
        limit_s: float,
        more: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request; its response, whatever its status.

        A GET whose connection breaks is sent once more: the server may have been restarted. What changes something,
        or runs a model, is never sent twice.

        Args:
            method: such as `GET`.
            path: with its query, quoted.
            body: a JSON object, or its text.
            limit_s: seconds for connecting, and for each pause while sending and receiving.
            more: header fields; text that is latin-1.

        Raises:
            NotAvailable: if the server cannot be reached, or is known not to answer now: nothing is sent to it then.
            DeadlineExceeded: if it does not answer in time.
        """
        import httpx

        self._check_available()
        content = json.dumps(body).encode() if isinstance(body, Mapping) else body
        fields = {"Content-Type": "application/json", **(more or {})}
        if self.token is not None:
            fields["Authorization"] = f"Bearer {self.token}"
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        request: dict[str, Any] = {"content": content, "headers": headers, "timeout": limit_s}
        try:
            client = self._opened()
            try:
                return client.request(method, f"{self.url}{path}", **request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if method != "GET":
                    raise
                return client.request(method, f"{self.url}{path}", **request)
        except httpx.ReadTimeout as error:
            raise DeadlineExceeded(
                f"{self.url} did not answer within {limit_s:g} s", hint="allow more time; %serving names what hangs"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            reason = self._unavailable_reason() or str(error) or type(error).__name__
            raise NotAvailable(f"{self.url} cannot be reached: {reason}", hint="is the server running?") from error

    def _check_available(self) -> None:
        reason = self._unavailable_reason()
        if reason:
            raise NotAvailable(f"{self.url} cannot be reached: {reason}", hint="%serving says when it is back")

    def _opened(self) -> httpx.Client:
        """The client with its connections; a process that was forked leaves its parent's alone."""
        import httpx

        client = self._client
        if client is None or self._pid != os.getpid():
            client = httpx.Client(
                verify=ssl.create_default_context(),
                # As urllib finds proxies, not as httpx does: ALL_PROXY and .netrc are not used.
                proxy=proxy_of(self.url),
                trust_env=False,
                follow_redirects=True,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=MOST_IDLE, keepalive_expiry=IDLE_S),
                headers={"User-Agent": "tfserve_nb", "Accept-Encoding": "identity"},
            )
            self._client, self._pid = client, os.getpid()
            weakref.finalize(self, _close, client, self._pid)
        return client


def error_from_response(response: httpx.Response, url: str, path: str) -> ServingError:
    """The error in a server's response.

    Args:
        response: with a status of 400 or more.
        url: the server.
        path: of the request.
    """
    if response.status_code == SIGNATURES_CHANGED:
        return SignaturesChanged(f"{url} has other signatures now")
    value: Any = None
    with contextlib.suppress(ValueError):
        value = response.json()
    if not isinstance(value, dict):
        value = {"error": f"{url} answered {response.status_code} {response.reason_phrase}"}
        if response.status_code == 404 and path.startswith(PREFIX):
            return NotAvailable(
                f"{url} has no admin API: it is no tfserve_nb server, or it was started without a token",
                hint="tfserve-nb serve --auth_token_file=FILE ...",
            )
    if response.status_code == 401:
        value["hint"] = "connect(url, token=...): the token that the server was started with"
    name = str(value.get("kind", _KINDS.get(response.status_code, "RunFailed")))
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, ServingError)):
        kind = NotAvailable
    return kind(str(value.get("error")), hint=str(value.get("hint", "")))


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a server; none for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _close(client: httpx.Client, pid: int) -> None:
    """Close the connections that this process opened."""
    if pid == os.getpid():
        client.close()
