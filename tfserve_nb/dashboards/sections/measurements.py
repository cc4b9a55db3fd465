"""The tabs that only show measurements: latency of the model, resources of the server.

Thread: the updater's.
"""

from __future__ import annotations

import time
from typing import Any  # ipywidgets is untyped

from ...markup import note
from ..pages.latency import latency_page
from ..pages.resources import resources_page
from ..snapshot import Snapshot, clock
from .context import SPANS, Section, TabContext, choose_from, row

ALL = "all"


class LatencySection(Section):
    """Charts, and controls that choose what they show.

    Args:
        context: the dashboard.
    """

    title = "Latency"
    has_series = True

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        wide = widgets.Layout(width="210px")
        self._span = widgets.Dropdown(options=list(SPANS), value=context.options.span, description="Last", layout=wide)
        self._signature = widgets.Dropdown(options=[ALL], description="Signature", layout=wide)
        self._version = widgets.Dropdown(options=[(ALL, ALL)], description="Version", layout=wide)
        self._pause = widgets.ToggleButton(
            description="Pause", tooltip="Let the charts stand still", layout=widgets.Layout(width="auto")
        )
        for control in (self._span, self._signature, self._version, self._pause):
            control.observe(lambda _: context.updater.post(self._chosen), "value")
        self._charts = widgets.HTML()
        controls = row(self._span, self._version, self._signature, self._pause)
        self.widget: Any = widgets.VBox([controls, self._charts])

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        metrics = snapshot.metrics
        choose_from(self._signature, [ALL, *metrics.signatures], ALL)
        versions = [(ALL, ALL), *((f"v{version}", version) for version in metrics.versions)]
        choose_from(self._version, versions, ALL)
        if self._context.options.is_paused:
            return
        only = None if self._version.value == ALL else (self._version.value,)
        self._charts.value = latency_page(snapshot, only)

    def enable(self, is_enabled: bool) -> None:
        """Looking is always allowed."""

    def _chosen(self) -> None:
        options = self._context.options
        options.span = self._span.value
        options.signature = None if self._signature.value == ALL else self._signature.value
        if self._pause.value and not options.is_paused:
            self._charts.value += note(f"paused at {clock(time.time())}")
        options.is_paused = self._pause.value
        self._pause.description = "Go on" if options.is_paused else "Pause"
        self._context.redraw()


class ResourcesSection(Section):
    """Charts and tables.

    Args:
        context: the dashboard.
    """

    title = "Resources"
    is_always_moving = True

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._page = widgets.HTML()
        self.widget: Any = widgets.VBox([self._page])

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._page.value = resources_page(self._context.controls.resources(), snapshot.status)

    def enable(self, is_enabled: bool) -> None:
        """Looking is always allowed."""
