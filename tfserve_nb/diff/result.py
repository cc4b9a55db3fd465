"""The result of a version diff: a value, for scripts, and its report.

Thread: any; immutable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..agreement.result import Agreement, Disagreement
from ..export.provenance.provenance import Provenance
from ..reports.agreement import agreement_table, flip_notes, kind_notes
from ..reports.report import CodeDiff, Report, Table, names, numbers, prose, size_text
from ..reports.text import to_text

SAME, CHANGED, ADDED, REMOVED = "same", "changed", "added", "removed"
MAX_LAYERS = 60
SYMBOLS = {SAME: "=", CHANGED: "~", ADDED: "+", REMOVED: "-"}
"""Change -> what stands before it, so that colour is not the only sign."""


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
        note: more in words; may be empty.
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
        rows_from: whose rows both ran on: `given rows` or `stored warm-up rows`; "" when neither ran.
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
                origin_table(self.provenance_a, self.provenance_b, self.bytes_a, self.bytes_b),
                signature_table(self.signatures),
                layer_table(f"Layers: {self.params_a:,} → {self.params_b:,} parameters", self.layers),
                metric_table(self.metrics),
                latency_table(self.latency),
                agreement_table(f"Outputs, {self.rows_from}", self.agreement),
                package_table(self.packages),
                code_section(self.code),
            ),
            notes=(*kind_notes(self.agreement), *flip_notes(self.agreement), *self.notes),
        )

    def __repr__(self) -> str:
        return to_text(self.report)


def origin_table(a: Provenance | None, b: Provenance | None, bytes_a: int, bytes_b: int) -> Table:
    """When, from what and how large."""
    pair = a, b
    rows = [
        ("exported", *map(_when, pair)),
        ("model", *("" if each is None else each.model for each in pair)),
        ("size on disk", size_text(bytes_a), size_text(bytes_b)),
        ("git commit", *("" if each is None or each.git is None else str(each.git) for each in pair)),
        ("training data", *("" if each is None or each.data is None else str(each.data) for each in pair)),
        ("seed", *("" if each is None or each.seed is None else str(each.seed) for each in pair)),
    ]
    repeated = {"model", "git commit", "training data", "seed"}
    shown = [
        (name, in_a, "the same" if in_a == in_b and name in repeated else in_b)
        for name, in_a, in_b in rows
        if in_a or in_b
    ]
    return Table("Origin", names("", "A", "B"), tuple(shown))


def signature_table(changes: Sequence[SignatureChange]) -> Table:
    """One row for each signature, and one for each tensor that changed."""
    rows = []
    for signature in changes:
        rows.append((signature.name, _change(signature.change)))
        rows += [("", detail) for detail in signature.details]
    return Table("Signatures", names("signature", "change"), tuple(rows))


def layer_table(heading: str, layers: Sequence[LayerChange]) -> Table:
    """One row for each layer; of very many, those that changed most."""
    shown = layers
    if len(shown) > MAX_LAYERS:
        order = {ADDED: math.inf, REMOVED: math.inf, SAME: -1.0}
        weight = [order.get(layer.change, layer.weight_change or 0.0) for layer in shown]
        chosen = sorted(sorted(range(len(shown)), key=lambda place: -weight[place])[:MAX_LAYERS])
        shown = [shown[place] for place in chosen]
    rows = [
        (
            layer.name,
            layer.class_name,
            "–" if layer.params_a is None else f"{layer.params_a:,}",
            "–" if layer.params_b is None else f"{layer.params_b:,}",
            _moved(layer.weight_change, layer.change),
            f"{_change(layer.change)}{': ' + layer.note if layer.note else ''}",
        )
        for layer in shown
    ]
    left = len(layers) - len(shown)
    if left:
        rows.append((f"… {left} more that changed less", "", "", "", "", ""))
    columns = (*names("layer", "class"), *numbers("params A", "params B", "weights, |B - A| / |A|"), *prose("change"))
    return Table(heading, columns, tuple(rows))


def metric_table(metrics: Mapping[str, tuple[float | None, float | None]]) -> Table:
    """The metrics that were stored with the versions."""
    return _numbers("Metrics", [(name, a, b) for name, (a, b) in metrics.items()])


def latency_table(changes: Sequence[LatencyChange]) -> Table:
    """Latencies of live traffic in milliseconds."""
    return _numbers("Latency of live traffic, ms", [(each.what, each.a_ms, each.b_ms) for each in changes])


def package_table(packages: Mapping[str, tuple[str, str]]) -> Table:
    """Packages whose versions differ."""
    rows = [(name, a or "–", b or "–") for name, (a, b) in packages.items()]
    return Table("Packages that differ", names("package", "A", "B"), tuple(rows))


def code_section(code: str | None) -> CodeDiff:
    """The differences in the code of the cells."""
    if code is None:
        return CodeDiff("Code: not known of both versions")
    return CodeDiff("Code" if code else "Code: the same", tuple(code.splitlines()))


def _change(change: str) -> str:
    return f"{SYMBOLS[change]} {change}"


def _numbers(heading: str, rows: Sequence[tuple[str, float | None, float | None]]) -> Table:
    """Two numbers and how much B's is more, in percent of A's."""
    shown = [
        (name, *("–" if value is None else f"{value:.4g}" for value in (a, b)), _relative(a, b)) for name, a, b in rows
    ]
    return Table(heading, (*names(""), *numbers("A", "B", "change")), tuple(shown))


def _relative(a: float | None, b: float | None) -> str:
    if not a or b is None or not math.isfinite(a) or not math.isfinite(b):
        return ""
    return f"{100 * (b - a) / abs(a):+.1f} %"


def _moved(value: float | None, change: str) -> str:
    if value is None:
        return "0 %" if change == SAME else ""
    return "from zero" if math.isinf(value) else f"{100 * value:.3g} %"


def _when(provenance: Provenance | None) -> str:
    return "" if provenance is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(provenance.at))
