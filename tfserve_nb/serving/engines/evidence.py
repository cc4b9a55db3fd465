"""Rows that are tried on a version, and whose they are.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...types import SignatureSpec, Tensors

MADE_UP = "made-up rows"
GIVEN = "the rows that were given"

MAX_ROWS = 16
"""Rows of one piece that are tried."""

MAX_KEPT_BYTES = 16 << 20
"""Of the rows that were given, as long as a version is loaded."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows to try.

    Attributes:
        rows: name -> array `(n, ...)`, n at least 1.
        source: whose they are, in words.
    """

    rows: Tensors
    source: str


def worth_keeping(rows: Tensors, signature: SignatureSpec) -> Tensors:
    """The rows that engines would be compared on later, as far as there is room for them; empty when there is none.

    Args:
        rows: name -> array `(n, ...)`, n at least 1.
        signature: what they are for.
    """
    if any(array.dtype == object for array in rows.values()):
        return {}  # no engine runs texts
    if all(spec.is_batched for spec in signature.inputs.values()):
        row_bytes = sum(array[0].nbytes for array in rows.values())
        most = min(MAX_ROWS, MAX_KEPT_BYTES // max(1, row_bytes))
        return {name: array[:most].copy() for name, array in rows.items()} if most else {}
    return dict(rows) if sum(array.nbytes for array in rows.values()) <= MAX_KEPT_BYTES else {}
