"""What a comparison of two servers found, and its report.

Thread: any; immutable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...reports.report import Column, Report, Table, names, numbers, prose
from ...reports.text import to_text
from .findings import FEWEST, PREDICT, Check, Latencies, Predictions, Verdict, Where

SHOWN_ROWS = 20


@dataclass(frozen=True, slots=True)
class ParityResult:
    """Whether two servers answer the same; `print` and a cell show it as tables.

    Attributes:
        url_a: the server that is the measure.
        url_b: the other one.
        models: the models that were compared.
        checks: all but predictions.
        predictions: by version, signature and protocol.
        latencies: by model and protocol; empty when none were wanted.
        notes: what has to be known beside that, one line each.
    """

    url_a: str
    url_b: str
    models: tuple[str, ...]
    checks: tuple[Check, ...]
    predictions: tuple[Predictions, ...]
    latencies: tuple[Latencies, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """`SAME` only when nothing differs and predictions of every model were compared."""
        if any(self.differing()):
            return Verdict.DIFFERENT
        return Verdict.NOT_COMPARED if self.unproved or not self.models else Verdict.SAME

    @property
    def is_same(self) -> bool:
        """Whether the verdict is `SAME`."""
        return self.verdict is Verdict.SAME

    @property
    def exit_code(self) -> int:
        """0 for the same, 1 for different, 2 when that could not be found out."""
        return {Verdict.SAME: 0, Verdict.DIFFERENT: 1, Verdict.NOT_COMPARED: 2}[self.verdict]

    @property
    def unproved(self) -> tuple[str, ...]:
        """The models of which no prediction was compared."""
        proved = {one.where.model for one in self.predictions if one.verdict is Verdict.SAME and one.num_rows}
        return tuple(name for name in self.models if name not in proved)

    @property
    def num_rows(self) -> int:
        """Rows that were compared, each once for every version and protocol."""
        return sum(one.num_rows for one in self.predictions)

    def differing(self) -> Iterator[Check | Predictions]:
        """Everything that differs."""
        return (one for one in self._everything if one.verdict is Verdict.DIFFERENT)

    @property
    def _everything(self) -> tuple[Check | Predictions, ...]:
        return (*self.checks, *self.predictions)

    @property
    def report(self) -> Report:
        """The verdict, then what it rests on."""
        plain = [one for one in self.predictions if one.where.call == PREDICT]
        others = [one for one in self.predictions if one.where.call != PREDICT]
        return Report(
            f"Parity of A, {self.url_a}, and B, {self.url_b}",
            lead=(self._conclusion(),),
            sections=(
                _check_table(self.checks),
                _prediction_table("Predictions", plain, "model", "version", "signature"),
                _prediction_table("Calls with examples", others, "model", "version", "signature", "call"),
                _row_table(self.predictions),
                _latency_table(self.latencies),
            ),
            notes=tuple(_notes_of(self.predictions, self.notes)),
        )

    def _conclusion(self) -> str:
        models = f"{len(self.models)} model{'' if len(self.models) == 1 else 's'}"
        counts = Counter(one.verdict for one in self._everything)
        of = f"{counts[Verdict.SAME] + counts[Verdict.DIFFERENT]} comparisons of {models}, {self.num_rows:,} rows"
        for verdict, why in ((Verdict.NOT_THERE, "on one of them"), (Verdict.NOT_COMPARED, "for the reasons below")):
            of += f"; {counts[verdict]} {verdict.value} {why}" if counts[verdict] else ""
        if self.verdict is Verdict.SAME:
            return f"the same: {of}"
        if self.verdict is Verdict.DIFFERENT:
            return f"different: {counts[Verdict.DIFFERENT]} of {of}"
        names = ", ".join(self.unproved) or "any model"
        return f"could not compare: no prediction of {names} was compared; the reasons are below"

    def __str__(self) -> str:
        return to_text(self.report)


def _check_table(checks: Sequence[Check]) -> Table:
    """Everything but predictions: a row each."""
    columns = (*names("what", "of", "result"), *prose("remark"))
    rows = tuple((one.what, one.subject, one.verdict.value, one.remark) for one in checks)
    return Table("What the servers tell and refuse", columns, rows)


def _prediction_table(heading: str, predictions: Sequence[Predictions], *about: str) -> Table:
    """A row for each signature of each version, a column for each protocol.

    Args:
        heading: of the table.
        predictions: a column each for their protocols.
        about: the attributes of `Where` that name a row.
    """
    doors = list(dict.fromkeys(one.where.door for one in predictions))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in predictions:
        rows.setdefault(tuple(str(getattr(one.where, name)) for name in about), {})[one.where.door] = _outcome(one)
    cells = tuple((*row, *(found[door] for door in doors)) for row, found in rows.items())
    return Table(f"{heading}, by number of rows", names(*about, *doors), cells)


def _outcome(one: Predictions) -> str:
    """A cell, such as `same, 17`: short, since four of them share a line."""
    if one.verdict in (Verdict.NOT_COMPARED, Verdict.NOT_THERE):
        return str(one.verdict.value)
    if one.verdict is Verdict.DIFFERENT:
        return f"{one.num_different} of {one.num_rows} differ"
    return f"same, {one.num_rows}" if one.num_rows else f"both refuse, {one.num_refused}"


def _row_table(predictions: Iterable[Predictions]) -> Table:
    """The rows that differ, with the outputs that differ most; once for all protocols that show the same numbers."""
    columns = (*names("where", "over"), *numbers("row"), *names("output"), *numbers("A", "B", "difference", "allowed"))
    doors: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in (row for one in predictions for row in one.rows_that_differ):
        cells = (str(row.row), row.output, row.a, row.b, f"{row.difference:.3g}", f"{row.allowed:.3g}")
        doors.setdefault((row.where.subject, cells), []).append(row.where.door)
    rows = [
        (subject, some[0] if len(some) == 1 else f"{len(some)} protocols", *cells)
        for (subject, cells), some in doors.items()
    ]
    more = f", {SHOWN_ROWS} of {len(rows)}" if len(rows) > SHOWN_ROWS else ""
    return Table(f"Rows that differ{more}", columns, tuple(rows[:SHOWN_ROWS]))


def _latency_table(latencies: Sequence[Latencies]) -> Table:
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


def _notes_of(predictions: Iterable[Predictions], notes: Sequence[str]) -> Iterator[str]:
    """What was not compared and why, what differs beside outputs, and how all was done; each line once."""
    remarks: dict[tuple[Verdict, str], list[Where]] = {}
    for one in predictions:
        if one.remark:
            remarks.setdefault((one.verdict, one.remark), []).append(one.where)
    for (verdict, remark), places in remarks.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield f"{verdict.value}: {places[0]}{more}: {remark}"
    yield from notes
