"""What the sections of one dashboard share.

Thread: the updater's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias  # ipywidgets is untyped

from ...markup import text
from ..action_runner import ActionRunner
from ..actions import ACTIONS
from ..controls import DeploymentControls
from ..snapshot import Snapshot
from ..updater import Updater

Bind: TypeAlias = Callable[[str, object], None]
"""Puts a value into the notebook's namespace under a name."""

SPANS = {"1 minute": (60, 1), "2 minutes": (120, 2), "5 minutes": (300, 5), "15 minutes": (900, 15)}
"""Text of the choice -> seconds in all, seconds of a step."""


@dataclass
class ViewOptions:
    """What the dashboard is set to show.

    Attributes:
        span: a key of `SPANS`.
        signature: count only its requests; None for all.
        is_paused: whether charts stand still.
    """

    span: str = "2 minutes"
    signature: str | None = None
    is_paused: bool = False


@dataclass(frozen=True)
class TabContext:
    """The surroundings of a section.

    Attributes:
        controls: the deployment.
        updater: the thread that writes widgets.
        actions: carries out what is clicked.
        options: what is shown, shared by the sections.
        redraw: draws anew, on the updater's thread.
        say: shows a line of plain text.
        bind: gives what puts values into the notebook's namespace, or None where there is no notebook.
    """

    controls: DeploymentControls
    updater: Updater
    actions: ActionRunner
    options: ViewOptions
    redraw: Callable[[], None]
    say: Callable[[str], None]
    bind: Callable[[], Bind | None] = lambda: None


class Section(Protocol):
    """One tab.

    Attributes:
        title: of the tab.
        widget: its content.
        is_always_moving: whether it shows what changes without requests.
        has_series: whether it draws over time: it changes with each step of the time span, not more often.
    """

    title: str
    widget: Any
    is_always_moving: bool = False
    has_series: bool = False

    def show(self, snapshot: Snapshot) -> None:
        """Draw; called only while the tab is in front and something changed."""

    def enable(self, is_enabled: bool) -> None:
        """Enable the controls, or disable them while an action runs or nothing is served."""


def row(*children: Any) -> Any:
    """Controls side by side, in as many lines as they need."""
    import ipywidgets as widgets

    return widgets.HBox(list(children), layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def button(context: TabContext, description: str, tooltip: str, on_click: Callable[[], None], **options: Any) -> Any:
    """A button. Clicks come on any thread: they only post a command to the updater."""
    import ipywidgets as widgets

    made = widgets.Button(description=description, tooltip=tooltip, layout=widgets.Layout(width="auto"), **options)
    made.on_click(lambda _: context.updater.post(on_click))
    return made


def action_button(context: TabContext, name: str, on_click: Callable[[], None]) -> Any:
    """The button of an action of the table."""
    action = ACTIONS[name]
    return button(context, action.text, action.title, on_click, button_style="primary" if action.is_main else "")


def choose_from(choice: Any, options: list[Any], default: Any) -> None:
    """Offer options, keeping the current choice while it is among them.

    Args:
        choice: a `Dropdown`.
        options: values, or pairs of text and value. No value is None: to ipywidgets that is "nothing chosen", shown as
            an empty field.
        default: what is chosen otherwise, when it is among them.
    """
    if list(choice.options) != options:
        chosen = choice.value
        choice.options = options
        values = [option[1] if isinstance(option, tuple) else option for option in options]
        fallback = values[0] if values else None
        choice.value = chosen if chosen in values else default if default in values else fallback


class Confirmation:
    """A question with two buttons, shown only while it is open.

    Args:
        context: the dashboard.
        no: the text of the button that does nothing, such as `Keep it`.
    """

    def __init__(self, context: TabContext, no: str) -> None:
        import ipywidgets as widgets

        self._question = widgets.HTML()
        self._yes = button(context, "Yes", "Yes", self._agree, button_style="danger")
        self._no = button(context, no, "No", self.hide)
        self._then: Callable[[], None] | None = None
        self.widget: Any = row(self._question, self._yes, self._no)
        self.widget.layout.display = "none"

    def ask(self, question: str, yes: str, then: Callable[[], None]) -> None:
        """Show the question.

        Args:
            question: plain text.
            yes: the text of the button that agrees.
            then: called when that button is pressed.
        """
        self._question.value = f'<span role="alert">{text(question)}&nbsp;</span>'
        self._yes.description = yes
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
