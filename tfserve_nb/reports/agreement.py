"""How two versions' outputs agree, as a table that every report shows alike.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..agreement.result import Agreement, OutputAgreement
from .report import Table, names, numbers, prose

NUM_FLIPS = 5
"""Changes of the decided class that are named."""


def agreement_table(heading: str, found: Agreement, biases: Mapping[str, tuple[float, float]] | None = None) -> Table:
    """One row for each output, and one for whole rows when there are several outputs.

    Args:
        heading: of the table.
        found: how the outputs compare.
        biases: output name -> interval of the bias, where one is known.
    """
    columns = (
        *names("output"),
        *numbers("rows that agree", "95 % interval", "largest difference", "error, spreads of A", "bias, B - A"),
        *prose("compared as"),
    )
    known = biases or {}
    rows = [
        (
            name,
            *_share(one),
            number(one.largest_difference),
            number(one.error),
            _bias(one, known.get(name)),
            _why(one),
        )
        for name, one in found.items()
    ]
    if len(rows) != 1 and found.num_rows:
        rows.append(("all of them", *_share(found), "", "", "", "a row agrees when each of its outputs does"))
    return Table(heading, columns, tuple(rows))


def flips_in_words(found: Agreement) -> list[str]:
    """The classes that changed most often, a line for each output where some did."""
    return [
        f"classes of {name} that changed: "
        + ", ".join(f"{a} → {b}: {count}" for (a, b), count in list(one.flips.items())[:NUM_FLIPS])
        for name, one in found.items()
        if one.flips
    ]


def number(value: float, *, sign: bool = False) -> str:
    """A number with three digits; "" for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def _share(found: Agreement | OutputAgreement) -> tuple[str, str]:
    low, high = found.interval
    return (
        f"{found.num_same:,} of {found.num_rows:,} ({100 * found.share:.3g} %)",
        f"{100 * low:.3g} to {100 * high:.3g} %",
    )


def _bias(one: OutputAgreement, interval: tuple[float, float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return number(one.bias, sign=True)
    return f"{one.bias:+.3g} [{interval[0]:+.3g}, {interval[1]:+.3g}]"


def _why(one: OutputAgreement) -> str:
    within = f", within {one.tolerance:g} of size plus spread" if one.is_numbers else ""
    return f"{one.kind}{within}: {one.reason}"
