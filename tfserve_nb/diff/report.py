"""What a version diff has to say, table by table.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from ..export.provenance.provenance import Provenance
from ..reports.report import CodeDiff, Table, names, numbers, prose
from ..reports.sizes import size_text
from .changes import ADDED, CHANGED, REMOVED, SAME, LatencyChange, LayerChange, SignatureChange

MAX_LAYERS = 60
SYMBOLS = {SAME: "=", CHANGED: "~", ADDED: "+", REMOVED: "-"}
"""Change -> what stands before it, so that colour never says it alone."""


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
    """What differs in the code of the cells, or that nothing does."""
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
