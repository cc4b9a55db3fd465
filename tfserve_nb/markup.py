"""Pieces of HTML that all views use. All that comes from users goes through `text`.

Thread: any; pure functions.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence

COLOUR = "color:var(--jp-ui-font-color1,currentColor)"
_CELL = "padding:3px 8px;border-bottom:1px solid rgba(127,127,127,.25);white-space:nowrap"
_CURRENT = "background:var(--jp-layout-color2,rgba(127,127,127,.12))"


def text(value: object) -> str:
    """Plain text as HTML."""
    return html.escape(str(value))


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    *,
    numbers: Collection[str] = (),
    current: int | None = None,
) -> str:
    """A table whose first column names its rows.

    Args:
        caption: HTML.
        columns: plain text, also the keys of the rows.
        rows: column -> HTML.
        numbers: columns that are aligned to the right.
        current: the row to stress.
    """
    head = "".join(f'<th scope="col" style="{_align(column, numbers)}">{text(column)}</th>' for column in columns)
    body = []
    for index, row in enumerate(rows):
        cells = [
            f'<th scope="row" style="{_align(column, numbers)}">{row.get(column, "")}</th>'
            if place == 0
            else f'<td style="{_align(column, numbers)}">{row.get(column, "")}</td>'
            for place, column in enumerate(columns)
        ]
        body.append(f'<tr style="{_CURRENT if index == current else ""}">{"".join(cells)}</tr>')
    return (
        f'<div style="overflow-x:auto;max-width:100%"><table style="border-collapse:collapse;line-height:1.4;{COLOUR}">'
        f'<caption style="text-align:left;font-weight:600;padding:2px 0;white-space:nowrap">{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def grid(parts: Sequence[str]) -> str:
    """Parts side by side where there is room, below each other where there is none."""
    style = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:6px 18px"
    return f'<div style="{style}">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def note(plain: str) -> str:
    """A quiet line."""
    return f'<div style="opacity:0.75;line-height:1.5;{COLOUR}">{text(plain)}</div>' if plain else ""


def alert(plain: str) -> str:
    """A line that asks for attention."""
    return f'<div role="alert" style="line-height:1.5;{COLOUR}">⚠ {text(plain)}</div>' if plain else ""


def status_line(plain: str) -> str:
    """A line that screen readers read aloud when it changes."""
    return f'<div role="status" style="min-height:1.4em;{COLOUR}">{text(plain)}</div>'


def progress_bar(done: int, total: int) -> str:
    """A bar, when there is something to count."""
    return f'<progress value="{done}" max="{total}" style="width:90px;vertical-align:middle"></progress>' if total > 1 \
        else ""  # fmt: skip


def _align(column: str, numbers: Collection[str]) -> str:
    return f"text-align:{'right' if column in numbers else 'left'};{_CELL}"
