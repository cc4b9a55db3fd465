"""The widgets of one deployment's dashboard: tabs, a status line, and the still page of a saved notebook.

Thread: everything that touches a widget runs on the updater's thread; the public methods may be called from any.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any  # ipywidgets is untyped

from ..errors import ServingError
from ..experiment.state import ExperimentState
from ..markup import grid, note, status_line
from ..types import HistoryEvent
from .action_runner import ActionRunner, in_words
from .cells import CELL_RUNS
from .charts.svg import STYLE
from .controls import DeploymentControls
from .pages.experiment import experiment_page
from .pages.latency import latency_charts
from .pages.versions import versions_page
from .sections.context import SPANS, Bind, Section, TabContext, ViewOptions
from .sections.experiment import ExperimentSection
from .sections.measurements import LatencySection, ResourcesSection
from .sections.requests import RequestsSection
from .sections.versions import VersionsSection
from .snapshot import Snapshot, clock
from .updater import Updater

SECTIONS: tuple[Callable[[TabContext], Section], ...] = (
    VersionsSection,
    LatencySection,
    ResourcesSection,
    ExperimentSection,
    RequestsSection,
)
WATCH_STEP_S = 0.5
METRICS_EVERY_S = 0.95
"""The numbers are counted by seconds: reading them more often shows nothing new."""
HISTORY_EVERY_S = 10.0
NUM_EVENTS = 50
TAB_STYLE = (
    "<style>.tfs-dashboard .lm-TabBar-tab{flex:0 1 auto!important;min-width:0!important}"
    ".tfs-dashboard .lm-TabBar,.tfs-dashboard .lm-TabBar-content{flex-wrap:wrap;height:auto;min-height:0}"
    ".tfs-dashboard .widget-html-content{min-width:0;flex:1 1 auto}</style>"
)
"""Tabs are as wide as their titles, in as many rows as a narrow column needs; wide tables scroll by themselves."""
STILL_EVERY_S = 10.0
"""How old the still page of a saved notebook may be."""
NUM_STILL_CHARTS = 4
_COLAB = (
    "Colab shows updates only while a cell runs, and brings clicks when none does: run %dashboard's .refresh() to "
    "look again, or .watch(30) to follow along."
)
_VS_CODE = (
    "VS Code brings clicks when no cell runs. During a long cell, %rollback and %promote have to wait too; "
    "tfserve_nb.connect from another notebook does not."
)
_VOILA = "Voilà shows what its cells draw: end the notebook with the dashboard's .watch(seconds) to keep this alive."


class Dashboard:
    """Shows the versions and live numbers of a deployment, with controls to switch, split, load and unload.

    Made by `dashboard_for`; showing it again shows the same widgets.

    Args:
        controls: the deployment.
        updater: the thread that writes widgets.

    Attributes:
        widget: the widget tree, an ipywidgets `VBox`.
    """

    def __init__(self, controls: DeploymentControls, updater: Updater) -> None:
        self.name = controls.name
        self._controls = controls
        self._updater = updater
        self._options = ViewOptions()
        self._snapshot: Snapshot | None = None
        self._shown: object = None
        self._metrics_read_s = self._history_read_s = float("-inf")
        self._problem = ""
        self._is_closed = False
        self._was_visible = False
        self.still_id = f"tfs-still-{secrets.token_hex(6)}"
        self._update_still: Callable[[str], None] | None = None
        self._bind: Bind | None = None
        self._still_of: Snapshot | None = None
        self._still_s = float("-inf")
        updater.call(self._build)
        updater.call(self._redraw)

    def open(self, title: str) -> None:
        """Bring a tab to the front.

        Args:
            title: `Versions`, `Latency`, `Resources`, `A/B` or `Requests`.

        Raises:
            ValueError: if there is no such tab.
        """
        place = [section.title for section in self._sections].index(title)
        self._updater.call(lambda: setattr(self._tab, "selected_index", place))
        self.refresh()

    def refresh(self) -> None:
        """Redraw now; where updates from threads do not show (Colab, Voilà), call this in a cell."""
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

    def tick(self) -> None:
        """Draw what changed; on the updater's thread. Costs nothing while no front end shows it."""
        if self._is_closed or not self.is_visible:
            return
        now_s = time.perf_counter()
        self._draw(is_forced=False, with_metrics=now_s - self._metrics_read_s >= self._metrics_every_s)
        if now_s - self._still_s >= STILL_EVERY_S:
            self._follow_still()

    def keep_still(self, update: Callable[[str], None]) -> None:
        """Keep the still page of the saved notebook up to date.

        Args:
            update: replaces the still pages that were displayed under `still_id`; called on the updater's thread.
        """
        self._update_still = update

    def let_bind(self, bind: Bind) -> None:
        """Let buttons put values into the notebook's namespace.

        Args:
            bind: receives a variable's name and its value; called on a thread of the dashboard.
        """
        self._bind = bind
        if not self._is_closed:
            self.refresh()

    def close(self) -> None:
        """Stop updating and keep what was shown last."""
        self._updater.call(self._close)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The live view, and a still one for saved notebooks, GitHub and terminals, which have no widgets."""
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._still()}
        view = self.widget._repr_mimebundle_()
        if view:
            bundle |= {kind: value for kind, value in view.items() if "widget-view" in kind}
        return bundle

    def __repr__(self) -> str:
        return f"<Dashboard of {self.name}>"

    def _still(self) -> str:
        page = "" if self._snapshot is None else still_page(self._snapshot, self._experiment())
        return f'<div class="{self.still_id}">{page}</div>'

    def _experiment(self) -> ExperimentState | None:
        try:
            return self._controls.experiment()
        except ServingError:
            return None  # the model is gone; what else was shown stays

    # --- below: the updater's thread only ------------------------------------------------------------------------

    def _build(self) -> None:
        import ipywidgets as widgets

        self._status = widgets.HTML()
        self._actions = ActionRunner(self._controls, self._updater, self._say, self._redraw)
        bind = lambda: self._bind  # noqa: E731 - it comes later, with the first notebook that shows this
        context = TabContext(self._controls, self._updater, self._actions, self._options, self._redraw, self._say, bind)
        self._sections: list[Section] = [section(context) for section in SECTIONS]
        self._tab = widgets.Tab(
            children=[section.widget for section in self._sections],
            titles=[section.title for section in self._sections],
        )
        self._tab.observe(lambda _: self._updater.post(self._redraw), "selected_index")
        hidden = f"<style>.{self.still_id}{{display:none}}</style>"  # the still page, as long as the widgets live
        head = widgets.HTML(STYLE + TAB_STYLE + hidden + note(advice()))
        self.widget: Any = widgets.VBox([head, self._status, self._tab], layout=widgets.Layout(width="100%"))
        self.widget.add_class("tfs-dashboard")
        # Front ends count the views of a widget once this is a number; a dashboard that none shows is not drawn.
        self.widget._view_count = 0  # noqa: SLF001 - ipywidgets documents it, as experimental
        self.widget.observe(self._count_views, "_view_count")
        self._say("")

    @property
    def is_visible(self) -> bool:
        """Whether a front end shows it; assumed until one has, since not all of them count views."""
        return bool(self.widget._view_count) or not self._was_visible  # noqa: SLF001

    @property
    def _metrics_every_s(self) -> float:
        has_series = self._sections[self._tab.selected_index or 0].has_series
        return max(METRICS_EVERY_S, SPANS[self._options.span][1] - 0.05 if has_series else 0.0)

    def _count_views(self, change: Any) -> None:
        """On any thread: a front end shows it once more or once less."""
        self._was_visible = self._was_visible or bool(change["new"])
        self._updater.post_if_running(self.tick)

    def _redraw(self) -> None:
        if not self._is_closed:
            self._draw(is_forced=True, with_metrics=True)

    def _draw(self, *, is_forced: bool, with_metrics: bool) -> None:
        try:
            self._draw_changes(is_forced=is_forced, with_metrics=with_metrics)
        except ServingError as error:
            if self._problem != error.message:
                self._problem = error.message
                self._enable(False)
                self._say(f"{in_words(error)}; what was shown last stays below")
        except Exception as error:  # noqa: BLE001 - a defect here must not end the thread that other dashboards need
            self._say(f"⚠ {type(error).__name__}: {error}")

    def _draw_changes(self, *, is_forced: bool, with_metrics: bool) -> None:
        status = self._controls.status()
        before = self._snapshot
        if with_metrics or before is None:
            metrics = self._controls.metrics(*SPANS[self._options.span], self._options.signature)
            self._metrics_read_s = time.perf_counter()
        else:
            metrics = before.metrics
        section = self._sections[self._tab.selected_index or 0]
        is_new = before is None or metrics is not before.metrics
        has_recent = any(one.num_recent for one in metrics.versions.values())
        is_moving = is_new and (section.is_always_moving or has_recent)
        what = (status, metrics.total)
        if not is_forced and not is_moving and what == self._shown:
            return
        events = self._events(is_due=is_forced or before is None or before.status != status)
        cells = CELL_RUNS.since(time.time() - metrics.span_s)
        self._shown = what
        self._snapshot = Snapshot(status, metrics, events, cells)
        section.show(self._snapshot)
        if self._problem:
            self._problem = ""
            self._say("")
        self._enable(self._actions.running is None)

    def _events(self, *, is_due: bool) -> tuple[HistoryEvent, ...]:
        """The history; it lies in a file, so it is read when something changed, and now and then."""
        now_s = time.perf_counter()
        if self._snapshot is None or is_due or now_s - self._history_read_s > HISTORY_EVERY_S:
            self._history_read_s = now_s
            return tuple(self._controls.history(NUM_EVENTS))
        return self._snapshot.events

    def _follow_still(self) -> None:
        """Bring the still page up to date, if something changed since."""
        if self._update_still is not None and self._snapshot is not self._still_of:
            self._still_of, self._still_s = self._snapshot, time.perf_counter()
            self._update_still(self._still())

    def _enable(self, is_enabled: bool) -> None:
        for section in self._sections:
            section.enable(is_enabled)

    def _say(self, text: str) -> None:
        self._status.value = status_line(text)

    def _close(self) -> None:
        self._is_closed = True
        self._follow_still()
        self._enable(False)
        self._say(f"closed {clock(time.time())}; this is what was shown last")


def still_page(snapshot: Snapshot, experiment: ExperimentState | None = None) -> str:
    """Versions, history, the latest experiment and the most important charts.

    Args:
        snapshot: what was shown.
        experiment: the model's latest one; None when there was none.
    """
    compared = "" if experiment is None else experiment_page(experiment, snapshot.events)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.at))
    return (
        f"<div>{versions_page(snapshot)}{compared}{grid(latency_charts(snapshot)[:NUM_STILL_CHARTS])}"
        f"{note(f'{snapshot.status.name} as of {when}')}</div>"
    )


def advice() -> str:
    """A line about a Jupyter front end in which the dashboard is not as live as elsewhere; "" for all others."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return _COLAB
    if any(name in os.environ for name in ("VSCODE_PID", "VSCODE_CWD")):
        return _VS_CODE
    if "VOILA_BASE_URL" in os.environ or os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return _VOILA
    return ""
