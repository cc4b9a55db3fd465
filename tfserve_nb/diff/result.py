"""The result of a version diff: a value, for tables and scripts.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..export.provenance.provenance import Provenance

SAME, CHANGED, ADDED, REMOVED = "same", "changed", "added", "removed"


@dataclass(frozen=True, slots=True)
class SignatureChange:
    """One signature.

    Attributes:
        name: such as `serving_default`.
        change: `same`, `changed`, `added` or `removed`.
        details: what differs, such as `input x: float32[?, 4] → float32[?, 5]`.
    """

    name: str
    change: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer.

    Attributes:
        name: its name in B, or in A when B has none.
        class_name: such as `Dense`; "" when it is not known.
        change: `same` (to the bit), `changed`, `added` or `removed`.
        params_a: numbers in its weights in A; None when A has no such layer.
        params_b: the same in B.
        weight_change: relative L2 norm of the difference, `‖B - A‖ / ‖A‖` over all weights of the layer; infinite when
            A is all zeros and B is not; None when they are equal, when the shapes differ, or for what are no numbers.
        note: what there is to say beside the numbers.
    """

    name: str
    class_name: str
    change: str
    params_a: int | None
    params_b: int | None
    weight_change: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LatencyChange:
    """One latency that was measured on live traffic.

    Attributes:
        what: such as `a run of 8 rows` or `p95 of requests`.
        a_ms: milliseconds of A; None when there were too few.
        b_ms: the same of B.
    """

    what: str
    a_ms: float | None
    b_ms: float | None


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """How the versions answered the same rows.

    Attributes:
        rows_from: whose rows: `given rows` or `stored warm-up rows`.
        num_rows: how many.
        num_agreeing: rows with the same decision: the same class, or the same value.
        max_difference: output name -> largest absolute difference; only outputs of numbers that both versions have.
    """

    rows_from: str
    num_rows: int
    num_agreeing: int
    max_difference: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What version `b` of a model has that version `a` has not, and the other way round.

    Attributes:
        name: the model.
        a: the older or current version.
        b: the other.
        signatures: all signatures of both.
        layers: all layers of both, in order.
        code: unified diff of the texts of the cells that deployed them; "" when they are equal; None when one is not
            known.
        provenance_a: where A comes from; None when it is not known.
        provenance_b: the same of B.
        bytes_a: size of A's files.
        bytes_b: the same of B.
        latency: measured on the versions' live traffic; empty while there is none.
        answers: how they answered the same rows; None when they were not compared.
        notes: in words, what is not known, and why.
    """

    name: str
    a: int
    b: int
    signatures: tuple[SignatureChange, ...] = ()
    layers: tuple[LayerChange, ...] = ()
    code: str | None = None
    provenance_a: Provenance | None = None
    provenance_b: Provenance | None = None
    bytes_a: int = 0
    bytes_b: int = 0
    latency: tuple[LatencyChange, ...] = ()
    answers: AnswerChange | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def metrics(self) -> dict[str, tuple[float | None, float | None]]:
        """Name -> A's and B's number; None where one has none."""
        a, b = (one.metrics if one is not None else {} for one in (self.provenance_a, self.provenance_b))
        return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])}

    @property
    def packages(self) -> dict[str, tuple[str, str]]:
        """Name -> A's and B's version, for those that differ, Python too; "" where one had none imported."""
        if self.provenance_a is None or self.provenance_b is None:
            return {}
        a, b = ({"python": one.python, **one.packages} for one in (self.provenance_a, self.provenance_b))
        return {
            name: (a.get(name, ""), b.get(name, ""))
            for name in dict.fromkeys([*a, *b])
            if a.get(name, "") != b.get(name, "")
        }

    @property
    def params_a(self) -> int:
        """Numbers in the weights of A."""
        return sum(one.params_a or 0 for one in self.layers)

    @property
    def params_b(self) -> int:
        """Numbers in the weights of B."""
        return sum(one.params_b or 0 for one in self.layers)

    def __repr__(self) -> str:
        from .report import to_text

        return to_text(self)

    def _repr_html_(self) -> str:
        from .report import to_html

        return to_html(self)
