"""The admin API: versions, labels, traffic and numbers of a server, for `tfserve_nb.connect` and the kernel's child.

It lies below `/tfserve/v1/`, speaks JSON, and exists only on servers with a token. docs/admin-api.md describes it.

Thread: handlers on the server's loop; what they ask for runs on `tfserve-admin`, a daemon thread for each request.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any  # JSON values
from urllib.parse import unquote

from tornado import web

from ...errors import InvalidRequest, ModelNotFound, ServingError
from ...serving.admin import ModelAdmin
from ...serving.models.placement import Placement
from ...serving.models.stored_model import source_from_json
from ..runtime.run_in_thread import run_in_thread
from ..security import refusal
from ..settings import ServerSettings
from .wire import error_to_json, event_to_json, metrics_to_json, status_to_json
from .wire_samples import captured_to_json, resources_to_json, sample_to_json, settings_from_json

PREFIX = "/tfserve/v1"
MAX_SPAN_S = 900

Action = Callable[[ModelAdmin, str, Mapping[str, Any]], object]
Work = Callable[[str, Mapping[str, Any]], object]


def _status(core: ModelAdmin, name: str, _: Mapping[str, Any]) -> object:
    return {
        **status_to_json(core.model_status(name)),
        "base_path": str(core.base_path(name)),
        "highest_version": core.highest_version(name),
        "used": [version for version in core.available(name) if core.uses(name, version)],
    }


def _metrics(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    span_s, step_s = int(given.get("span_s", 120)), int(given.get("step_s", 2))
    if not 1 <= step_s <= span_s <= MAX_SPAN_S:
        raise InvalidRequest(
            f"span_s={span_s} and step_s={step_s} must be from 1 to {MAX_SPAN_S}, the step the smaller"
        )
    return metrics_to_json(core.model_metrics(name, span_s, step_s, given.get("signature")))


def _history(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    return {"events": [event_to_json(event) for event in core.history(name, int(given.get("limit", 100)))]}


def _samples(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    found = core.recent_samples(name, int(given.get("limit", 50)))
    return {"is_on": found.is_on, "samples": [sample_to_json(sample) for sample in found.samples]}


def _sample(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    core.sample_requests(name, is_on=bool(given["is_on"]))
    return {}


def _captured(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    limit = given.get("limit")
    return captured_to_json(core.captured(name, None if limit is None else int(limit)))


def _capture(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    core.capture(name, settings_from_json(given["settings"]), clear=bool(given.get("clear")))
    return {}


def _deploy(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    base_path, version = Path(given["base_path"]), int(given["version"])
    source = source_from_json(Path(given["path"]), given["source"])
    core.deploy(name, version, source, base_path, Placement(**given["placement"]))
    return {"version": version}


def _promote(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    core.promote(name, int(given["version"]))
    return {"version": int(given["version"])}


def _roll_back(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    to = given.get("to")
    return {"version": core.roll_back(name, None if to is None else int(to))}


def _stage(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    core.stage(name, int(given["version"]))
    return {"version": int(given["version"])}


def _label(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    version = given["version"]
    core.set_label(name, str(given["label"]), None if version is None else int(version))
    return {}


def _traffic(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    core.set_traffic(name, _by_version(given["weights"], float))
    return {}


def _split(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    shadow = given.get("shadow")
    core.set_split(
        name,
        _by_version(given["weights"], float),
        salt=given.get("salt"),
        key_header=given.get("key_header"),
        arms=_by_version(given.get("arms") or {}, str),
        shadow=None if shadow is None else (int(shadow[0]), float(shadow[1])),
    )
    return {}


def _shadow(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    version = given["version"]
    core.set_shadow(name, None if version is None else int(version), float(given.get("percent", 100)))
    return {}


def _by_version(values: Mapping[str, Any], kind: Callable[[Any], Any]) -> dict[int, Any]:
    return {int(version): kind(value) for version, value in values.items()}


def _undeploy(core: ModelAdmin, name: str, given: Mapping[str, Any]) -> object:
    version = given.get("version")
    core.undeploy(name, None if version is None else int(version), delete=bool(given.get("delete")))
    return {}


_ACTIONS: dict[tuple[str, str], Action] = {
    ("GET", ""): _status,
    ("GET", "metrics"): _metrics,
    ("GET", "history"): _history,
    ("GET", "samples"): _samples,
    ("POST", "samples"): _sample,
    ("GET", "capture"): _captured,
    ("POST", "capture"): _capture,
    ("POST", "deploy"): _deploy,
    ("POST", "promote"): _promote,
    ("POST", "rollback"): _roll_back,
    ("POST", "stage"): _stage,
    ("POST", "label"): _label,
    ("POST", "traffic"): _traffic,
    ("POST", "split"): _split,
    ("POST", "shadow"): _shadow,
    ("POST", "undeploy"): _undeploy,
}


class AdminHandler(web.RequestHandler):
    """What the admin API's handlers share: token, errors, threads."""

    def initialize(self, core: ModelAdmin, settings: ServerSettings, log: logging.Logger) -> None:
        """Called by Tornado with the values of the route."""
        self._core = core
        self._settings = settings
        self._server_log = log

    def prepare(self) -> None:
        """Refuse whoever has no token."""
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        denied = refusal(self.request.headers, self._settings)
        if denied is not None:
            self.set_status(denied.status)
            self.finish({"error": denied.message, "kind": "InvalidRequest"})

    async def run(self, work: Callable[[Mapping[str, Any]], object]) -> None:
        """Answer with what the work returns, or with its error."""
        try:
            given = self._given()
            self.finish(json.dumps(await run_in_thread("tfserve-admin", lambda: work(given))))
        except ServingError as error:
            self.set_status(error.http_status)
            self.finish(error_to_json(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.set_status(400)
            self.finish({"error": f"{type(error).__name__}: {error}", "kind": "InvalidRequest"})
        except Exception:  # noqa: BLE001 - a defect of ours: the client gets a number, the log the trace
            number = secrets.token_hex(4)
            self._server_log.exception("error %s in %s", number, self.request.path)
            self.set_status(500)
            self.finish({"error": f"Internal error {number}; the server's log has the details"})

    def _given(self) -> Mapping[str, Any]:
        if self.request.method == "GET":
            return {name: self.get_query_argument(name) for name in self.request.query_arguments}
        value = json.loads(self.request.body or b"{}")
        if not isinstance(value, dict):
            raise InvalidRequest("the body must be a JSON object")
        return value


class ActionHandler(AdminHandler):
    """What is done with one model; the last part of the path says what.

    Attributes:
        path: of the actions, for the text about what there is.
        works: method and action -> what is done with a model's name and what was given.
    """

    path = ""
    works: Mapping[tuple[str, str], Work]

    async def get(self, name: str, action: str | None) -> None:
        """Read something."""
        await self._act("GET", name, action or "")

    async def post(self, name: str, action: str | None) -> None:
        """Change something."""
        await self._act("POST", name, action or "")

    async def _act(self, method: str, name: str, action: str) -> None:
        found = self.works.get((method, action))
        if found is None:
            self.set_status(404)
            known = ", ".join(f"{kind} {self.path}{path}".rstrip(" /") for kind, path in self.works)
            error = f"no action {method} {self.path}{action}; there are {known}"
            self.finish({"error": error, "kind": "InvalidRequest"})
            return
        await self.run(lambda given: found(unquote(name), given))


class ModelHandler(ActionHandler):
    """`/tfserve/v1/models/NAME[/ACTION]`."""

    def prepare(self) -> None:
        """Everything is done on the core."""
        super().prepare()
        self.works = {key: partial(action, self._core) for key, action in _ACTIONS.items()}


class ModelsHandler(AdminHandler):
    """`/tfserve/v1/models`."""

    async def get(self) -> None:
        """The names of all models, and the process."""
        await self.run(lambda _: {"models": list(self._core.names), "pid": os.getpid()})


class ResourcesHandler(AdminHandler):
    """`/tfserve/v1/resources`."""

    async def get(self) -> None:
        """What this process takes."""
        await self.run(lambda _: resources_to_json(self._core.resources()))


class ResumeHandler(AdminHandler):
    """`/tfserve/v1/resume`."""

    async def post(self) -> None:
        """Serve again what was served from a folder."""

        def work(given: Mapping[str, Any]) -> object:
            try:
                return {"problems": self._core.resume(Path(given["base_path"]), given.get("name"))}
            except OSError as error:
                raise ModelNotFound(f"{given['base_path']}: {error.strerror}") from error

        await self.run(work)


def admin_values(core: ModelAdmin, settings: ServerSettings, log: logging.Logger) -> dict[str, Any] | None:
    """What the handlers of the admin API get; None for a server without a token, which has no admin API."""
    token = settings.token or settings.admin_token
    if token is None:
        return None
    # Whatever others may do: this API is for people with the token, and for no web page but our own.
    return {"core": core, "settings": replace(settings, token=token, checks_origin=True), "log": log}


def admin_routes(values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The routes of the admin API.

    Args:
        values: those of `admin_values`.
    """
    return [
        (rf"{PREFIX}/models", ModelsHandler, values),
        (rf"{PREFIX}/models/([^/]+)(?:/([a-z]+))?", ModelHandler, values),
        (rf"{PREFIX}/resume", ResumeHandler, values),
        (rf"{PREFIX}/resources", ResourcesHandler, values),
    ]
