"""The tab with the experiment: begin one, see what it finds, end it; and two versions side by side.

Thread: the updater's.
"""

from __future__ import annotations

from typing import Any  # ipywidgets is untyped

from ...experiment.state import ExperimentState
from ...experiment.views.report import phase_line
from ...markup import note
from ...types import ModelStatus
from ..actions import Choice, known_versions
from ..pages.compare import compare_page
from ..pages.experiment import experiment_page
from ..snapshot import Snapshot
from .context import Confirmation, Section, TabContext, action_button, choose_from, row
from .disagreements import Explorer

HEADING = '<div style="font-weight:600;margin-top:12px">Any two versions side by side</div>'


class ExperimentSection(Section):
    """Controls, verdict, evidence, disagreements, and a comparison of any two versions.

    Args:
        context: the dashboard.
    """

    title = "A/B"
    has_series = True

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._state: ExperimentState | None = None
        self._phase: tuple[float, str] | None = None
        self._start = _Start(context)
        self._ends = [
            action_button(context, "promote_b", self._promote),
            action_button(context, "back_to_a", lambda: self._end("back_to_a")),
            action_button(context, "stop_test", lambda: self._end("stop_test")),
        ]
        self._confirm = Confirmation(context, "Go on testing")
        self._buttons = row(*self._ends)
        self._page = widgets.HTML()
        self._explorer = Explorer(context)
        self._compare = _Comparison(context)
        self.widget: Any = widgets.VBox(
            [
                self._buttons, self._confirm.widget, self._page, self._explorer.widget, self._start.widget,
                widgets.HTML(HEADING), self._compare.widget,
            ]
        )  # fmt: skip

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._state = self._context.controls.experiment()
        is_open = self._state is not None and not self._state.is_over
        self.is_always_moving = is_open  # what it finds changes without requests too
        _display(self._buttons, is_open)
        _display(self._start.widget, not is_open)
        if not is_open:
            self._confirm.hide()
        self._page.value = experiment_page(self._state, snapshot.events)
        self._report_phase()
        self._start.show(snapshot.status)
        self._explorer.show(self._state)
        self._compare.show(snapshot)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        for control in self._ends:
            control.disabled = not is_enabled
        self._start.enable(is_enabled)
        self._explorer.enable(is_enabled)

    def _report_phase(self) -> None:
        """Report a change of phase once, in the status line that screen readers read."""
        state, before = self._state, self._phase
        self._phase = None if state is None else (state.started_at, state.phase)
        if state is not None and before is not None and before[0] == state.started_at and before != self._phase:
            self._context.say(phase_line(state))

    def _promote(self) -> None:
        """Against the verdict only after a question."""
        state = self._state
        if state is None:
            return
        if state.reading.verdict.decision == "promote":
            self._end("promote_b")
        else:
            verdict, b = state.reading.verdict, state.plan.b
            question = f"The experiment does not recommend this: {verdict}. Give version {b} all requests?"
            self._confirm.ask(question, "Promote B anyway", lambda: self._end("promote_b"))

    def _end(self, action: str) -> None:
        if self._state is not None:
            plan = self._state.plan
            self._context.actions.start(action, Choice(a=plan.a, b=plan.b), None)


class _Start:
    """What a new experiment needs: two versions and a share."""

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._is_enabled = True
        self._status: ModelStatus | None = None
        style = {"description_width": "100px"}
        wide = widgets.Layout(width="210px")
        self._a = widgets.Dropdown(options=[], description="Current (A)", style=style, layout=wide)
        self._b = widgets.Dropdown(options=[], description="Candidate (B)", style=style, layout=wide)
        self._split = widgets.IntSlider(
            50, 0, 100, description="B gets, in %", continuous_update=False, style=style,
            layout=widgets.Layout(width="min(100%, 360px)"),
        )  # fmt: skip
        self._button = action_button(context, "ab_test", self._start)
        self._hint = widgets.HTML()
        self.widget: Any = widgets.VBox([row(self._a, self._b), row(self._split, self._button), self._hint])

    def show(self, status: ModelStatus) -> None:
        """Offer the known versions; the current version and the newest other one come first."""
        self._status = status
        versions = sorted(known_versions(status))
        others = [version for version in versions if version != status.default_version]
        choose_from(self._a, versions, status.default_version)
        choose_from(self._b, versions, others[-1] if others else None)
        self._hint.value = note("" if others else "A second version is needed: deploy one with --stage.")
        self.enable(self._is_enabled)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        self._is_enabled = is_enabled
        for control in (self._a, self._b, self._split):
            control.disabled = not is_enabled
        self._button.disabled = not is_enabled or len(self._a.options) < 2

    def _start(self) -> None:
        choice = Choice(a=self._a.value, b=self._b.value, percent=float(self._split.value))
        self._context.actions.start("ab_test", choice, self._status)


class _Comparison:
    """Any two versions side by side, without an experiment."""

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        wide = widgets.Layout(width="170px")
        self._a = widgets.Dropdown(options=[], description="A: version", layout=wide)
        self._b = widgets.Dropdown(options=[], description="B: version", layout=wide)
        for control in (self._a, self._b):
            control.observe(lambda _: context.updater.post(context.redraw), "value")
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


def _display(widget: Any, is_shown: bool) -> None:
    widget.layout.display = None if is_shown else "none"
