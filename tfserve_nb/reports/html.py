"""Reports as HTML, for notebooks and dashboards. Everything is escaped here.

Thread: any; pure functions.
"""

from __future__ import annotations

from ..markup import COLOUR, alert, note, table, text
from .report import Cell, CodeDiff, Column, Report, Table

_TINTS = {"+": "rgba(46,160,67,.18)", "-": "rgba(248,81,73,.18)", "@": "rgba(127,127,127,.15)"}
"""First character of a line of a diff -> its background; see-through, for light and dark themes."""
_PROSE = "display:inline-block;white-space:normal;overflow-wrap:break-word;min-width:10em;max-width:34em"


def to_html(report: Report) -> str:
    """One element; figures are shown beside it."""
    parts = [
        _line(report.title, "font-weight:600"),
        *(_line(line, "line-height:1.5") for line in report.lead),
        *map(alert, report.warnings),
        *(table_html(one) if isinstance(one, Table) else _code(one) for one in report.sections),
        *map(note, report.notes),
    ]
    return f"<div>{''.join(parts)}</div>"


def table_html(shown: Table) -> str:
    """One table; nothing without rows."""
    if not shown.rows:
        return ""
    columns = [column.name for column in shown.columns]
    rows = [
        {column.name: _cell(column, cell) for column, cell in zip(shown.columns, row, strict=True)}
        for row in shown.rows
    ]
    numbers = [column.name for column in shown.columns if column.is_number]
    return table(text(shown.heading), columns, rows, numbers=numbers, current=shown.stressed)


def _cell(column: Column, cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        spoken = text(cell.spoken)
        return f'<span role="img" aria-label="{spoken}" title="{spoken}">{text(cell)}</span>'
    return f'<span style="{_PROSE}">{text(cell)}</span>' if column.is_prose and cell else text(cell)


def _code(shown: CodeDiff) -> str:
    lines = [
        f'<span style="display:block;background:{_TINTS.get(line[:1], "none")}">{text(line) or " "}</span>'
        for line in shown.lines
    ]
    style = f"overflow-x:auto;max-height:30em;margin:4px 0;line-height:1.35;{COLOUR}"
    code = f'<pre style="{style}">{"".join(lines)}</pre>' if lines else ""
    return _line(shown.heading, "font-weight:600") + code


def _line(plain: str, style: str) -> str:
    return f'<div style="{style};{COLOUR}">{text(plain)}</div>' if plain else ""
