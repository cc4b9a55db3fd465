"""What a comparison of two servers found, and its report.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...reports.report import Report
from ...reports.text import to_text
from .report import check_table, latency_table, notes_of, prediction_table, row_table
from .values import Check, Latencies, Predictions, Verdict


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
        return Report(
            f"Parity of A, {self.url_a}, and B, {self.url_b}",
            lead=(self._conclusion(),),
            sections=(
                check_table(self.checks),
                prediction_table(self.predictions),
                row_table(self.predictions),
                latency_table(self.latencies),
            ),
            notes=tuple(notes_of(self.predictions, self.notes)),
        )

    def _conclusion(self) -> str:
        num_compared = sum(one.verdict is not Verdict.NOT_COMPARED for one in self._everything)
        models = f"{len(self.models)} model{'' if len(self.models) == 1 else 's'}"
        of = f"{num_compared} comparisons of {models}, {self.num_rows:,} rows"
        if self.verdict is Verdict.SAME:
            return f"the same: {of}"
        if self.verdict is Verdict.DIFFERENT:
            return f"different: {sum(1 for _ in self.differing())} of {of}"
        names = ", ".join(self.unproved) or "any model"
        return f"could not compare: no prediction of {names} was compared; the reasons are below"

    def __str__(self) -> str:
        return to_text(self.report)
