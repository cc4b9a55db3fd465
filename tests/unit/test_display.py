"""How results show themselves: by one table, in every kind of shell, and only while the extension is loaded."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from helpers.recorded_experiment import state_of
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from tfserve_nb.diff.result import VersionDiff
from tfserve_nb.notebook import display
from tfserve_nb.notebook.overview import Overview, _batch_notes
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.report import Report
from tfserve_nb.reports.text import to_text

DIFF = VersionDiff("<net>", 1, 2, bytes_a=2048, bytes_b=4096)


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell of a terminal, without history."""
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell(config=config)
    display.register(made)
    yield made
    display.unregister(made)
    made.restore_sys_module_state()
    atexit.unregister(made.atexit_operations)
    made.atexit_operations()


def test_results_have_a_text_and_a_page_that_say_the_same(shell: InteractiveShell) -> None:
    for result in (DIFF, Overview(())):
        data, _ = shell.display_formatter.format(result)

        assert data == {"text/plain": to_text(result.report), "text/html": to_html(result.report)}
        assert data["text/plain"] == str(result)


def test_without_the_extension_a_result_is_its_text(shell: InteractiveShell) -> None:
    display.unregister(shell)

    data, _ = shell.display_formatter.format(DIFF)

    assert data == {"text/plain": str(DIFF)}


@pytest.mark.parametrize("view", display.VIEWS.values())
def test_results_themselves_know_nothing_of_notebooks(view: display.View) -> None:
    kind = next(kind for kind, known in display.VIEWS.items() if known is view)

    assert [name for name in dir(kind) if name.startswith("_repr_")] == []


def test_a_notebook_gets_a_figure_after_the_tables_once_there_is_something_to_draw(shell: InteractiveShell) -> None:
    published: list[dict[str, object]] = []
    shell.display_pub.publish = lambda data, **_: published.append(data)
    drawn = display.View(lambda _: Report("title"), lambda state: b"png" if state.moments else None)

    display._show_result(shell, drawn, state_of("few"))  # noqa: SLF001 - what a kernel calls
    display._show_result(shell, drawn, state_of("equal"))  # noqa: SLF001

    kinds = [sorted(data) for data in published]
    assert kinds == [["text/html", "text/plain"], ["text/html", "text/plain"], ["image/png", "text/plain"]]


def test_the_overview_says_in_words_why_batches_were_sent() -> None:
    batches = SimpleNamespace(num_batches=1, mean_rows=3.0, queue_ms=0.26, reasons={"free": 1, "full": 0}, run_ms={})
    metrics = SimpleNamespace(versions={2: SimpleNamespace(batches=batches)})

    (note,) = _batch_notes(SimpleNamespace(name="digits", metrics=lambda: metrics))

    assert note == "digits, version 2: 1 batch of 3 rows, 0.26 ms in the queue; sent because nothing else ran (100 %)"
