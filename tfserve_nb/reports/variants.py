"""What was measured of the variants of a model, as a table.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..types import VariantMeasurement
from .report import Column, Table


def variant_table(heading: str, rows: Sequence[VariantMeasurement]) -> Table:
    """A row for each variant and engine; columns of which nothing is known are left out.

    Args:
        heading: what it is about.
        rows: of one model.
    """
    sizes = sorted({size for row in rows for size in row.ms})
    times = {size: f"{'ms, ' if size == sizes[0] else ''}{rows_text(size)}" for size in sizes}
    columns = [
        (Column("variant"), [row.variant for row in rows]),
        (Column("engine"), [row.engine if row.disk_bytes else "" for row in rows]),
        (_numbers("MiB, disk"), [_mib(row.disk_bytes or None) for row in rows]),
        (_numbers("memory"), [_mib(row.memory_bytes) for row in rows]),
        (_numbers("load, s"), [_number(row.load_s) for row in rows]),
        *((_numbers(heading), [_number(row.ms.get(size)) for row in rows]) for size, heading in times.items()),
        (_numbers("agrees"), [_agrees(row) for row in rows]),
        (_numbers("differs by"), [_number(row.largest_difference) for row in rows]),
        (_numbers("accuracy"), [_percent(row.accuracy) for row in rows]),
        (Column("TF Serving"), [_yes(row) for row in rows]),
        (Column("remark"), [_remark(row) for row in rows]),
    ]
    shown = [(column, cells) for column, cells in columns if any(cells)]
    chosen = [number for number, row in enumerate(rows) if row.is_chosen]
    return Table(
        heading,
        tuple(column for column, _ in shown),
        tuple(zip(*(cells for _, cells in shown), strict=True)),
        chosen[0] if chosen else None,
    )


def reasons_of(rows: Sequence[VariantMeasurement]) -> list[str]:
    """Why rows may not be deployed, a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            by_reason.setdefault(row.reason, []).append(
                f"{row.variant} by {row.engine}" if row.disk_bytes else row.variant
            )
    return [f"{' and '.join(names)}: {reason}" for reason, names in by_reason.items()]


def rows_text(size: int) -> str:
    """A number of rows in words."""
    return "1 row" if size == 1 else f"{size} rows"


def _mib(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 2**20:.3g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _percent(share: float | None) -> str:
    """With as many digits as tell one row of ten thousand from none."""
    return "" if share is None else f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _agrees(row: VariantMeasurement) -> str:
    """Agreement; unknown where it ran and there were no rows to tell."""
    return "unknown" if row.ms and row.agreement is None else _percent(row.agreement)


def _yes(row: VariantMeasurement) -> str:
    return "" if not row.disk_bytes else "yes" if row.in_tensorflow_serving else "no"


def _remark(row: VariantMeasurement) -> str:
    if row.is_chosen:
        return "chosen"
    if row.is_usable:
        return ""
    return "refused" if row.ms else "does not run" if row.disk_bytes else "not made"


def _numbers(heading: str) -> Column:
    return Column(heading, is_number=True)
