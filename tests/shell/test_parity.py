"""`d.parity` as the last line of a cell."""

from __future__ import annotations

from typing import Any  # the shell of conftest.py


def test_a_cell_shows_what_was_compared_as_tables(modeller: Any) -> None:
    modeller.run("%deploy model --name net --out d --quiet")

    result = modeller.run("d.parity(d.rest_url, token=d.token, rows=[[1, 2], [3, 4]], requests=0)")

    shown = modeller.display_formatter.format(result)[0]
    assert shown["text/plain"].startswith("Parity of A, http://127.0.0.1:")
    captions = ("What the servers tell and refuse", "Predictions, by number of rows")
    assert [caption in shown["text/html"] for caption in captions] == [True, True]
    assert shown["text/html"].count("<td") > 20
    assert "same, 2" in shown["text/html"]
