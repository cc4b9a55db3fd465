"""The report of a replay.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..bench.comparison import COMPARED, Effect
from ..bench.report import needs, origin_of, percentile_text
from ..bench.statistics import Percentile, Summary
from ..reports.agreement import agreement_table, flip_notes, kind_notes
from ..reports.report import Report, Table, names, numbers
from ..types import Tensors
from .result import ReplayResult

SHOWN_ROWS = 5
MAX_CELL_CHARS = 60


def report_of(result: ReplayResult) -> Report:
    """The verdict, then what it rests on."""
    return Report(
        result.title,
        lead=(result.verdict,),
        warnings=tuple(_warnings(result)),
        sections=(_latency_table(result), agreement_table("Outputs", result.agreement), _row_table(result)),
        notes=(*kind_notes(result.agreement), *flip_notes(result.agreement), *_schedule_notes(result)),
    )


def _latency_table(result: ReplayResult) -> Table:
    """Latencies and failures, of one version or of two beside each other."""
    arms = [(f"B: version {result.onto}", result.b)]
    if result.a is not None:
        arms.insert(0, (f"A: version {result.against}", result.a))
    rows = [
        (
            f"p{100 * quantile:g}",
            _recorded(result.recorded, quantile),
            *(percentile_text(load, quantile) for _, load in arms),
            _ratio(result.effects, quantile),
        )
        for quantile in COMPARED
    ]
    rows.append(("failed requests", "", *(_failed(load) for _, load in arms), ""))
    columns = (*names(""), *numbers("as recorded", *(name for name, _ in arms), "B / A"))
    shown = len(columns) if result.a is not None else len(columns) - 1
    return Table("Latency", columns[:shown], tuple(row[:shown] for row in rows))


def _row_table(result: ReplayResult) -> Table:
    """The rows whose outputs differ most."""
    columns = (*names("inputs", "recorded output", f"version {result.onto}'s output"), *numbers("difference"))
    rows = [
        (*map(_cells, (row.inputs, row.outputs_a, row.outputs_b)), f"{row.score:.3g}")
        for row in result.disagreements[:SHOWN_ROWS]
    ]
    return Table("The rows that differ most", columns, tuple(rows))


def _warnings(result: ReplayResult) -> list[str]:
    """The warnings above the report."""
    found = ["INTERRUPTED: only complete rounds count"] if result.interrupted else []
    late = [load for load in (result.a, result.b) if load is not None and not load.is_valid]
    if late:
        share = max(load.late_share for load in late)
        found.append(
            f"the load generator itself was more than 1 ms late with {100 * share:.1f} % of the requests: the machine "
            "is too busy for this pace, and the latencies are partly the generator's"
        )
    return found


def _schedule_notes(result: ReplayResult) -> list[str]:
    """Notes about the requests and the measurement."""
    found = [
        f"{count} requests failed, so that their outputs could not be compared: {why}"
        for why, count in list(result.failures.items())[:SHOWN_ROWS]
    ]
    if result.num_reasked:
        reference = (
            "were not compared, since no other version is loaded"
            if result.against is None
            else f"are compared with what version {result.against} predicts for them now"
        )
        found.append(f"{result.num_reasked} requests are redacted and {reference}")
    if result.num_shortened:
        found.append(f"{result.num_shortened} gaps of more than a second were shortened to one second")
    if result.a is not None:
        found.append("both versions got the same requests on the same schedule, in turns; latencies count from it")
    found.append('"as recorded": what the server noted then, without the time on the network')
    found.append(f"{result.num_rows:,} rows in {result.seconds:.3g} s, {result.protocol}")
    return [*found, origin_of(result.at, result.environment)]


def _recorded(recorded: tuple[Percentile, ...], quantile: float) -> str:
    found = next((known for known in recorded if known.quantile == quantile), None)
    return needs(quantile) if found is None else f"{found.ms:.3g} ms"


def _ratio(effects: Sequence[Effect], quantile: float) -> str:
    found = next((effect for effect in effects if effect.quantile == quantile), None)
    return "" if found is None else f"× {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _failed(summary: Summary) -> str:
    words = ", ".join(f"{count} × {what}" for what, count in summary.errors.items())
    return f"{summary.num_errors} of {summary.num_due}{f' ({words})' if words else ''}"


def _cells(tensors: Tensors) -> str:
    return "; ".join(f"{name} {_short(array)}" for name, array in tensors.items())


def _short(array: np.ndarray) -> str:
    if array.size > 16 and array.dtype != object:
        low, high = float(array.min()), float(array.max())
        sizes = "×".join(str(size) for size in array.shape[1:])
        form = f"{array.dtype} {sizes}"
        return f"{form}, {low:.3g} to {high:.3g}" if math.isfinite(low + high) else form
    shown = np.array2string(array[0] if array.ndim else array, precision=4, separator=" ", threshold=16)
    plain = " ".join(shown.split())
    return plain if len(plain) <= MAX_CELL_CHARS else f"{plain[: MAX_CELL_CHARS - 1]}…"
