"""The tab with what the server takes of the machine.

Thread: the updater's.
"""

from __future__ import annotations

from typing import Any  # ipywidgets is untyped

from ..pages.resources import resources_page
from ..snapshot import Snapshot
from .context import TabContext


class ResourcesSection:
    """Charts and tables.

    Args:
        room: the dashboard.
    """

    title = "Resources"
    is_always_moving = True
    has_series = False

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        self._page = widgets.HTML()
        self.widget: Any = widgets.VBox([self._page])

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._page.value = resources_page(self._room.controls.resources(), snapshot.status)

    def enable(self, is_enabled: bool) -> None:
        """Looking is always allowed."""
