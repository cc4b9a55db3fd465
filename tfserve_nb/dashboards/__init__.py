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
        self.dashboards: list[tuple[DeploymentControls, Dashboard]] = []
        self.updater = Updater(self.tick)

    def tick(self) -> None:
        for _, dashboard in tuple(self.dashboards):
            dashboard.tick()


_open = _Open()


def dashboard_for(controls: DeploymentControls) -> Dashboard:
    """The dashboard of a deployment; the same one each time, so that showing it often costs nothing.

    Args:
        controls: the deployment; one of the same name on another server has a dashboard of its own.
    """
    from .view import Dashboard

    for known, dashboard in _open.dashboards:
        if known == controls:
            return dashboard
    dashboard = Dashboard(controls, _open.updater)
    _open.dashboards.append((controls, dashboard))
    return dashboard


def close_all() -> None:
    """Turn all dashboards into still pictures and end their thread."""
    for _, dashboard in tuple(_open.dashboards):
        dashboard.close()
    _open.dashboards.clear()
    _open.updater.stop()
