"""Live views of deployments, made of core ipywidgets and inline SVG. They run on anything with `DeploymentControls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .controls import DeploymentControls
from .updater import Updater

if TYPE_CHECKING:
    from .view import Dashboard

__all__ = ["DeploymentControls", "close_all", "dashboard_for"]


class _Open:
    """The dashboards of this process, and the thread that writes them."""

    def __init__(self) -> None:
        self.dashboards: dict[str, tuple[DeploymentControls, Dashboard]] = {}
        self.updater = Updater(self.tick)

    def tick(self) -> None:
        for _, dashboard in tuple(self.dashboards.values()):
            dashboard.tick()


_open = _Open()


def dashboard_for(controls: DeploymentControls) -> Dashboard:
    """The dashboard of a deployment; the same one each time, so that showing it often costs nothing.

    Args:
        controls: the deployment; another one of the same name gets a dashboard of its own.
    """
    from .view import Dashboard

    known = _open.dashboards.get(controls.name)
    if known is not None and known[0] == controls:
        return known[1]
    if known is not None:
        known[1].close()
    dashboard = Dashboard(controls, _open.updater)
    _open.dashboards[controls.name] = (controls, dashboard)
    return dashboard


def close_all() -> None:
    """Turn all dashboards into still pictures and end their thread."""
    for _, dashboard in tuple(_open.dashboards.values()):
        dashboard.close()
    _open.dashboards.clear()
    _open.updater.stop()
