"""The rows on which both versions of an experiment differ most, and the way into the notebook's namespace.

Thread: the updater's.
"""

from __future__ import annotations

import keyword
import time
from typing import Any  # ipywidgets is untyped

from ...agreement.worst import frame_of
from ...experiment.state import ExperimentState
from ...markup import note
from ..actions import Job
from ..pages.disagreements import NUM_SHOWN, disagreements_page
from .context import TabContext, button, row

EVERY_S = 5.0
"""How often the rows are fetched while new ones come: they may hold images."""
MAX_ROWS = 1000
NAME = "disagreements"
OUTSIDE = "Only a notebook has variables: show this dashboard there, or call d.disagreements() in a script"


class Explorer:
    """A table that follows the experiment while its tab is in front, and a button that puts its rows into a variable.

    Args:
        context: the dashboard.
    """

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._is_enabled = True
        self._stage: tuple[float, bool] | None = None
        self._counts = (0, 0)
        self._read_s = float("-inf")
        self._num_found = 0
        self._page = widgets.HTML()
        self._name = widgets.Text(value=NAME, description="Variable", layout=widgets.Layout(width="240px"))
        self._keep = button(context, "To a DataFrame", "", self._bind)
        self._why = widgets.HTML()
        self._controls = row(self._name, self._keep, self._why)
        self.widget: Any = widgets.VBox([self._page, self._controls])

    def show(self, state: ExperimentState | None) -> None:
        """Draw what is new."""
        agreement = None if state is None else state.reading.agreement
        counts = (0, 0) if agreement is None else (agreement.num_rows, agreement.num_same)
        stage = None if state is None else (state.started_at, state.is_over)
        is_late = time.perf_counter() - self._read_s >= EVERY_S
        if stage != self._stage or (is_late and counts != self._counts):
            self._stage, self._counts, self._read_s = stage, counts, time.perf_counter()
            found = self._context.controls.disagreements(NUM_SHOWN) if counts[0] else []
            self._num_found = len(found)
            self._page.value = disagreements_page(state, found)
        self._controls.layout.display = None if self._num_found else "none"
        self.enable(self._is_enabled)

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        self._is_enabled = is_enabled
        is_inside = self._context.bind() is not None
        self._name.disabled = not is_enabled or not is_inside
        self._keep.disabled = not is_enabled or not is_inside or not self._num_found
        self._keep.tooltip = f"Put up to {MAX_ROWS} of these rows into a variable" if is_inside else OUTSIDE
        self._why.value = "" if is_inside else note(OUTSIDE)

    def _bind(self) -> None:
        name, bind = self._name.value.strip(), self._context.bind()
        if bind is None:
            self._context.say(OUTSIDE)
        elif not name.isidentifier() or keyword.iskeyword(name):
            self._context.say(f"{name!r} cannot be the name of a variable (try: {NAME})")
        else:
            controls = self._context.controls

            def work() -> str:
                found = controls.disagreements(MAX_ROWS)
                value = frame_of(found)
                bind(name, value)
                return f"{name} is a {type(value).__name__} with {len(found)} rows"

            self._context.actions.run(Job(f"{name} =", work, lambda text, _: str(text)))
