"""The widgets of one deployment's dashboard.

Thread: everything that touches a widget runs on the updater's thread; the public methods may be called from any.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import Any  # ipywidgets is untyped

from ..errors import ServingError
from ..types import ModelStatus, VersionState
from .controls import DeploymentControls
from .static import charts, history_list, render_static, versions_table
from .updater import Updater

WATCH_STEP_S = 0.5


class Dashboard:
    """Shows the versions and live numbers of a deployment, with buttons to promote and roll back.

    Made by `dashboard_for`; showing it again shows the same widgets.

    Args:
        controls: the deployment.
        updater: the thread that writes widgets.
    """

    def __init__(self, controls: DeploymentControls, updater: Updater) -> None:
        self.name = controls.name
        self._controls = controls
        self._updater = updater
        self._shown: object = None
        self._is_closed = False
        self._static = ""
        updater.call(self._build)
        updater.call(self._redraw)

    @property
    def widget(self) -> Any:
        """The widget tree, an ipywidgets `VBox`."""
        return self._root

    def refresh(self) -> None:
        """Redraw now; where updates from threads do not show (Colab, Voilà), call this in a cell."""
        self._shown = None
        self._updater.call(self._redraw)

    def watch(self, seconds: float = 30.0) -> None:
        """Keep the cell busy and the dashboard fresh, for front ends that show updates only while a cell runs.

        Args:
            seconds: how long; interrupt the kernel to end it sooner.
        """
        until_s = time.perf_counter() + seconds
        while (left_s := until_s - time.perf_counter()) > 0:
            self.refresh()
            time.sleep(min(WATCH_STEP_S, left_s))

    def close(self) -> None:
        """Stop updating; what was shown last stays as a still picture."""
        if not self._is_closed:
            self._updater.call(self._close)

    def tick(self) -> None:
        """Redraw if anything changed. Updater's thread."""
        if not self._is_closed:
            self._redraw()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Text, static HTML and the live widget, so that every reader of the notebook sees something."""
        bundle: dict[str, str] = {"text/plain": repr(self), "text/html": self._static}
        view = self._root._repr_mimebundle_()
        if view:
            bundle |= {kind: value for kind, value in view.items() if "widget-view" in kind}
        return bundle

    def __repr__(self) -> str:
        return f"<Dashboard of {self.name}>"

    # --- below: the updater's thread only ------------------------------------------------------------------------

    def _build(self) -> None:
        import ipywidgets as widgets

        self._status = widgets.HTML()
        self._table = widgets.HTML()
        self._choice = widgets.Dropdown(options=[], description="Version", layout=widgets.Layout(width="200px"))
        self._promote = widgets.Button(description="Promote", tooltip="Give all traffic to the chosen version")
        self._roll_back = widgets.Button(description="Roll back", tooltip="Go back to the version that answered before")
        self._charts = widgets.HTML()
        self._history = widgets.HTML()
        # Clicks come on any thread: they only leave a command.
        self._promote.on_click(lambda _: self._updater.post(self._do_promote))
        self._roll_back.on_click(lambda _: self._updater.post(self._do_roll_back))
        row = widgets.HBox([self._choice, self._promote, self._roll_back], layout=widgets.Layout(flex_flow="row wrap"))
        self._root = widgets.VBox(
            [self._table, row, self._status, self._charts, self._history], layout=widgets.Layout(width="100%")
        )
        self._say("")

    def _do_promote(self) -> None:
        version = self._choice.value
        if version is not None:
            self._switch(f"promoting version {version}…", lambda: self._controls.promote(version))

    def _do_roll_back(self) -> None:
        self._switch("rolling back…", self._controls.rollback)

    def _switch(self, text: str, switch: Callable[[], object]) -> None:
        if self._is_closed:
            return
        self._enable(False)
        self._say(text)
        started_s = time.perf_counter()
        try:
            switch()
            took_ms = (time.perf_counter() - started_s) * 1e3
            self._say(f"version {self._controls.status().default_version} answers now, switched in {took_ms:.1f} ms")
        except Exception as error:  # noqa: BLE001 - shown to the person who clicked, whatever it is
            hint = getattr(error, "hint", "")
            self._say(f"⚠ {error}{f' (try: {hint})' if hint else ''}")
        self._shown = None
        self._redraw()

    def _redraw(self) -> None:
        try:
            status = self._controls.status()
            metrics = self._controls.metrics()
            is_moving = any(one.num_recent for one in metrics.versions.values())
            what = (status, metrics.total)
            if what == self._shown and not is_moving:
                return
            self._shown = what
            events = self._controls.history(10)
            self._static = render_static(status, metrics, events)
            self._choose_from(status)
            self._table.value = versions_table(status, metrics)
            self._charts.value = charts(metrics)
            self._history.value = history_list(events)
            self._enable(True)
        except ServingError as error:
            if self._shown != error.message:
                self._shown = error.message
                self._enable(False)
                self._say(f"{self.name} is not served now; what was shown last stays below")
        except Exception as error:  # noqa: BLE001 - a defect here must not end the thread that other dashboards need
            self._say(f"⚠ {type(error).__name__}: {error}")

    def _choose_from(self, status: ModelStatus) -> None:
        """Offer the versions that exist, keeping the choice of the person."""
        versions = [one.version for one in status.versions if one.state is not VersionState.END]
        if list(self._choice.options) != versions:
            chosen = self._choice.value
            self._choice.options = versions
            keep = chosen if chosen in versions else status.default_version
            self._choice.value = keep if keep in versions else (versions[0] if versions else None)

    def _enable(self, is_enabled: bool) -> None:
        for control in (self._choice, self._promote, self._roll_back):
            control.disabled = not is_enabled

    def _say(self, text: str) -> None:
        style = "min-height:1.4em;color:var(--jp-ui-font-color1,currentColor)"
        self._status.value = f'<div role="status" style="{style}">{html.escape(text)}</div>'

    def _close(self) -> None:
        self._is_closed = True
        self._enable(False)
        self._say(f"closed {time.strftime('%H:%M:%S')}; this is what was shown last")
