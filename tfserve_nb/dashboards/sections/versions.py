"""The tab with the versions: switch, promote, roll back, stage, label, engine, split, unload, delete.

Thread: the updater's.
"""

from __future__ import annotations

import functools
from typing import Any  # ipywidgets is untyped

from ...markup import note
from ...serving.engines.kinds import NAMES
from ...types import ModelStatus
from ..actions import (
    ACTIONS,
    ENGINE_ACTIONS,
    LABEL_ACTIONS,
    VERSION_ACTIONS,
    Choice,
    engine_of,
    known_versions,
    rebalanced,
    shares_of,
)
from ..pages.replicas import replica_tables
from ..pages.versions import engine_tables, history_list, versions_table
from ..snapshot import Snapshot
from .context import Confirmation, Section, TabContext, action_button, button, choose_from, row


class VersionsSection(Section):
    """Table, buttons, sliders, history.

    Args:
        context: the dashboard.
    """

    title = "Versions"

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._status: ModelStatus | None = None
        self._table, self._engines, self._history = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._choice = widgets.Dropdown(options=[], description="Version", layout=widgets.Layout(width="190px"))
        self._undo = button(context, "Undo", "Nothing to undo", context.actions.take_back)
        self._label = widgets.Text(placeholder="stable", description="Label", layout=widgets.Layout(width="190px"))
        self._engine = widgets.Dropdown(options=NAMES, description="Engine", layout=widgets.Layout(width="190px"))
        self._followed: tuple[int, str | None] | None = None
        self._choice.observe(lambda _: context.updater.post(self._follow_engine), "value")
        self._buttons = {
            name: action_button(context, name, functools.partial(self._act, name))
            for name in (*VERSION_ACTIONS, *LABEL_ACTIONS, *ENGINE_ACTIONS)
        }
        self._confirm = Confirmation(context, "Keep it")
        self._traffic = _TrafficSliders(context)
        self.widget = widgets.VBox(
            [
                self._table,
                row(self._choice, *[self._buttons[name] for name in VERSION_ACTIONS], self._undo),
                self._confirm.widget,
                row(self._label, *[self._buttons[name] for name in LABEL_ACTIONS]),
                row(self._engine, *[self._buttons[name] for name in ENGINE_ACTIONS]),
                self._traffic.widget,
                self._engines,
                self._history,
            ]
        )

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        status = snapshot.status
        self._status = status
        choose_from(self._choice, known_versions(status), status.default_version)
        self._follow_engine()
        self._table.value = versions_table(status, snapshot.metrics)
        self._engines.value = replica_tables(status) + engine_tables(status)
        self._history.value = history_list(snapshot.events)
        self._traffic.show(status)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        for control in (self._choice, self._label, self._engine, *self._buttons.values()):
            control.disabled = not is_enabled
        self._traffic.enable(is_enabled)
        undo = self._context.actions.undo
        self._undo.disabled = undo is None or not is_enabled
        self._undo.tooltip = "Nothing to undo" if undo is None else f"Take back: {undo.what}"
        self._undo.description = "Undo" if undo is None else f"Undo: {undo.what}"

    def _follow_engine(self) -> None:
        """Name what runs the chosen version, whenever that is something else; until then, what a person chose stays."""
        version = self._choice.value
        if self._status is None or version is None:
            return
        running = engine_of(self._status, int(version))
        if (version, running) != self._followed:
            self._followed = (version, running)
            if running in NAMES:
                self._engine.value = running

    def _act(self, name: str) -> None:
        """Do what a button is for, after a question when the action has one."""
        version = self._choice.value
        choice = Choice(
            version=None if version is None else int(version),
            label=self._label.value.strip(),
            engine=self._engine.value,
        )
        action, status = ACTIONS[name], self._status

        def start() -> None:
            self._context.actions.start(name, choice, status)

        if action.question and version is not None:
            question = action.question.format(name=self._context.controls.name, version=version)
            self._confirm.ask(question, action.what.format(version=version).capitalize(), start)
        else:
            start()


class _TrafficSliders:
    """A slider for each loaded version; together they are always 100 %."""

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._status: ModelStatus | None = None
        self._shares: dict[int, int] = {}
        self._sliders: dict[int, Any] = {}
        self._is_enabled = True
        self.widget = widgets.VBox([])

    def show(self, status: ModelStatus) -> None:
        """Draw."""
        self._status = status
        shares = shares_of(status)
        if tuple(shares) != tuple(self._sliders):
            self._rebuild(shares)
        self._write(shares)

    def enable(self, is_enabled: bool) -> None:
        """Let people move them, or not."""
        self._is_enabled = is_enabled
        for slider in self._sliders.values():
            slider.disabled = not is_enabled or len(self._sliders) < 2

    def _rebuild(self, shares: dict[int, int]) -> None:
        import ipywidgets as widgets

        old = tuple(self.widget.children)
        self._sliders = {}
        for version, percent in shares.items():
            slider = widgets.IntSlider(
                percent, 0, 100, description=f"v{version} traffic", continuous_update=False, readout_format="d",
                style={"description_width": "90px"}, layout=widgets.Layout(width="min(100%, 420px)"),
            )  # fmt: skip
            slider.observe(functools.partial(self._moved, version), "value")
            self._sliders[version] = slider
        hint = "Moving one moves the others: together they are 100 %." if len(shares) > 1 else (
            "To split the traffic, a second version must be loaded: stage or deploy one.")  # fmt: skip
        self.widget.children = [*self._sliders.values(), widgets.HTML(note(hint))]
        for child in old:
            child.close()
        self.enable(self._is_enabled)

    def _write(self, shares: dict[int, int]) -> None:
        self._shares = shares  # first: what is written here was not moved by a person
        for version, slider in self._sliders.items():
            if slider.value != shares[version]:
                slider.value = shares[version]

    def _moved(self, version: int, change: Any) -> None:
        """On any thread."""
        percent = int(change["new"])
        if percent != self._shares.get(version):
            self._context.updater.post(lambda: self._apply(version, percent))

    def _apply(self, version: int, percent: int) -> None:
        if version not in self._shares:
            return
        self._write(rebalanced(self._shares, version, percent))
        self._context.actions.start("share", Choice(version=version, percent=percent), self._status)
