"""A report of a result, as a value: features build it, `text.py` and `html.py` show it.

All strings are plain text; escaping, alignment and line breaks are the renderers' work.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: the heading; may be empty for the column that names the rows.
        is_number: whether its cells are aligned to the right and never broken into lines.
        is_prose: whether its cells are sentences, which may take several lines.
    """

    name: str
    is_number: bool = False
    is_prose: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of symbols, which a screen reader cannot read.

    Attributes:
        text: what is shown, such as `✓ ✗`.
        spoken: what a screen reader reads instead, such as `fine, bad`.
    """

    text: str
    spoken: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows; without rows it is not shown.

    Attributes:
        heading: what it is about; may be empty.
        columns: from left to right.
        rows: a cell for each column.
        stressed: the row that matters most, or None.

    Raises:
        ValueError: if a row has not as many cells as there are columns, or two columns have the same name.
    """

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    stressed: int | None = None

    def __post_init__(self) -> None:
        if len({column.name for column in self.columns}) < len(self.columns):
            raise ValueError(f"{self.heading!r}: two columns have the same name: {self.columns}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.heading!r}: {len(row)} cells for {len(self.columns)} columns: {row}")


@dataclass(frozen=True, slots=True)
class CodeDiff:
    """A unified diff.

    Attributes:
        heading: what it is about.
        lines: each starts with ` `, `+`, `-` or `@`.
    """

    heading: str
    lines: tuple[str, ...] = ()


Section: TypeAlias = Table | CodeDiff


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a result, the most important first.

    Attributes:
        title: one line: what it is about.
        lead: the conclusion, and the current state.
        warnings: reasons to doubt the rest.
        sections: the evidence.
        notes: how it was measured.
    """

    title: str
    lead: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()


def names(*headings: str) -> tuple[Column, ...]:
    """Columns of names and short words."""
    return tuple(Column(heading) for heading in headings)


def numbers(*headings: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(heading, is_number=True) for heading in headings)


def prose(*headings: str) -> tuple[Column, ...]:
    """Columns of sentences."""
    return tuple(Column(heading, is_prose=True) for heading in headings)


def size_text(num_bytes: float) -> str:
    """A number of bytes with its unit.

    Example:
        >>> size_text(0), size_text(812), size_text(2_500_000)
        ('', '812 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}" if num_bytes else ""
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB" if num_bytes < 999.5 else f"{num_bytes:.0f} GB"
