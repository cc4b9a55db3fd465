"""What `%variants` and `d.variants` give: a row for each variant and engine.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..types import VariantMeasurement


@dataclass(frozen=True)
class VariantsResult(Sequence[VariantMeasurement]):
    """Variants of a model by engine, as a sequence of rows; `pandas.DataFrame(result)` makes a table of them.

    Attributes:
        title: what was measured, one line.
        rows: the first is the model as it is, run by TensorFlow.
        num_rows: rows that outputs were compared on; 0 for none.
        compared_with: what outputs were compared with, in words.
        notes: what has to be known beside that, one line each.
    """

    title: str
    rows: tuple[VariantMeasurement, ...]
    num_rows: int = 0
    compared_with: str = ""
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> VariantMeasurement | None:
        """What `--optimize auto` takes; None when nothing could be measured."""
        return next((row for row in self.rows if row.is_chosen), None)

    @overload
    def __getitem__(self, place: int) -> VariantMeasurement: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[VariantMeasurement, ...]: ...
    def __getitem__(self, place: int | slice) -> VariantMeasurement | tuple[VariantMeasurement, ...]:
        return self.rows[place]

    def __len__(self) -> int:
        return len(self.rows)
