"""The tables and notes of a comparison's report.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...reports.report import Column, Table, names, numbers, prose
from .values import FEWEST, Check, Latencies, Predictions, Verdict, Where

SHOWN_ROWS = 20


def check_table(checks: Sequence[Check]) -> Table:
    """Everything but predictions: a row each."""
    columns = (*names("what", "of", "result"), *prose("remark"))
    rows = tuple((one.what, one.subject, one.verdict.value, one.remark) for one in checks)
    return Table("What the servers tell and refuse", columns, rows)


def prediction_table(predictions: Sequence[Predictions]) -> Table:
    """A row for each signature of each version, a column for each protocol."""
    doors = list(dict.fromkeys(one.where.door for one in predictions))
    by_signature: dict[tuple[str, int, str], dict[str, str]] = {}
    for one in predictions:
        where = one.where
        by_signature.setdefault((where.model, where.version, where.signature), {})[where.door] = _outcome(one)
    rows = [
        (model, str(version), signature, *(found.get(door, "") for door in doors))
        for (model, version, signature), found in by_signature.items()
    ]
    return Table(
        "Predictions, by number of rows", (*names("model", "version", "signature"), *names(*doors)), tuple(rows)
    )


def _outcome(one: Predictions) -> str:
    """A cell, such as `same, 17`: short, since four of them share a line."""
    if one.verdict is Verdict.NOT_COMPARED:
        return str(one.verdict.value)
    if one.verdict is Verdict.DIFFERENT:
        return f"{one.num_different} of {one.num_rows} differ"
    return f"same, {one.num_rows}" if one.num_rows else f"both refuse, {one.num_refused}"


def row_table(predictions: Iterable[Predictions]) -> Table:
    """The rows that differ, with the outputs that differ most."""
    columns = (*names("where"), *numbers("row"), *names("output"), *numbers("A", "B", "difference", "allowed"))
    rows = [
        (str(row.where), str(row.row), row.output, row.a, row.b, f"{row.difference:.3g}", f"{row.allowed:.3g}")
        for one in predictions
        for row in one.rows_that_differ
    ]
    more = f", {SHOWN_ROWS} of {len(rows)}" if len(rows) > SHOWN_ROWS else ""
    return Table(f"Rows that differ{more}", columns, tuple(rows[:SHOWN_ROWS]))


def latency_table(latencies: Sequence[Latencies]) -> Table:
    """Medians with quartiles."""
    columns: tuple[Column, ...] = (*names("model", "protocol"), *numbers("A, ms", "B, ms", "B / A", "requests to each"))
    rows = [(one.model, one.door, *_times(one), f"{min(len(one.a_ms), len(one.b_ms))}") for one in latencies]
    return Table("Latency of one row, in turns: median [quartiles]", columns, tuple(rows))


def _times(one: Latencies) -> tuple[str, str, str]:
    if not one.has_enough:
        few = f"(needs {FEWEST} requests)"
        return few, few, ""
    cells = [f"{middle:.3g} [{low:.3g}, {high:.3g}]" for low, middle, high in map(one.quartiles, "ab")]
    return cells[0], cells[1], f"× {one.ratio:.2f}"


def notes_of(predictions: Iterable[Predictions], notes: Sequence[str]) -> Iterator[str]:
    """What was not compared and why, what differs beside outputs, and how all was done; each line once."""
    remarks: dict[tuple[Verdict, str], list[Where]] = {}
    for one in predictions:
        if one.remark:
            remarks.setdefault((one.verdict, one.remark), []).append(one.where)
    for (verdict, remark), places in remarks.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield f"{verdict.value}: {places[0]}{more}: {remark}"
    yield from notes
