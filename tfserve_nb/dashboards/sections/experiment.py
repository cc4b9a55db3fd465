"""The tab with the experiment: begin one, see what it finds, end it; and two versions side by side.

Thread: the updater's.
"""

from __future__ import annotations

from typing import Any  # ipywidgets is untyped

from ...experiment.state import ExperimentState
from ...experiment.views.report import phase_line
from ...markup import note
from ...types import ModelStatus, VersionState
from ..actions import Action, Undo
from ..pages.experiment import experiment_page
from ..snapshot import Snapshot
from .compare import CompareSection
from .confirmation import Confirmation
from .context import TabContext, button, choose_from, row
from .disagreements import Explorer

HEADING = '<div style="font-weight:600;margin-top:12px">Any two versions side by side</div>'
ENDS = {
    "promote": ("promote B", "version {b} answers now", "Promote B anyway"),
    "rollback": ("roll back to A", "version {a} answers now", ""),
    "stop": ("stop the experiment", "the experiment is stopped; version {a} answers", ""),
}
"""How an experiment ends -> what is done, what is said then, and the answer to the question before it."""


class ExperimentSection:
    """Controls, the verdict and what it rests on, disagreements, and a comparison of any two versions.

    Args:
        room: the dashboard.
    """

    title = "A/B"
    has_series = True

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        self.is_always_moving = False
        self._state: ExperimentState | None = None
        self._phase: tuple[float, str] | None = None
        self._start = _Start(room)
        self._ends = [
            button(room, "Promote B", "Give B all requests", self._promote, button_style="primary"),
            button(room, "Roll back to A", "Take B back: A gets all requests", lambda: self._end("rollback")),
            button(room, "Stop", "End without a verdict; A gets all requests", lambda: self._end("stop")),
        ]
        self._confirm = Confirmation(room, "Go on testing")
        self._buttons = row(*self._ends)
        self._page = widgets.HTML()
        self._explorer = Explorer(room)
        self._compare = CompareSection(room)
        self.widget: Any = widgets.VBox(
            [
                self._buttons, self._confirm.widget, self._page, self._explorer.widget, self._start.widget,
                widgets.HTML(HEADING), self._compare.widget,
            ]
        )  # fmt: skip

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._state = self._room.controls.experiment()
        is_open = self._state is not None and not self._state.is_over
        self.is_always_moving = is_open  # what it finds changes without requests too
        _display(self._buttons, is_open)
        _display(self._start.widget, not is_open)
        if not is_open:
            self._confirm.hide()
        self._page.value = experiment_page(self._state, snapshot.events)
        self._tell()
        self._start.show(snapshot.status)
        self._explorer.show(self._state)
        self._compare.show(snapshot)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        for control in self._ends:
            control.disabled = not is_enabled
        self._start.enable(is_enabled)
        self._explorer.enable(is_enabled)

    def _tell(self) -> None:
        """What happened by itself, once, in the line that screen readers tell."""
        state, before = self._state, self._phase
        self._phase = None if state is None else (state.started_at, state.phase)
        if state is not None and before is not None and before[0] == state.started_at and before != self._phase:
            self._room.say(phase_line(state))

    def _promote(self) -> None:
        """Against the verdict only after a question."""
        state = self._state
        if state is None:
            return
        if state.reading.verdict.decision == "promote":
            self._end("promote")
        else:
            question = (
                f"The experiment does not say so: {state.reading.verdict}. Give version {state.plan.b} all requests?"
            )
            self._confirm.ask(question, ENDS["promote"][2], lambda: self._end("promote"))

    def _end(self, how: str) -> None:
        if self._state is None:
            return
        what, done, _ = ENDS[how]
        plan, end = self._state.plan, self._room.controls.end_experiment
        said = done.format(a=plan.a, b=plan.b)
        self._room.actions.start(Action(f"{what}…", lambda: end(how), lambda *_: said))


class _Start:
    """What a new experiment needs: two versions and a share."""

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        self._is_enabled = True
        style = {"description_width": "100px"}
        wide = widgets.Layout(width="210px")
        self._a = widgets.Dropdown(options=[], description="Current (A)", style=style, layout=wide)
        self._b = widgets.Dropdown(options=[], description="Candidate (B)", style=style, layout=wide)
        self._split = widgets.IntSlider(
            50, 0, 100, description="B gets, in %", continuous_update=False, style=style,
            layout=widgets.Layout(width="min(100%, 360px)"),
        )  # fmt: skip
        self._button = button(
            room, "Start A/B test", "Split the requests and watch", self._start, button_style="primary"
        )
        self._hint = widgets.HTML()
        self.widget: Any = widgets.VBox([row(self._a, self._b), row(self._split, self._button), self._hint])

    def show(self, status: ModelStatus) -> None:
        """Offer what is there; the current version and the newest other one come first."""
        known = {one.version for one in status.versions if one.state is not VersionState.END} | set(status.on_disk)
        versions = sorted(known)
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
        a, b, split = self._a.value, self._b.value, float(self._split.value)
        if a is None or b is None:
            return
        controls = self._room.controls
        what = f"A/B test of version {b} against version {a}"
        undo = Undo(what, lambda: controls.end_experiment("stop"))
        self._room.actions.start(
            Action(f"{what}…", lambda: controls.ab_test(int(a), int(b), split=split), lambda *_: f"{what} runs", undo)
        )


def _display(widget: Any, is_shown: bool) -> None:
    widget.layout.display = None if is_shown else "none"
