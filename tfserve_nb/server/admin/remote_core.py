"""A core that runs elsewhere, through its server's admin and REST APIs.

Thread: any; every call has a connection of its own.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any  # JSON values
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

from ...errors import InvalidRequest, NotAvailable, ServingError
from ...serving.admin import ModelAdmin
from ...serving.backend import ModelSpec, as_header
from ...serving.models.placement import Placement
from ...serving.models.stored_model import source_to_json
from ...serving.telemetry.captured import CapturedRequests, CaptureSettings
from ...serving.telemetry.model_metrics import ModelMetrics
from ...serving.telemetry.request_samples import KEPT, Samples
from ...serving.telemetry.resources import Resources
from ...serving.versions.inputs import as_tensors
from ...serving.versions.source import VersionSource
from ...types import (
    HistoryEvent,
    ModelStatus,
    Progress,
    ProgressEvent,
    Tensors,
    VersionState,
    VersionStatus,
    no_progress,
)
from .handlers import PREFIX
from .predict_client import decode_outputs, encode_inputs, signatures_from_json
from .wire import error_from_json, event_from_json, metrics_from_json, status_from_json
from .wire_samples import captured_from_json, resources_from_json, sample_from_json, settings_to_json

READ_S = 10.0
CHANGE_S = 660.0
"""How long a change may take: a little more than the longest load."""
CAPTURE_S = 120.0
POLL_S = 0.2
ROWS_OF_ONE_REQUEST = 4096
_KINDS = {
    400: "InvalidRequest",
    401: "InvalidRequest",
    403: "InvalidRequest",
    404: "ModelNotFound",
    501: "Unimplemented",
    503: "QueueFull",
    504: "DeadlineExceeded",
}
"""HTTP status -> our class for it, for answers of TensorFlow Serving's API, which tell no class."""


class RemoteCore(ModelAdmin):
    """The models of another server.

    Args:
        url: such as `http://127.0.0.1:8501`, without a path.
        token: what the server asks for, or None.
        unavailable_reason: says why the server cannot be reached, when somebody knows; "" otherwise.
        context: for HTTPS; the system's certificates by default.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        unavailable_reason: Callable[[], str] = lambda: "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.token = token
        self._unavailable_reason = unavailable_reason
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served."""
        return tuple(self._get("/models")["models"])

    def model_status(self, name: str) -> ModelStatus:
        """Everything that is known of a model now."""
        return status_from_json(self._get(_path(name)))

    def uses(self, name: str, version: int) -> bool:
        """Whether traffic, a label or the stage needs a version."""
        return version in self._get(_path(name))["used"]

    def available(self, name: str) -> tuple[int, ...]:
        """The loaded versions of a model, in increasing order."""
        versions = self.model_status(name).versions
        return tuple(sorted(one.version for one in versions if one.state is VersionState.AVAILABLE))

    def base_path(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, or None when it is not served."""
        return Path(self._get(_path(name))["base_path"]) if name in self.names else None

    def highest_version(self, name: str) -> int:
        """The highest version that was ever served; 0 when there is none."""
        return int(self._get(_path(name))["highest_version"]) if name in self.names else 0

    def model_metrics(self, name: str, span_s: int, step_s: int, signature: str | None = None) -> ModelMetrics:
        """The numbers of the last `span_s` seconds, of one signature or of all."""
        which = {} if signature is None else {"signature": signature}
        return metrics_from_json(self._get(_path(name, "metrics"), span_s=span_s, step_s=step_s, **which))

    def history(self, name: str, limit: int = 100) -> list[HistoryEvent]:
        """The newest events of a model, newest first."""
        return [event_from_json(event) for event in self._get(_path(name, "history"), limit=limit)["events"]]

    def recent_samples(self, name: str, limit: int = KEPT) -> Samples:
        """The newest sampled requests of a model, and whether sampling is on."""
        value = self._get(_path(name, "samples"), limit=limit)
        return Samples(bool(value["is_on"]), tuple(sample_from_json(one) for one in value["samples"]))

    def sample_requests(self, name: str, *, is_on: bool) -> None:
        """Begin or end sampling a model's requests."""
        self._call("POST", PREFIX + _path(name, "samples"), {"is_on": is_on}, READ_S)

    def capture(self, name: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Begin or end capturing a model's requests; a function cannot redact there."""
        given = {"settings": None if settings is None else settings_to_json(settings), "clear": clear}
        self._call("POST", PREFIX + _path(name, "capture"), given, READ_S)

    def captured(self, name: str, limit: int | None = None) -> CapturedRequests:
        """The newest captured requests of a model, or all; they all come over the wire."""
        which = "" if limit is None else f"?limit={limit}"
        return captured_from_json(self._call("GET", f"{PREFIX}{_path(name, 'capture')}{which}", None, CAPTURE_S))

    def resources(self) -> Resources:
        """What the server's process takes of its machine."""
        return resources_from_json(self._get("/resources"))

    def predict(
        self, spec: ModelSpec, signature: str, value: Any, limit_s: float, key: str = "", request_id: str = ""
    ) -> Tensors:
        """Predict over REST; large requests are sent in pieces, all to the version that answers the first one."""
        path = _predict_path(spec)
        headers = {self.model_status(spec.name).key_header: as_header(key)} if key else {}
        if request_id:
            headers["X-Request-Id"] = request_id
        definitions, version = signatures_from_json(self._call("GET", f"{path}/metadata", None, READ_S, headers))
        found = definitions.get(signature)
        if found is None:
            raise InvalidRequest(
                f'Serving signature name: "{signature}" not found in signature def',
                hint=f"signatures: {', '.join(definitions)}",
            )
        inputs = as_tensors(found, value)
        num_rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        pinned = f"/v1/models/{quote(spec.name, safe='')}/versions/{version}"
        pieces = []
        for start in range(0, max(1, num_rows), ROWS_OF_ONE_REQUEST):
            is_whole = num_rows <= ROWS_OF_ONE_REQUEST
            rows = {
                name: array if is_whole else array[start : start + ROWS_OF_ONE_REQUEST]
                for name, array in inputs.items()
            }
            # One request goes wherever the traffic decides; several must not be spread over versions.
            body = self._call(
                "POST", f"{path if is_whole else pinned}:predict", encode_inputs(signature, rows), limit_s, headers
            )
            pieces.append(decode_outputs(body, found))
        return (
            {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
            if len(pieces) > 1
            else (pieces[0])
        )

    def deploy(
        self,
        name: str,
        version: int,
        source: VersionSource,
        base_path: Path,
        placement: Placement,
        progress: Progress = no_progress,
    ) -> None:
        """Load a version and route to it; both machines must see `base_path`."""
        given = {
            "version": version,
            "path": str(source.path),
            "source": source_to_json(source),
            "base_path": str(base_path),
            "placement": {
                "label": placement.label,
                "stage": placement.stage,
                "canary": placement.canary,
                "keep": placement.keep,
                **({} if placement.shadow is None else {"shadow": placement.shadow}),
            },
        }
        self._change(name, "deploy", given, progress, version)

    def promote(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Give all traffic to a version."""
        self._change(name, "promote", {"version": version}, progress, version)

    def roll_back(self, name: str, to: int | None = None, progress: Progress = no_progress) -> int:
        """Go back to an earlier version; returns the version that answers now."""
        return int(self._change(name, "rollback", {"to": to}, progress, to)["version"])

    def stage(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Load a version and keep it loaded, without traffic."""
        self._change(name, "stage", {"version": version}, progress, version)

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = no_progress) -> None:
        """Point a label to a version (None removes it)."""
        self._change(name, "label", {"label": label, "version": version}, progress, version)

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = no_progress) -> None:
        """Split the traffic between versions."""
        given = {"weights": {str(version): percent for version, percent in weights.items()}}
        self._change(name, "traffic", given, progress, None)

    def set_split(
        self,
        name: str,
        weights: Mapping[int, float],
        *,
        salt: str | None = None,
        key_header: str | None = None,
        arms: Mapping[int, str] | None = None,
        shadow: tuple[int, float] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """Set all that a comparison needs at once; see `ServingCore.set_split`."""
        given = {
            "weights": {str(version): percent for version, percent in weights.items()},
            "salt": salt,
            "key_header": key_header,
            "arms": {str(version): arm for version, arm in (arms or {}).items()},
            "shadow": None if shadow is None else list(shadow),
        }
        self._change(name, "split", given, progress, None)

    def set_shadow(
        self, name: str, version: int | None, percent: float = 100.0, progress: Progress = no_progress
    ) -> None:
        """Give a version copies of requests that others answer (None ends it)."""
        self._change(name, "shadow", {"version": version, "percent": percent}, progress, version)

    def undeploy(self, name: str, version: int | None = None, *, delete: bool = False) -> None:
        """Stop serving a model, or unload one version of it."""
        self._change(name, "undeploy", {"version": version, "delete": delete}, no_progress, None)

    def resume(
        self, base_path: Path, only: str | None = None, progress: Progress = no_progress
    ) -> dict[str, list[str]]:
        """Serve again what was served from a folder; model -> what could not be brought back."""
        progress(ProgressEvent("loading", 0, 1))
        body = {"base_path": str(base_path), "name": only}
        problems: dict[str, list[str]] = self._call("POST", f"{PREFIX}/resume", body, CHANGE_S)["problems"]
        return problems

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, is_slow: bool = False) -> Any:
        """One request of the admin API, for what is not said here.

        Args:
            method: such as `GET`.
            path: below `/tfserve/v1`.
            body: a JSON object.
            is_slow: whether a model may have to be loaded.
        """
        return self._call(method, PREFIX + path, body, CHANGE_S if is_slow else READ_S)

    def _change(self, name: str, action: str, given: Mapping[str, Any], progress: Progress, version: int | None) -> Any:
        """Ask for a change and tell its progress meanwhile, on the calling thread."""
        path = PREFIX + _path(name, action)
        if progress is no_progress:
            return self._call("POST", path, given, CHANGE_S)
        results: list[Any] = []

        def ask() -> None:
            try:
                results.append(self._call("POST", path, given, CHANGE_S))
            except ServingError as error:
                results.append(error)

        thread = threading.Thread(target=ask, name="tfserve-remote-change", daemon=True)
        thread.start()
        told: ProgressEvent | None = None
        while thread.is_alive():
            thread.join(POLL_S)
            event = self._progress(name, version)
            if event is not None and event != told and thread.is_alive():
                progress(event)
                told = event
        (result,) = results or (NotAvailable(f"{self.url} gave no answer"),)
        if isinstance(result, ServingError):
            raise result
        return result

    def _progress(self, name: str, version: int | None) -> ProgressEvent | None:
        try:
            versions = self.model_status(name).versions
        except ServingError:
            return None
        loading = [one for one in versions if _is_loading(one, version)]
        if not loading:
            return None
        return ProgressEvent(loading[0].detail or "loading", loading[0].done, loading[0].total)

    def _get(self, path: str, **query: Any) -> Any:
        return self._call("GET", f"{PREFIX}{path}{'?' + urlencode(query) if query else ''}", None, READ_S)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None,
        limit_s: float,
        more: Mapping[str, str] | None = None,
    ) -> Any:
        """One request, with more header fields; its JSON answer."""
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        headers = {"Content-Type": "application/json", **(more or {})}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - see `connect`
        try:
            with self._opener.open(request, timeout=limit_s) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                told = _told(error, self.url, path)
            if self._unavailable_reason():  # a new process answers already, but does not serve everything yet
                raise NotAvailable(
                    f"{self.url}: {self._unavailable_reason()}", hint="try again in some seconds"
                ) from None
            raise told from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = self._unavailable_reason() or str(getattr(error, "reason", error) or type(error).__name__)
            raise NotAvailable(f"{self.url} cannot be reached: {reason}", hint="is the server running?") from error


def _told(error: urllib.error.HTTPError, url: str, path: str) -> ServingError:
    """The error that a server told."""
    try:
        value = json.loads(error.read())
    except (ValueError, OSError):
        value = None
    if not isinstance(value, dict):
        value = {"error": f"{url} answered {error.code} {error.reason}"}
        if error.code == 404 and path.startswith(PREFIX):
            return NotAvailable(
                f"{url} has no admin API: it is no tfserve_nb server, or it was started without a token",
                hint="tfserve-nb serve --auth_token_file=FILE ...",
            )
    if error.code == 401:
        value["hint"] = "connect(url, token=...): the token that the server was started with"
    kind = _KINDS.get(error.code, "RunFailed")
    return error_from_json({"kind": kind, **value})


def _path(name: str, action: str = "") -> str:
    return f"/models/{quote(name, safe='')}{'/' + action if action else ''}"


def _predict_path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _is_loading(status: VersionStatus, version: int | None) -> bool:
    is_meant = version is None or status.version == version
    return is_meant and status.state in (VersionState.START, VersionState.LOADING)
