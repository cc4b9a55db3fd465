"""Reports as text, for terminals, logs and `print`.

Names and sentences are broken into lines of `WIDTH` characters; numbers, commands and addresses never are.

Thread: any; functions of their arguments and of what standard output is.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Literal

from .report import CodeDiff, Report, Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 120
"""Characters of a line where there is no terminal to ask: notebooks and files."""
INDENT = 2
GAP = 2
MAX_WORD = 40
"""A name that is longer, in a table, may be broken within a word."""
_UNBOUND = 10_000
"""rich cuts what is wider than its console; each piece is given its width by us."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def to_text(report: Report, width: int | None = None) -> str:
    """Plain text without colours.

    Args:
        report: what to show.
        width: the longest line, in characters; None for the terminal's width, or `WIDTH` where there is none. Only a
            table of numbers, code, or a single word, that has no room in it is wider.
    """
    return _rendered(report, width or _terminal_width(), _console(has_colours=False))


def to_terminal(report: Report) -> str:
    """The same for `print`: with bold headings and coloured warnings when standard output is a terminal."""
    return _rendered(report, _terminal_width(), _console(has_colours=True))


def _console(*, has_colours: bool) -> Console:
    """One that only makes text: in a notebook, rich's own would display an empty output for each piece."""
    from rich.console import Console

    return Console(width=_UNBOUND, color_system="auto" if has_colours else None, force_jupyter=False)


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else WIDTH


def _rendered(report: Report, width: int, console: Console) -> str:
    sentence = functools.partial(_sentence, console, width)
    lines = sentence(report.title, indent=0, style="bold")
    for line in report.lead:
        lines += sentence(line)
    for line in report.warnings:
        lines += sentence(f"⚠ {line}", style="yellow")
    for section in report.sections:
        if isinstance(section, CodeDiff) or section.rows:
            lines += ["", *sentence(section.heading, style="bold")]
            lines += _table(console, width, section) if isinstance(section, Table) else _code(section)
    if report.notes and report.sections:
        lines.append("")
    for line in report.notes:
        lines += sentence(line)
    return "\n".join(lines)


def _sentence(console: Console, width: int, words: str, *, indent: int = INDENT, style: str = "") -> list[str]:
    """Broken between words only: commands and addresses stay whole."""
    from rich.text import Text

    lines = textwrap.wrap(_visible(words), max(1, width - indent), break_long_words=False, break_on_hyphens=False)
    return [found for line in lines for found in _lines(console, Text(line, style), indent, _UNBOUND)]


def _table(console: Console, width: int, section: Table) -> list[str]:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    shown.show_header = any(column.name for column in section.columns)
    least = 0
    for place, column in enumerate(section.columns):
        cells = [column.name, *(str(row[place]) for row in section.rows)]
        needed = _least_width(cells, is_number=column.is_number)
        least += needed + GAP
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        shown.add_column(
            Text(_visible(column.name)), justify=justify, no_wrap=column.is_number, overflow="fold", min_width=needed
        )
    for place, row in enumerate(section.rows):
        style = "bold" if place == section.stressed else None
        shown.add_row(*(Text(_visible(str(cell))) for cell in row), style=style)
    return _lines(console, shown, 2 * INDENT, max(width - 2 * INDENT, least))


def _least_width(cells: list[str], *, is_number: bool) -> int:
    """How narrow a column may become: rich would cut numbers to fit the line."""
    from rich.cells import cell_len

    if is_number:
        return max(map(cell_len, cells))
    return min(MAX_WORD, max((cell_len(word) for cell in cells for word in cell.split()), default=1))


def _code(section: CodeDiff) -> list[str]:
    return [f"{' ' * 2 * INDENT}{_visible(line)}" for line in section.lines]


def _lines(console: Console, shown: RenderableType, indent: int, width: int) -> list[str]:
    """What rich makes of it in this many characters."""
    with console.capture() as captured:
        console.print(shown, width=width, crop=False)
    return [f"{' ' * indent}{line}".rstrip() for line in captured.get().splitlines()]


def _visible(plain: str) -> str:
    """Without characters that command a terminal, which names that users gave may hold."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], plain)
