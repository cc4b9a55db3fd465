"""The report of what was measured of variants.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..reports.report import Report
from ..reports.variants import reasons_of, rows_text, variant_table
from ..serving.engines.choice import gain
from .result import VariantsResult


def report_of(result: VariantsResult) -> Report:
    """What is chosen, then what that rests on."""
    return Report(
        result.title,
        lead=tuple(_lead(result)),
        sections=(variant_table("", result.rows),),
        notes=(*reasons_of(result.rows), *result.notes, *_notes(result)),
    )


def _lead(result: VariantsResult) -> Iterator[str]:
    chosen, base = result.chosen, result.rows[0]
    if chosen is None:
        return
    if chosen is base:
        yield f"chosen: {base.variant} by {base.engine}; nothing that agrees is faster or smaller"
        return
    speeds = [f"{base.ms[size] / chosen.ms[size]:.2g} × at {rows_text(size)}" for size in chosen.ms if size in base.ms]
    size = chosen.disk_bytes / base.disk_bytes
    yield (
        f"chosen: {chosen.variant} by {chosen.engine}, with {size:.2g} × the files of {base.variant} by {base.engine} "
        f"and {gain(base.ms, chosen.ms):.2g} × its speed ({', '.join(speeds)})"
    )


def _notes(result: VariantsResult) -> Iterator[str]:
    if result.num_rows:
        yield f"agreement and largest difference: on {result.num_rows:,} rows, with {result.compared_with}"
    else:
        yield "agreement is unknown without rows of yours: --check VAR; random numbers say little about real ones"
    yield (
        "each was loaded in a process of its own and measured in turn with the first row; memory is what loading and "
        "running it added there; load, s: until the first answer"
    )
