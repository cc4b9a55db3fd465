"""The tab that puts two versions side by side.

Thread: the updater's.
"""

from __future__ import annotations

from typing import Any  # ipywidgets is untyped

from ..pages.compare import compare_page
from ..snapshot import Snapshot
from .context import TabContext, choose_from, row


class CompareSection:
    """Two choices and what they give.

    Args:
        room: the dashboard.
    """

    title = "A/B"
    is_always_moving = False
    has_series = True

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        wide = widgets.Layout(width="170px")
        self._a = widgets.Dropdown(options=[], description="A: version", layout=wide)
        self._b = widgets.Dropdown(options=[], description="B: version", layout=wide)
        for control in (self._a, self._b):
            control.observe(lambda _: room.updater.post(room.redraw), "value")
        self._page = widgets.HTML()
        self.widget: Any = widgets.VBox([row(self._a, self._b), self._page])

    def show(self, snapshot: Snapshot) -> None:
        """Draw; the default and the newest other version are compared first."""
        versions = sorted(set(snapshot.metrics.versions) | set(snapshot.status.traffic))
        default = snapshot.status.default_version
        others = [version for version in versions if version != default]
        choose_from(self._a, versions, default)
        choose_from(self._b, versions, others[-1] if others else None)
        self._page.value = compare_page(snapshot, self._a.value, self._b.value)

    def enable(self, is_enabled: bool) -> None:
        """Looking is always allowed."""
