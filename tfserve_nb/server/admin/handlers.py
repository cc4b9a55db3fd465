"""The admin API: versions, labels, traffic and metrics of a server, for `tfserve_nb.connect` and the kernel's child.

It lies below `/tfserve/v1/`, speaks JSON, and exists only on servers with a token. docs/admin-api.md describes it,
`operations` declares it.

Thread: handlers on the server's loop; operations run on `tfserve-admin`, a daemon thread for each request.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any  # JSON values

from tornado import web

from ...experiment.admin import ExperimentAdmin
from ...serving.admin import ModelAdmin
from ..event_loop import run_in_thread
from ..rest.json_text import parse_json
from ..settings import ServerSettings
from ..telemetry.log import public_error
from .operations import EXPERIMENT_OPERATIONS, MODEL, MODEL_OPERATIONS, PREFIX, Operation

NAME = re.escape("{name}")


class AdminHandler(web.RequestHandler):
    """What the admin API's handlers share: errors and threads. `security.Gate` let their requests in."""

    def initialize(self, core: ModelAdmin, log: logging.Logger) -> None:
        """Called by Tornado with the values of the route."""
        self._core = core
        self._server_log = log

    def prepare(self) -> None:
        """Set the headers of all responses."""
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")

    async def run(self, work: Callable[[Mapping[str, Any]], object]) -> None:
        """Answer with what the work returns, or with its error."""
        try:
            arguments = self._arguments()
            self.finish(json.dumps(await run_in_thread("tfserve-admin", lambda: work(arguments))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.set_status(400)
            self.finish({"error": f"{type(error).__name__}: {error}", "kind": "InvalidRequest"})
        except Exception as error:  # noqa: BLE001 - see `public_error`
            public = public_error(error, self._server_log, self.request.path)
            self.set_status(public.http_status)
            text = {"error": public.message, "hint": public.hint, "code": public.code, "kind": type(public).__name__}
            self.finish(text)

    def not_found(self) -> None:
        """Answer that there is no such operation, naming those that there are."""
        self.set_status(404)
        _, _, action = self.request.path.removeprefix(f"{PREFIX}/models/").partition("/")
        known = ", ".join(
            f"{operation.http_method} {operation.path.removeprefix(MODEL).removeprefix('/')}".rstrip()
            for operation in (*MODEL_OPERATIONS, *EXPERIMENT_OPERATIONS)
            if operation.path.startswith(MODEL)
        )
        error = f"no action {self.request.method} {action}; there are {known}"
        self.finish({"error": error, "kind": "InvalidRequest"})

    def _arguments(self) -> Mapping[str, Any]:
        if self.request.method == "GET":
            return {name: self.get_query_argument(name) for name in self.request.query_arguments}
        return parse_json(self.request.body or b"{}")


class OperationHandler(AdminHandler):
    """One path of the admin API, with its operations."""

    def initialize(self, operations: Mapping[str, tuple[object, Operation]], **values: Any) -> None:  # type: ignore[override]  # Tornado's way
        """Called by Tornado with the values of the route.

        Args:
            operations: HTTP method -> the object that carries the operation out, and the operation.
            values: those of every handler.
        """
        super().initialize(**values)
        self._operations = operations

    async def get(self, name: str = "") -> None:
        """Carry out the operation of the request's HTTP method."""
        found = self._operations.get(self.request.method or "")
        if found is None:
            self.not_found()
            return
        admin, operation = found
        await self.run(lambda given: operation.carry_out(admin, name, given))

    post = get


class UnknownOperationHandler(AdminHandler):
    """Everything else about one model."""

    async def get(self, _: str) -> None:
        """List the operations that there are."""
        self.not_found()

    post = get


class ModelsHandler(AdminHandler):
    """`/tfserve/v1/models`."""

    async def get(self) -> None:
        """The names of all models, and the process."""
        await self.run(lambda _: {"models": list(self._core.names), "pid": os.getpid()})


def admin_values(core: ModelAdmin, settings: ServerSettings, log: logging.Logger) -> dict[str, Any] | None:
    """What the handlers of the admin API get; None for a server without a token, which has no admin API."""
    if not settings.token and not settings.admin_token:
        return None
    return {"core": core, "log": log}


def admin_routes(
    core: ModelAdmin, experiments: ExperimentAdmin | None, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """The routes of the admin API.

    Args:
        core: carries out the operations on models.
        experiments: carries out those on experiments; None for a server without.
        values: those of `admin_values`.
    """
    by_path: dict[str, dict[str, tuple[object, Operation]]] = {}
    for admin, operations in ((core, MODEL_OPERATIONS), (experiments, EXPERIMENT_OPERATIONS)):
        for operation in operations if admin is not None else ():
            by_path.setdefault(operation.path, {})[operation.http_method] = (admin, operation)
    return [
        (rf"{PREFIX}/models", ModelsHandler, values),
        *(
            (f"{PREFIX}/{re.escape(path).replace(NAME, '([^/]+)')}", OperationHandler, {"operations": found, **values})
            for path, found in by_path.items()
        ),
        (rf"{PREFIX}/models/(.+)", UnknownOperationHandler, values),
    ]
