"""Replays as text and as HTML tables.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time

import numpy as np

from ..bench.comparison import COMPARED
from ..bench.report import environment_text, percentile_text
from ..bench.statistics import FEWEST, Percentile, Summary
from ..markup import alert, note, table, text
from ..types import Tensors
from .result import ReplayResult

SHOWN_ROWS = 5
MAX_CELL_CHARS = 60


def to_text(result: ReplayResult) -> str:
    """For terminals."""
    lines = [result.title, f"  {result.verdict}"]
    rows = rows_of(result)
    table_rows = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines += [
        "  " + (cells[0].ljust(8) + "  ".join(cell.rjust(22) for cell in cells[1:])).rstrip() for cells in table_rows
    ]
    lines += [f"  ⚠ {warning}" for warning in warnings_of(result)]
    lines += [f"  {remark}" for remark in remarks_of(result)]
    return "\n".join(lines)


def to_html(result: ReplayResult) -> str:
    """For notebooks; the figure is beside it."""
    parts = [alert(warning) for warning in warnings_of(result)]
    parts.append(f'<div style="font-weight:600;line-height:1.5">{text(result.verdict)}</div>')
    rows = rows_of(result)
    columns = list(rows[0])
    escaped = [{column: text(cell) for column, cell in row.items()} for row in rows]
    parts.append(table(text(result.title), columns, escaped, numbers=columns[1:]))
    if result.disagreements:
        columns = ["difference", "inputs", "was answered", f"version {result.onto}"]
        found = [
            dict(
                zip(
                    columns,
                    map(text, (f"{one.score:.3g}", *map(_cells, (one.inputs, one.outputs_a, one.outputs_b)))),
                    strict=True,
                )
            )
            for one in result.disagreements[:SHOWN_ROWS]
        ]
        parts.append(table("The rows that differ most", columns, found))
    return f"<div>{''.join(parts)}{''.join(note(remark) for remark in remarks_of(result))}</div>"


def rows_of(result: ReplayResult) -> list[dict[str, str]]:
    """The table of latencies and failures: column -> text, in order."""
    a = "–" if result.a is None else f"version {result.against}"
    b = f"version {result.onto}"
    rows = []
    for quantile in COMPARED:
        effect = next((one for one in result.effects if one.quantile == quantile), None)
        rows.append(
            {
                " ": f"p{100 * quantile:g}",
                "as recorded": _recorded(result.recorded, quantile),
                a: "" if result.a is None else percentile_text(result.a, quantile),
                b: percentile_text(result.b, quantile),
                "B over A": "" if effect is None else f"× {effect.ratio:.3f} [{effect.low:.3f}, {effect.high:.3f}]",
            }
        )
    failed = {" ": "failed", "as recorded": "", a: _failed(result.a), b: _failed(result.b), "B over A": ""}
    return [*rows, failed]


def warnings_of(result: ReplayResult) -> list[str]:
    """What a reader must know first."""
    found = ["INTERRUPTED: only complete rounds count"] if result.interrupted else []
    late = [one for one in (result.a, result.b) if one is not None and not one.is_valid]
    if late:
        share = max(one.late_share for one in late)
        found.append(
            f"the load generator itself was more than 1 ms late with {100 * share:.1f} % of the requests: the machine "
            "is too busy for this pace, and the latencies are partly its own"
        )
    return found


def remarks_of(result: ReplayResult) -> list[str]:
    """How answers compare, and how it was measured."""
    found = []
    agreement = result.agreement
    if agreement is not None:
        found.append(
            f"answers: {agreement.num_same:,} of {agreement.num_rows:,} rows agree, {100 * agreement.share:.4g} % "
            f"[{100 * agreement.low:.4g}, {100 * agreement.high:.4g}]; largest difference {agreement.largest:.3g}, "
            f"mean shift {agreement.shift:+.3g}"
        )
        if agreement.flips:
            flips = [f"{one} → {two}: {count}" for (one, two), count in list(agreement.flips.items())[:SHOWN_ROWS]]
            found.append(f"classes that changed: {', '.join(flips)}")
    found += [f"{count} × no answer to compare: {why}" for why, count in list(result.failures.items())[:SHOWN_ROWS]]
    if result.num_reasked:
        who = "nobody could answer them anew" if result.against is None else f"version {result.against} answered anew"
        found.append(f"{result.num_reasked} requests are redacted: {who}")
    if result.num_shortened:
        found.append(f"{result.num_shortened} gaps of more than a second were shortened to one")
    if result.a is not None:
        found.append("both got the same requests at the same times, in turns; latencies count from those times")
    found.append("as recorded: what the server itself noted then, without its clients' part")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(result.at))
    found.append(f"{result.num_rows:,} rows in {result.seconds:.3g} s, {result.protocol}")
    return [*found, f"{when}, {environment_text(result.environment)}"]


def _recorded(recorded: tuple[Percentile, ...], quantile: float) -> str:
    found = next((one for one in recorded if one.quantile == quantile), None)
    return f"(from {FEWEST[quantile]} answers)" if found is None else f"{found.ms:.3g} ms"


def _failed(summary: Summary | None) -> str:
    if summary is None:
        return ""
    words = ", ".join(f"{count} × {what}" for what, count in summary.errors.items())
    return f"{summary.num_errors} of {summary.num_due}{f' ({words})' if words else ''}"


def _cells(tensors: Tensors) -> str:
    return "; ".join(f"{name} {_short(array)}" for name, array in tensors.items())


def _short(array: np.ndarray) -> str:
    if array.size > 16 and array.dtype != object:
        low, high = float(array.min()), float(array.max())
        sizes = "×".join(str(size) for size in array.shape[1:])
        return (
            f"{array.dtype} {sizes}, {low:.3g} to {high:.3g}" if math.isfinite(low + high) else f"{array.dtype} {sizes}"
        )
    shown = np.array2string(array[0] if array.ndim else array, precision=4, separator=" ", threshold=16)
    plain = " ".join(shown.split())
    return plain if len(plain) <= MAX_CELL_CHARS else f"{plain[: MAX_CELL_CHARS - 1]}…"
