"""The tab with the charts.

Thread: the updater's.
"""

from __future__ import annotations

import time
from typing import Any  # ipywidgets is untyped

from ...markup import note
from ..pages.latency import latency_page
from ..snapshot import Snapshot, clock
from .context import SPANS, TabContext, choose_from, row

ALL = "all"


class LatencySection:
    """Charts, and what to look at.

    Args:
        room: the dashboard.
    """

    title = "Latency"
    is_always_moving = False
    has_series = True

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        wide = widgets.Layout(width="210px")
        self._span = widgets.Dropdown(options=list(SPANS), value=room.look.span, description="Last", layout=wide)
        self._signature = widgets.Dropdown(options=[ALL], description="Signature", layout=wide)
        self._version = widgets.Dropdown(options=[(ALL, ALL)], description="Version", layout=wide)
        self._pause = widgets.ToggleButton(
            description="Pause", tooltip="Let the charts stand still", layout=widgets.Layout(width="auto")
        )
        for control in (self._span, self._signature, self._version, self._pause):
            control.observe(lambda _: room.updater.post(self._chosen), "value")
        self._charts = widgets.HTML()
        controls = row(self._span, self._version, self._signature, self._pause)
        self.widget: Any = widgets.VBox([controls, self._charts])

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        metrics = snapshot.metrics
        choose_from(self._signature, [ALL, *metrics.signatures], ALL)
        versions = [(ALL, ALL), *((f"v{version}", version) for version in metrics.versions)]
        choose_from(self._version, versions, ALL)
        if self._room.look.is_paused:
            return
        only = None if self._version.value == ALL else (self._version.value,)
        self._charts.value = latency_page(snapshot, only)

    def enable(self, is_enabled: bool) -> None:
        """Looking is always allowed."""

    def _chosen(self) -> None:
        look = self._room.look
        look.span = self._span.value
        look.signature = None if self._signature.value == ALL else self._signature.value
        if self._pause.value and not look.is_paused:
            self._charts.value += note(f"paused at {clock(time.time())}")
        look.is_paused = self._pause.value
        self._pause.description = "Go on" if look.is_paused else "Pause"
        self._room.redraw()
