"""Token, Host and Origin checks of a server that every web page on this machine could reach.

Thread: the server's loop; pure functions.

Reference: the rules follow Jupyter Server's (token, no foreign Origin, loopback Host against DNS rebinding).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from .http.message import Fields, RequestHead
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


class Gate:
    """Decides for one server; clients repeat the same headers, so decisions are kept.

    Args:
        settings: the server's.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._let_in: set[tuple[bytes | None, ...]] = set()

    def refusal(self, head: RequestHead) -> Refusal | None:
        """None to go on, or why not; see `refusal`."""
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
    elif settings.is_loopback and not is_loopback(_host_name(fields.get("Host") or "")):
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
    """`Bearer TOKEN`, from either header."""
    given = fields.get("Authorization")
    if given is None:
        own = fields.get("X-TFServe-Token")
        given = None if own is None else "Bearer " + own
    return given


def is_token_right(authorization: str, token: str) -> bool:
    """Compare `Bearer TOKEN` with the right token, in constant time."""
    scheme, _, given = authorization.partition(" ")
    is_bearer = scheme.lower() == "bearer"
    return is_bearer & hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())


def _host_name(host: str) -> str:
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host
