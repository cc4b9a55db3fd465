"""The tab with the versions: switch, promote, roll back, stage, label, split, unload, delete.

Thread: the updater's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any  # ipywidgets is untyped

from ...markup import note
from ...types import ModelStatus, VersionState
from ..actions import Action, Undo
from ..pages.versions import history_list, versions_table
from ..snapshot import Snapshot
from ..traffic_split import rebalanced, whole_shares
from .confirmation import Confirmation
from .context import TabContext, button, choose_from, row


class VersionsSection:
    """Table, buttons, sliders, history.

    Args:
        room: the dashboard.
    """

    title = "Versions"
    is_always_moving = False
    has_series = False

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        self._status: ModelStatus | None = None
        self._table, self._history = widgets.HTML(), widgets.HTML()
        self._choice = widgets.Dropdown(options=[], description="Version", layout=widgets.Layout(width="190px"))
        self._buttons = [
            button(room, "Promote", "Give all traffic to the chosen version", self._promote, button_style="primary"),
            button(room, "Roll back", "Go back to the version that answered before", self._roll_back),
            button(room, "Stage", "Load the chosen version, and keep it loaded without traffic", self._stage),
            button(room, "Unload", "Free the chosen version's memory; its files stay", self._unload),
            button(room, "Delete…", "Remove the chosen version's files", self._ask),
        ]
        self._undo = button(room, "Undo", "Nothing to undo", room.actions.take_back)
        self._label = widgets.Text(placeholder="stable", description="Label", layout=widgets.Layout(width="190px"))
        self._buttons += [
            button(room, "Set label", "Point the label to the chosen version", self._set_label),
            button(room, "Remove label", "Remove the label, whatever version it points to", self._remove_label),
        ]
        self._confirm = Confirmation(room, "Keep it")
        self._traffic = _TrafficSliders(room)
        self.widget = widgets.VBox(
            [
                self._table,
                row(self._choice, *self._buttons[:5], self._undo),
                self._confirm.widget,
                row(self._label, *self._buttons[5:]),
                self._traffic.widget,
                self._history,
            ]
        )

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        status = snapshot.status
        self._status = status
        known = {one.version for one in status.versions if one.state is not VersionState.END} | set(status.on_disk)
        choose_from(self._choice, sorted(known, reverse=True), status.default_version)
        self._table.value = versions_table(status, snapshot.metrics)
        self._history.value = history_list(snapshot.events)
        self._traffic.show(status)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        for control in (self._choice, self._label, *self._buttons):
            control.disabled = not is_enabled
        self._traffic.enable(is_enabled)
        undo = self._room.actions.undo
        self._undo.disabled = undo is None or not is_enabled
        self._undo.tooltip = "Nothing to undo" if undo is None else f"Take back: {undo.text}"
        self._undo.description = "Undo" if undo is None else f"Undo: {undo.text}"

    # --- what the buttons do --------------------------------------------------------------------------------------

    def _chosen(self) -> int | None:
        version = self._choice.value
        return None if version is None else int(version)

    def _promote(self) -> None:
        version = self._chosen()
        if version is not None:
            self._switch(f"promote version {version}", lambda: self._room.controls.promote(version))

    def _roll_back(self) -> None:
        self._switch("roll back", self._room.controls.rollback)

    def _switch(self, what: str, work: Callable[[], object]) -> None:
        controls = self._room.controls

        def done(_: object, took_ms: float) -> str:
            return f"version {controls.status().default_version} answers now, switched in {took_ms:.1f} ms"

        self._room.actions.start(Action(f"{what}…", work, done, self._way_back(what)))

    def _stage(self) -> None:
        version = self._chosen()
        if version is not None:
            controls = self._room.controls
            undo = Undo(f"stage version {version}", lambda: controls.undeploy(version))
            self._start(
                f"stage version {version}",
                lambda: controls.stage(version),
                f"version {version} is loaded",
                undo if not self._is_loaded(version) else None,
            )

    def _unload(self) -> None:
        version = self._chosen()
        if version is not None:
            controls = self._room.controls
            undo = Undo(f"unload version {version}", lambda: controls.stage(version))
            self._start(
                f"unload version {version}",
                lambda: controls.undeploy(version),
                f"version {version} is unloaded; its files stay",
                undo if self._is_loaded(version) else None,
            )

    def _ask(self) -> None:
        version = self._chosen()
        if version is not None:
            self._confirm.ask(
                f"Delete version {version} of {self._room.controls.name} from disk? This cannot be undone.",
                f"Delete version {version}",
                lambda: self._start(
                    f"delete version {version}",
                    lambda: self._room.controls.undeploy(version, delete=True),
                    f"version {version} is deleted",
                ),
            )

    def _set_label(self) -> None:
        version, label = self._chosen(), self._label.value.strip()
        if version is not None and self._has(label):
            what = f"label {label} → version {version}"
            work = functools.partial(self._room.controls.set_label, label, version)
            self._start(what, work, f"{label} points to version {version}", self._label_back(what, label))

    def _remove_label(self) -> None:
        label = self._label.value.strip()
        if self._has(label):
            what = f"remove label {label}"
            work = functools.partial(self._room.controls.set_label, label, None)
            self._start(what, work, f"label {label} is removed", self._label_back(what, label))

    def _has(self, label: str) -> bool:
        if not label:
            self._room.say("write the label first, such as stable or canary")
        return bool(label)

    def _start(self, what: str, work: Callable[[], object], done: str, undo: Undo | None = None) -> None:
        self._room.actions.start(Action(f"{what}…", work, lambda *_: done, undo))

    # --- the way back ---------------------------------------------------------------------------------------------

    def _is_loaded(self, version: int) -> bool:
        versions = self._status.versions if self._status is not None else ()
        return any(one.version == version and one.state is VersionState.AVAILABLE for one in versions)

    def _way_back(self, what: str) -> Undo | None:
        return way_back(self._room, self._status, what)

    def _label_back(self, what: str, label: str) -> Undo | None:
        if self._status is None:
            return None
        before = self._status.labels.get(label)
        return Undo(what, lambda: self._room.controls.set_label(label, before))


def way_back(room: TabContext, status: ModelStatus | None, what: str) -> Undo | None:
    """How to restore the traffic as it is now."""
    if status is None or status.default_version is None:
        return None
    default, traffic = status.default_version, dict(status.traffic)
    if set(traffic) == {default}:
        return Undo(what, lambda: room.controls.promote(default))
    return Undo(what, lambda: room.controls.set_traffic(traffic))


class _TrafficSliders:
    """A slider for each loaded version; together they are always 100 %."""

    def __init__(self, room: TabContext) -> None:
        import ipywidgets as widgets

        self._room = room
        self._status: ModelStatus | None = None
        self._shares: dict[int, int] = {}
        self._sliders: dict[int, Any] = {}
        self._is_enabled = True
        self.widget = widgets.VBox([])

    def show(self, status: ModelStatus) -> None:
        """Draw."""
        self._status = status
        loaded = tuple(sorted(one.version for one in status.versions if one.state is VersionState.AVAILABLE))
        shares = whole_shares(status.traffic, loaded)
        if loaded != tuple(self._sliders):
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
        self._shares = shares  # first: what is written here is no wish of a person
        for version, slider in self._sliders.items():
            if slider.value != shares[version]:
                slider.value = shares[version]

    def _moved(self, version: int, change: Any) -> None:
        """On any thread."""
        percent = int(change["new"])
        if percent != self._shares.get(version):
            self._room.updater.post(lambda: self._apply(version, percent))

    def _apply(self, version: int, percent: int) -> None:
        if version not in self._shares:
            return
        shares = rebalanced(self._shares, version, percent)
        before = way_back(self._room, self._status, "traffic split")
        self._write(shares)
        weights = {one: float(share) for one, share in shares.items() if share}
        words = ", ".join(f"version {one}: {share} %" for one, share in shares.items())
        self._room.actions.start(
            Action(
                f"traffic {words}…", lambda: self._room.controls.set_traffic(weights), lambda *_: f"traffic {words}",
                before,
            )
        )  # fmt: skip
