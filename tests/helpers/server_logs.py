"""The logs of the servers that are there while a test runs, for the report of its failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARS = 8000
_shown: dict[str, Path] = {}


@contextmanager
def shown_on_failure(title: str, log: Path) -> Iterator[None]:
    """Show the end of a file in the report of every test that fails before the block is left.

    Args:
        title: what writes it; unique among those that are shown at the time.
        log: the file.
    """
    _shown[title] = log
    try:
        yield
    finally:
        del _shown[title]


def sections() -> list[tuple[str, str]]:
    """(title, end of the text) of each log, for `pytest.TestReport.sections`."""
    return [(f"log of {title}", log.read_text(errors="replace")[-MAX_CHARS:]) for title, log in _shown.items()]
