"""The web page of the dashboard: its files, which hold nothing secret, and its views, which need the admin API's token.

Thread: handlers on the server's loop; views are drawn on `tfserve-admin`, as the admin API's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol  # Tornado's handler arguments

from tornado import web

from ...errors import ServingError
from ..paths import DASHBOARD
from .handlers import AdminHandler
from .operations import PREFIX

PATH = DASHBOARD
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DashboardPages(Protocol):
    """What draws the page and does what is clicked; `dashboards.web.WebPages`."""

    def asset(self, name: str) -> tuple[str, bytes]:
        """Content type and bytes of a file; `ModelNotFound` for an unknown one."""

    def page(self, model: str, page: str, query: Mapping[str, str]) -> dict[str, object]:
        """A view as JSON."""

    def act(self, model: str, action: str, given: Mapping[str, Any]) -> dict[str, object]:
        """Carry out an action; what was done as JSON."""


class AssetHandler(web.RequestHandler):
    """`/tfserve/dashboard[/FILE]`."""

    def initialize(self, dashboard: DashboardPages) -> None:
        """Called by Tornado with the values of the route."""
        self._dashboard = dashboard

    def get(self, name: str | None = None) -> None:
        """A file of the page."""
        self.clear_header("Server")
        try:
            kind, data = self._dashboard.asset(name or "page.html")
        except ServingError as error:
            raise web.HTTPError(404) from error
        self.set_header("Content-Type", kind)
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")
        self.finish(data)


class PageHandler(AdminHandler):
    """`/tfserve/v1/models/NAME/pages/PAGE`."""

    def initialize(self, dashboard: DashboardPages, **values: Any) -> None:  # type: ignore[override]  # Tornado's way
        """Called by Tornado with the values of the route."""
        super().initialize(**values)
        self._dashboard = dashboard

    async def get(self, name: str, page: str) -> None:
        """A view."""
        await self.run(lambda given: self._dashboard.page(name, page, given))


class ClickHandler(PageHandler):
    """`/tfserve/v1/models/NAME/actions/ACTION`."""

    SUPPORTED_METHODS = ("POST",)

    async def post(self, name: str, action: str) -> None:
        """Do what was clicked."""
        await self.run(lambda given: self._dashboard.act(name, action, given))


def dashboard_routes(dashboard: DashboardPages, admin_values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The routes of the page.

    Args:
        dashboard: draws it.
        admin_values: what the admin API's handlers get.
    """
    return [
        (rf"{PATH}(?:/([a-z.]+))?", AssetHandler, {"dashboard": dashboard}),
        (rf"{PREFIX}/models/([^/]+)/pages/([a-z]+)", PageHandler, {"dashboard": dashboard, **admin_values}),
        (rf"{PREFIX}/models/([^/]+)/actions/([a-z_]+)", ClickHandler, {"dashboard": dashboard, **admin_values}),
    ]
