"""How far two versions agree, as values that results and reports hold.

Thread: any; immutable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..serialization import TextFloat
from ..types import Tensors
from .kinds import RANDOM, REGRESSION, SETS

Z_95 = 1.959963984540054
"""The normal distribution's 97.5th percentile. `scipy.stats` takes seconds to import, in the process that serves."""
NUMBER_KINDS = (REGRESSION, SETS)
"""Kinds whose numbers are compared; errors in units of the spread and a bias mean something there."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row on which both versions differ much.

    Attributes:
        score: how much, larger is worse: in units of A's spread for numbers, otherwise the largest difference of two
            numbers; infinite where they cannot be subtracted.
        inputs: name -> the row, shape `(1, ...)`.
        outputs_a: name -> what A predicted, shape `(1, ...)`.
        outputs_b: name -> what B predicted.
        at: when, seconds since the epoch.
    """

    score: TextFloat
    inputs: Tensors
    outputs_a: Tensors
    outputs_b: Tensors
    at: float


class _Counted:
    """Rows of which some agree."""

    __slots__ = ()
    num_rows: int
    num_same: int

    @property
    def share(self) -> float:
        """The share of the rows that agree, 0 to 1; NaN without rows."""
        return self.num_same / self.num_rows if self.num_rows else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, for a single look; it assumes that rows are independent."""
        return wilson(self.num_same, self.num_rows)


@dataclass(frozen=True, slots=True)
class OutputAgreement(_Counted):
    """How one output of both versions compares on the same rows.

    Attributes:
        kind: one of `kinds.KINDS`.
        reason: in words, why it is compared so.
        is_guess: whether that kind rests on the numbers alone.
        num_rows: rows that both predicted.
        num_same: rows on which this output agrees.
        largest_difference: the largest absolute difference of two numbers; infinite where two cannot be subtracted, as
            for NaN in only one of them.
        bias: mean of B's number minus A's; NaN where there are no numbers to subtract.
        bias_variance: variance of that mean from row to row; NaN for fewer than two rows.
        num_biased: rows that `bias` rests on.
        error: root mean square of the differences in units of A's spread (1 is as bad as always answering A's mean);
            NaN for outputs that are not compared as numbers.
        tolerance: that numbers were compared with; 0 where there is none.
        flips: (class by A, class by B) -> rows, the most frequent first; empty for outputs with no class a row.
    """

    kind: str
    reason: str
    num_rows: int
    num_same: int
    is_guess: bool = False
    largest_difference: TextFloat = 0.0
    bias: TextFloat = math.nan
    bias_variance: TextFloat = math.nan
    num_biased: int = 0
    error: TextFloat = math.nan
    tolerance: TextFloat = 0.0
    flips: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def is_numbers(self) -> bool:
        """Whether numbers are compared, so that error and bias mean something."""
        return self.kind in NUMBER_KINDS

    @property
    def is_compared(self) -> bool:
        """Whether its values are compared: not when they differ by themselves."""
        return self.kind != RANDOM


@dataclass(frozen=True, slots=True)
class Agreement(_Counted, Mapping[str, OutputAgreement]):
    """Output name -> how it compares; and the counts of whole rows, which agree when all of their outputs do.

    Attributes:
        num_rows: rows that both predicted.
        num_same: rows of which every output agrees.
        outputs: name -> how that output compares.
    """

    num_rows: int = 0
    num_same: int = 0
    outputs: Mapping[str, OutputAgreement] = field(default_factory=dict)

    def __getitem__(self, name: str) -> OutputAgreement:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __bool__(self) -> bool:
        return self.num_rows > 0

    @property
    def is_compared(self) -> bool:
        """Whether any output is; True without outputs."""
        return not self.outputs or any(output.is_compared for output in self.outputs.values())


def wilson(num_hits: int, num: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (E. B. Wilson, JASA 22, 1927); 0 to 1 when there is nothing."""
    if not num:
        return 0.0, 1.0
    share, z_squared = num_hits / num, Z_95**2
    centre = num_hits + z_squared / 2
    half = Z_95 * math.sqrt(num * share * (1 - share) + z_squared / 4)
    low, high = (end / (num + z_squared) for end in (centre - half, centre + half))
    return low if num_hits else 0.0, high if num_hits < num else 1.0
