"""Rows that are tried on a version, and whose they are.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...types import Tensors

MADE_UP = "made-up rows"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows to try.

    Attributes:
        rows: name -> array `(n, ...)`, n at least 1.
        source: whose they are, in words.
    """

    rows: Tensors
    source: str
