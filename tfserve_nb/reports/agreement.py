"""How two versions' outputs agree, as a table and notes that every report shows alike.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..agreement.result import Agreement, OutputAgreement
from .report import Table, names, numbers

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
        *names("kind"),
        *numbers("rows that agree", "95 % interval", "largest difference", "error, spreads of A", "bias, B - A"),
    )
    known = biases or {}
    rows = [
        (
            name,
            output.kind,
            *_share(output),
            number(output.largest_difference) if output.is_compared else "",
            number(output.error),
            _bias(output, known.get(name)),
        )
        for name, output in found.items()
    ]
    if len(rows) != 1 and found.num_rows:
        rows.append(("all outputs", "", *_share(found), "", "", ""))
    return Table(heading, columns, tuple(rows))


def kind_notes(found: Agreement) -> list[str]:
    """Why each output is compared as it is, a line for each."""
    notes = [_reason(name, output) for name, output in found.items()]
    return [*notes, "a row agrees in all outputs when it agrees in each of them"] if len(notes) > 1 else notes


def flip_notes(found: Agreement) -> list[str]:
    """The classes that changed most often, a line for each output where some did."""
    return [
        f"classes of {name} that changed: "
        + ", ".join(f"{a} → {b}: {count}" for (a, b), count in list(output.flips.items())[:NUM_FLIPS])
        for name, output in found.items()
        if output.flips
    ]


def number(value: float, *, sign: bool = False) -> str:
    """A number with three digits; "" for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def _share(found: Agreement | OutputAgreement) -> tuple[str, str]:
    if not found.is_compared:
        return "not compared", ""
    low, high = found.interval
    return (
        f"{found.num_same:,} of {found.num_rows:,} ({100 * found.share:.3g} %)",
        f"{100 * low:.3g} to {100 * high:.3g} %",
    )


def _bias(output: OutputAgreement, interval: tuple[float, float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return number(output.bias, sign=True)
    return f"{output.bias:+.3g} [{interval[0]:+.3g}, {interval[1]:+.3g}]"


def _reason(name: str, output: OutputAgreement) -> str:
    if not output.is_compared:
        return f"{name} is not compared: {output.reason}"
    within = f", within {output.tolerance:g} of size plus spread" if output.is_numbers else ""
    return f"{name} is compared as {output.kind}{within}: {output.reason}"
