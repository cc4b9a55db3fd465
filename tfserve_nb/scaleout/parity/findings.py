"""What one comparison of two servers found: the parts of a result.

Thread: any; immutable.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

FEWEST = 20
"""Requests below which latencies are not shown as numbers: half of so few are outliers on a busy machine."""

PREDICT = "predict"


class Verdict(enum.Enum):
    """What became of one comparison, or of all."""

    SAME = "same"
    DIFFERENT = "different"
    NOT_COMPARED = "not compared"
    NOT_THERE = "not there"
    """One of the servers has no such protocol, which is no difference: TensorFlow Serving does not speak V2."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that both servers were asked for.

    Attributes:
        what: `models`, `versions and states`, `default version`, `labels`, `metadata` or `bad requests`.
        subject: what it is about, such as `digits, version 2`.
        verdict: the outcome.
        remark: what differs, or why it was not compared; "" otherwise.
    """

    what: str
    subject: str
    verdict: Verdict
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Where:
    """A signature of a version, how it is called, and the way to it.

    Attributes:
        model: the model's name.
        version: the version's number.
        signature: the signature's name.
        door: the protocol, such as `REST, rows`.
        call: `predict`; `classify` or `regress` for the calls that take examples.
    """

    model: str
    version: int
    signature: str
    door: str
    call: str = PREDICT

    @property
    def subject(self) -> str:
        """All but the protocol."""
        call = "" if self.call == PREDICT else f", {self.call}"
        return f"{self.model} version {self.version}, {self.signature}{call}"

    def __str__(self) -> str:
        return f"{self.subject}, {self.door}"


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row for which the servers gave different outputs.

    Attributes:
        where: the signature and the protocol.
        row: its place among the rows that were sent to this signature, from 0.
        output: the output's name, with the place of the number that differs most: `y[3]`.
        a: what A gave there.
        b: what B gave there.
        difference: of the two numbers; infinite where they cannot be subtracted.
        allowed: the difference that still counts as the same.
    """

    where: Where
    row: int
    output: str
    a: str
    b: str
    difference: float
    allowed: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """What became of the rows of one signature over one protocol.

    Attributes:
        where: the signature and the protocol.
        verdict: the outcome.
        num_rows: rows that both answered, or of which one refused what the other answered.
        num_different: rows of them for which they differ.
        num_refused: rows that both refused with the same code and text.
        remark: what differs beside outputs, what both refused, or why nothing was compared; "" otherwise.
        rows_that_differ: some of those that differ most, the worst first.
    """

    where: Where
    verdict: Verdict
    num_rows: int = 0
    num_different: int = 0
    num_refused: int = 0
    remark: str = ""
    rows_that_differ: tuple[RowDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long requests of one row took, sent to A and B in turns, one at a time.

    Attributes:
        model: the model.
        door: the protocol.
        a_ms: of A, from sending to the last byte, milliseconds.
        b_ms: of B.
    """

    model: str
    door: str
    a_ms: tuple[float, ...]
    b_ms: tuple[float, ...]

    @property
    def has_enough(self) -> bool:
        """Whether there are enough to be shown as numbers."""
        return min(len(self.a_ms), len(self.b_ms)) >= FEWEST

    def quartiles(self, side: str) -> tuple[float, float, float]:
        """The first quartile, the median and the third quartile of `a` or `b`, in milliseconds."""
        low, middle, high = np.percentile(self.a_ms if side == "a" else self.b_ms, (25, 50, 75)).tolist()
        return low, middle, high

    @property
    def ratio(self) -> float:
        """The median of B over that of A."""
        return self.quartiles("b")[1] / self.quartiles("a")[1]
