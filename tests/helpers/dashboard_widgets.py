"""The widgets of a dashboard as a person sees and clicks them."""

from __future__ import annotations

import html.parser

import ipywidgets as widgets

from tfserve_nb.dashboards.view import Dashboard

from .eventually import eventually

NASTY = '<img src=x onerror="alert(1)">'
"""What must never become an element when it is shown."""


class Tags(html.parser.HTMLParser):
    """Which elements a text has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def all_widgets(root: widgets.Widget) -> list[widgets.Widget]:
    return [root, *(deeper for child in getattr(root, "children", ()) for deeper in all_widgets(child))]


def button(dashboard: Dashboard, description: str) -> widgets.Button:
    return next(
        one for one in all_widgets(dashboard.widget)
        if isinstance(one, widgets.Button) and one.description == description
    )  # fmt: skip


def press(dashboard: Dashboard, description: str) -> None:
    """Click a button once it is there and can be clicked."""

    def is_ready() -> bool:
        named = [one for one in all_widgets(dashboard.widget) if getattr(one, "description", "") == description]
        return bool(named) and not named[0].disabled

    eventually(is_ready)
    button(dashboard, description).click()


def shown(dashboard: Dashboard) -> str:
    return "".join(one.value for one in all_widgets(dashboard.widget) if isinstance(one, widgets.HTML))


def open_tab(dashboard: Dashboard, title: str) -> None:
    tab = next(one for one in all_widgets(dashboard.widget) if isinstance(one, widgets.Tab))
    tab.selected_index = tab.titles.index(title)
    dashboard.refresh()
