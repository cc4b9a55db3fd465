"""Ray Serve's REST API, on the port of Ray's dashboard: what is deployed, and what shall be.

Thread: any.

Reference: Ray Serve's REST API (GET and PUT /api/serve/applications/), as of Ray 2.60.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # JSON values
from urllib.parse import urlsplit

from ...errors import ConfigRejected, InvalidOption, NotAvailable
from .config import TESTED_RAY

APPLICATIONS = "/api/serve/applications/"
VERSION = "/api/ray/version"
LIMIT_S = 60.0
PAUSES_S = (1.0, 3.0)
"""Before Ray is asked again what it could not do: on a busy machine a process that it starts may come too late."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeApi:
    """Asks one cluster.

    Args:
        url: of Ray's dashboard, such as `http://127.0.0.1:8265`.
        token: what the cluster asks for, or None for the one that Ray's own tools would send.

    Raises:
        InvalidOption: if that is no URL.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url if isinstance(url, str) else "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidOption(
                f"address={url!r:.200} must be the URL of Ray's dashboard",
                hint="http://HEAD_NODE:8265, or leave it out for a cluster on this machine",
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.host = parts.hostname
        self._token = token or _ray_token()
        proxies: dict[str, str] | None = {} if parts.hostname in _LOOPBACK else None  # None: those of the environment
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    def version(self, limit_s: float = LIMIT_S) -> str:
        """Ray's version on the cluster.

        Raises:
            NotAvailable: if nothing answers there.
        """
        return str(self._call("GET", VERSION, None, limit_s).get("ray_version", ""))

    def details(self) -> dict[str, Any]:
        """What is deployed, and how it is.

        Raises:
            NotAvailable: if the cluster does not answer.
        """
        found: dict[str, Any] = self._call("GET", APPLICATIONS, None, LIMIT_S)
        return found

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Make the cluster run what a configuration says; returns when Ray has taken it.

        Raises:
            ConfigRejected: with Ray's reason.
            NotAvailable: if the cluster does not answer.
        """
        self._call("PUT", APPLICATIONS, config, LIMIT_S)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, limit_s: float) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310 - http(s), checked
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            text = self._asked(request, limit_s)
            found: dict[str, Any] = json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (ValueError, http.client.HTTPException) as error:
            raise self._another("with something else than JSON") from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise NotAvailable(
                f"Ray's dashboard at {self.url} does not answer: {reason}", hint="is the cluster running? ray status"
            ) from error
        return found

    def _asked(self, request: urllib.request.Request, limit_s: float) -> bytes:
        """The answer; a failure of Ray's own is asked again, as everything here may be asked for twice."""
        for pause_s in PAUSES_S:
            try:
                with self._opener.open(request, timeout=limit_s) as response:
                    return bytes(response.read())
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                error.close()
            time.sleep(pause_s)
        with self._opener.open(request, timeout=limit_s) as response:
            return bytes(response.read())

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        text = error.read().decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else error.reason
        if error.code in (401, 403):
            return InvalidOption(
                f"Ray's dashboard at {self.url} asks for a token: {last:.300}",
                hint="set RAY_AUTH_TOKEN to the cluster's token",
            )
        if error.code == 400:
            return ConfigRejected(f"Ray refused the configuration: {text:.1000}")
        if error.code == 404:
            return self._another("404")
        return NotAvailable(f"Ray's dashboard at {self.url} answered {error.code}: {last:.300}")

    def _another(self, answer: str) -> NotAvailable:
        return NotAvailable(
            f"{self.url} is not Ray's dashboard, or has no Ray Serve: it answered {answer}",
            hint="its port is 8265 by default; pip install 'ray[default,serve]' there",
        )


def check_ray_version(version: str) -> str:
    """What has to be said of a version of Ray; "" for a tested one."""
    first, after = TESTED_RAY
    try:
        found = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        found = ()
    if first <= found < after:
        return ""
    tested = ".".join(map(str, first))
    return (
        f"Ray {version or 'of unknown version'} was not tested with tfserve_nb, Ray {tested} was: "
        f"pip install 'ray[serve,haproxy]=={tested}.*' if something does not work"
    )


def _ray_token() -> str | None:
    """The token that Ray's own tools send, where there is one."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token:
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
