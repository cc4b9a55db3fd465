"""What was measured of the engines of a version, as a table.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..types import EngineMeasurement
from .report import Table, names, numbers, prose

_AGREES = {True: "yes", False: "no", None: "not compared"}


def engine_table(heading: str, measurements: Sequence[EngineMeasurement]) -> Table:
    """A row for each signature and engine: the time of a run by batch size, and why it was not chosen.

    Args:
        heading: what it is about.
        measurements: of one version.
    """
    sizes = sorted({row.batch_size for row in measurements if row.ms is not None})
    by_engine: dict[tuple[str, str], list[EngineMeasurement]] = {}
    for row in measurements:
        by_engine.setdefault((row.signature, row.engine), []).append(row)
    has_signatures = len({signature for signature, _ in by_engine}) > 1
    cells = []
    for (signature, engine), found in by_engine.items():
        times = {row.batch_size: row.ms for row in found}
        first = found[0]
        cells.append(
            (
                *((signature,) if has_signatures else ()),
                engine,
                *(_ms(times.get(size)) for size in sizes),
                _AGREES[first.agrees],
                "chosen" if first.is_chosen else first.reason,
            )
        )
    columns = (
        *names(*(["signature"] if has_signatures else []), "engine"),
        *numbers(*(f"{'ms, ' if size == sizes[0] else ''}{size} {'row' if size == 1 else 'rows'}" for size in sizes)),
        *names("agrees"),
        *prose("remark"),
    )
    chosen = [number for number, found in enumerate(by_engine.values()) if found[0].is_chosen]
    return Table(heading, columns, tuple(cells), chosen[0] if len(chosen) == 1 else None)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
