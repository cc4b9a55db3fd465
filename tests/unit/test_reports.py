"""Reports as text and HTML: nothing is cut, escaped once, and a table without rows is left out."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.reports.html import table_html, to_html
from tfserve_nb.reports.report import Cell, CodeDiff, Report, Table, names, numbers, prose
from tfserve_nb.reports.text import WIDTH, to_terminal, to_text

URL = "http://127.0.0.1:8501/v1/models/" + "digits" * 20
COMMAND = "%serving digits --capture off"
LIMITS = Table(
    "Limits",
    (*names("limit", "windows"), *numbers("p95"), *prose("in words")),
    (
        ("latency", Cell("✓ ✗", "fine, bad"), "4.01 ms [3.94, 4.12]", "0 of 791 requests took longer. " * 9),
        ("errors", "–", "12 ms", ""),
    ),
    stressed=1,
)
REPORT = Report(
    "digits: version 2",
    lead=(f"served at {URL}",),
    warnings=("INTERRUPTED: " + "a long warning " * 20,),
    sections=(
        LIMITS,
        Table("Nothing", names("a"), ()),
        CodeDiff("Code", ("@@ -1 +1 @@", "-x = '<b>'", "+" + "y" * 200)),
    ),
    notes=(f"requests are captured ({COMMAND})",),
)


def test_the_parts_come_in_the_order_in_which_they_are_read() -> None:
    text, page = to_text(REPORT), to_html(REPORT)

    for shown in (text, page):
        places = [shown.index(word) for word in ("digits: version 2", "served at", "⚠ INTERRUPTED", "Limits",
                                                 "4.01 ms [3.94, 4.12]", "Code", "requests are captured")]  # fmt: skip
        assert places == sorted(places)
        assert "Nothing" not in shown


@given(st.integers(1, 200))
def test_lines_are_broken_between_words_and_numbers_stay_whole(width: int) -> None:
    text = to_text(REPORT, width)

    assert "4.01 ms [3.94, 4.12]" in text
    assert URL in text
    assert "+" + "y" * 200 in text
    sentences = [line for line in text.splitlines() if "long" in line and "warning" in line]
    assert all(len(line) <= max(width, 30) for line in sentences)
    assert " ".join(text.split()).count("a long warning") == 20


@given(st.integers(100, 200))
def test_a_table_with_room_keeps_the_width(width: int) -> None:
    text = to_text(Report("t", sections=(LIMITS,)), width)

    assert max(map(len, text.splitlines())) <= width
    assert " ".join(text.split()).count("requests took") >= 1


def test_without_a_terminal_the_width_is_fixed_and_there_are_no_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "37")

    assert to_terminal(REPORT) == to_text(REPORT) == to_text(REPORT, WIDTH)
    assert "\x1b" not in to_text(REPORT)


def test_a_terminal_gets_its_width_and_bold_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name, value in {"COLUMNS": "60", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())

    printed = to_terminal(REPORT)

    assert "\x1b[1mdigits: version 2" in printed
    assert re.sub("\x1b[^m]*m", "", printed).split() == to_text(REPORT, 60).split()
    assert "\x1b" not in to_text(REPORT)


def test_what_users_gave_is_text_in_both_forms() -> None:
    nasty = "<img src=x onerror=alert(1)> [bold]x[/bold] :smile: \x1b[31m"
    table = Table(nasty, (*names(nasty), *prose("in words")), ((nasty, nasty), (Cell(nasty, nasty), nasty)))
    report = Report(nasty, (nasty,), (nasty,), (table, CodeDiff(nasty, (nasty,))), (nasty,))

    text, page = to_text(report, 500), to_html(report)

    assert "<img" not in page
    assert page.count("&lt;img") == 14
    assert text.count("<img src=x onerror=alert(1)> [bold]x[/bold] :smile: \\x1b[31m") == 12
    assert "\x1b" not in text


def test_symbols_have_words_for_screen_readers() -> None:
    assert '<span role="img" aria-label="fine, bad" title="fine, bad">✓ ✗</span>' in table_html(LIMITS)
    assert "fine, bad" not in to_text(REPORT)


def test_the_html_of_a_table_has_its_rows_named_and_numbers_on_the_right() -> None:
    page = table_html(LIMITS)

    assert page.count('<th scope="row"') == 2
    assert '<th scope="col" style="text-align:right' in page
    assert page.count("<caption") == 1
    assert table_html(Table("none", names("a"), ())) == ""


def test_a_table_whose_rows_do_not_fit_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("t", names("a", "b"), (("x",),))
    with pytest.raises(ValueError, match="same name"):
        Table("t", names("a", "a"), ())


def test_text_made_in_a_notebook_displays_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *arguments: displayed.append(arguments))

    assert to_text(REPORT)
    assert to_terminal(REPORT)

    assert displayed == []
