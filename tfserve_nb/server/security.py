"""Who may ask: token, Host and Origin checks of a server that every web page on this machine could reach.

Thread: the server's loop; pure functions.

Reference: the rules follow Jupyter Server's (token, no foreign Origin, loopback Host against DNS rebinding).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from .settings import ServerSettings, is_loopback

_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What a web page can send to another site without asking first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        status: HTTP status.
        message: the public text.
    """

    status: int
    message: str


def refusal(headers: Mapping[str, str], settings: ServerSettings) -> Refusal | None:
    """Decide whether a request may go on.

    Args:
        headers: the request's, looked up without regard to case.
        settings: the server's token and checks.

    Returns:
        None to go on; else 401 for a missing or wrong token, 403 for a foreign Host or Origin, 415 for a form.
    """
    token = settings.token
    if token is not None and not is_token_right(headers, token):
        if "Authorization" in headers or "X-TFServe-Token" in headers:
            return Refusal(401, "The token is wrong")
        return Refusal(401, "A token is needed: send the header 'Authorization: Bearer TOKEN'")
    host = headers.get("Host", "")
    if token is None and is_loopback(settings.host) and not is_loopback(_host_name(host)):
        # With the right token the Host does not matter: a page that rebinds its name does not know the token.
        return Refusal(403, "The Host header names another machine, and this server asks for no token")
    return _foreign(headers, host) if settings.checks_origin else None


def _foreign(headers: Mapping[str, str], host: str) -> Refusal | None:
    """Whether a request comes from a web page that is not ours."""
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return Refusal(403, "Requests from other web pages are not answered")
    is_browser = origin is not None or "Sec-Fetch-Site" in headers
    if is_browser and headers.get("Content-Type", "").split(";")[0].strip().lower() in _FORM_TYPES:
        return Refusal(415, "Content-Type must be application/json")
    return None


def is_token_right(headers: Mapping[str, str], token: str) -> bool:
    """Compare the token of a request, in constant time.

    Args:
        headers: `Authorization: Bearer TOKEN` or `X-TFServe-Token: TOKEN`.
        token: the right one.
    """
    if "Authorization" in headers:
        return is_text_right(headers["Authorization"], token)
    return is_text_right("Bearer " + headers.get("X-TFServe-Token", ""), token)


def is_text_right(authorization: str, token: str) -> bool:
    """Compare `Bearer TOKEN` with the right token, in constant time."""
    scheme, _, given = authorization.partition(" ")
    is_bearer = scheme.lower() == "bearer"
    return is_bearer & hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())


def _host_name(host: str) -> str:
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host
