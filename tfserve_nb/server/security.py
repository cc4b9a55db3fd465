"""Token, Host and Origin checks of a server that every web page on this machine could reach.

A request is let in or refused when its head has arrived, before its body is read. What is not listed here as open
needs the token.

Thread: the server's loop.

Reference: the rules follow Jupyter Server's (token, no foreign Origin, loopback Host against DNS rebinding).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .http.message import Fields, Message, RequestHead
from .paths import ADMIN, DASHBOARD, HEALTH, REST, V2_HEALTH, is_inference
from .settings import ServerSettings, is_loopback

MAX_KEPT = 256
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What a web page can send to another site without asking first."""

_DECIDING = (b"authorization", b"x-tfserve-token", b"host", b"origin", b"sec-fetch-site", b"content-type")
"""The header fields that all decisions depend on."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        status: HTTP status.
        message: the public text.
    """

    status: int
    message: str


OPEN_BODY_BYTES = 64 * 1024
"""Largest body of requests that need no token, or that no handler reads."""


class Gate:
    """Decides at the heads of one server's requests.

    Args:
        settings: the server's.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._metrics_path = settings.metrics_path
        self._inference = self._admin = _Rules(settings)
        admin_token = settings.token or settings.admin_token
        if admin_token is not None:
            # The admin API always needs the token, and no web page but our own may use it.
            self._admin = _Rules(replace(settings, token=admin_token, checks_origin=True))

    def refusal(self, message: Message) -> Refusal | None:
        """None to let a request in, or why not; lowers the limits of clients that do not show the token."""
        head = message.head
        message.keeps_place = False
        target = head.target
        # A browser asks with OPTIONS what it may do, and never sends a token with that.
        is_rest = target[:4] == REST and head.method != "OPTIONS"  # nearly all requests
        if is_rest or is_inference(target):
            if is_rest or (head.method != "OPTIONS" and not target.startswith(V2_HEALTH)):
                return self._inference.refusal(message)
            message.max_bytes = min(message.max_bytes, OPEN_BODY_BYTES)
            return None
        path = target.partition("?")[0]
        if path.startswith(ADMIN + "/"):
            return self._admin.refusal(message)
        message.max_bytes = min(message.max_bytes, OPEN_BODY_BYTES)
        is_page = path == DASHBOARD or path.startswith(DASHBOARD + "/")
        is_open = (is_page or path == HEALTH) and path != self._metrics_path
        return None if is_open else self._inference.refusal(message)


class _Rules:
    """One token and its checks; clients repeat the same headers, so decisions are kept."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._let_in: set[tuple[bytes | None, ...]] = set()

    def refusal(self, message: Message) -> Refusal | None:
        """None to go on, or why not; see `refusal`. Who shows the token keeps its place."""
        head = message.head
        refused = self._refusal(head)
        message.keeps_place = refused is None and self._settings.token is not None
        return refused

    def _refusal(self, head: RequestHead) -> Refusal | None:
        fields = tuple(map(head.fields.get, _DECIDING))
        is_plain = len(head.fields) == len(head.lines)
        if is_plain and fields in self._let_in:
            return None
        refused = refusal(head, self._settings)
        if refused is None and is_plain:
            if len(self._let_in) >= MAX_KEPT:
                self._let_in.clear()
            self._let_in.add(fields)
        return refused


def refusal(fields: Fields, settings: ServerSettings) -> Refusal | None:
    """Decide whether a request may go on.

    Args:
        fields: the request's header fields.
        settings: the server's token and checks.

    Returns:
        None to go on; else 401 for a missing or wrong token, 403 for a foreign Host or Origin, 415 for a form.
    """
    token = settings.token
    if token is not None:
        authorization = _authorization(fields)
        if authorization is None:
            return Refusal(401, "A token is needed: send the header 'Authorization: Bearer TOKEN'")
        if not is_token_right(authorization, token):
            return Refusal(401, "The token is wrong")
    elif settings.is_loopback and not _may_be_called(_host_name(fields.get("Host") or ""), settings):
        # With the right token the Host does not matter: a page that rebinds its name does not know the token.
        return Refusal(403, "The Host header names another machine, and this server asks for no token")
    return _cross_site_refusal(fields) if settings.checks_origin else None


def _cross_site_refusal(fields: Fields) -> Refusal | None:
    """Why a request of a web page that is not ours is refused; None for other requests."""
    origin = fields.get("Origin")
    if origin is None and fields.get("Sec-Fetch-Site") is None:
        return None
    if origin is not None and urlsplit(origin).netloc.lower() != (fields.get("Host") or "").lower():
        return Refusal(403, "Requests from other web pages are refused")
    if (fields.get("Content-Type") or "").split(";")[0].strip().lower() in _FORM_TYPES:
        return Refusal(415, "Content-Type must be application/json")
    return None


def _authorization(fields: Fields) -> str | None:
    """`Bearer TOKEN`, from either header: proxies pass on an `Authorization` that was for them, so ours comes first."""
    own = fields.get("X-TFServe-Token")
    return fields.get("Authorization") if own is None else f"Bearer {own}"


def is_token_right(authorization: str, token: str) -> bool:
    """Compare `Bearer TOKEN` with the right token, in constant time."""
    scheme, _, given = authorization.partition(" ")
    is_bearer = scheme.lower() == "bearer"
    return is_bearer & hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())


def _may_be_called(name: str, settings: ServerSettings) -> bool:
    """Whether a server on loopback has this name: a page that rebinds a name of its own to it calls it by that one."""
    return is_loopback(name) or name.lower() in settings.allowed_hosts


def _host_name(host: str) -> str:
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host
