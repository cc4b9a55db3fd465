"""The result of a version diff: a value, for reports and scripts.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..agreement.result import Agreement, Disagreement
from ..export.provenance.provenance import Provenance
from ..reports.agreement import agreement_table, flips_in_words
from ..reports.report import Report
from ..reports.text import to_text
from . import report
from .changes import LatencyChange, LayerChange, SignatureChange


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """How version `b` of a model differs from version `a`; prints as its report.

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
        rows_from: whose rows both were asked with: `given rows` or `stored warm-up rows`; "" when none were.
        agreement: output name -> how it compares on those rows; empty when nothing was compared.
        disagreements: the rows that differ most, the worst first.
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
    rows_from: str = ""
    agreement: Agreement = field(default_factory=Agreement)
    disagreements: tuple[Disagreement, ...] = ()
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

    @property
    def report(self) -> Report:
        """Everything that is known, for people."""
        return Report(
            title=f"{self.name}: version {self.b} (B) compared with version {self.a} (A)",
            sections=(
                report.origin_table(self.provenance_a, self.provenance_b, self.bytes_a, self.bytes_b),
                report.signature_table(self.signatures),
                report.layer_table(f"Layers: {self.params_a:,} → {self.params_b:,} parameters", self.layers),
                report.metric_table(self.metrics),
                report.latency_table(self.latency),
                agreement_table(f"Outputs, {self.rows_from}", self.agreement),
                report.package_table(self.packages),
                report.code_section(self.code),
            ),
            notes=(*flips_in_words(self.agreement), *self.notes),
        )

    def __repr__(self) -> str:
        return to_text(self.report)
