"""A question before something that matters.

Thread: the updater's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any  # ipywidgets is untyped

from ...markup import text
from .context import TabContext, button, row


class Confirmation:
    """A question with two answers, shown only while it is asked.

    Args:
        room: the dashboard.
        no: the answer that does nothing, such as `Keep it`.
    """

    def __init__(self, room: TabContext, no: str) -> None:
        import ipywidgets as widgets

        self._question = widgets.HTML()
        self._yes = button(room, "Yes", "Yes", self._agree, button_style="danger")
        self._no = button(room, no, "No", self.hide)
        self._then: Callable[[], None] | None = None
        self.widget: Any = row(self._question, self._yes, self._no)
        self.widget.layout.display = "none"

    def ask(self, question: str, answer: str, then: Callable[[], None]) -> None:
        """Ask; `then` is called after yes."""
        self._question.value = f'<span role="alert">{text(question)}&nbsp;</span>'
        self._yes.description = answer
        self._then = then
        self.widget.layout.display = None

    def hide(self) -> None:
        """Ask no more."""
        self._then = None
        self.widget.layout.display = "none"

    def _agree(self) -> None:
        then = self._then
        self.hide()
        if then is not None:
            then()
