"""The options of a comparison, for `tfserve-nb parity` and `d.parity`.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any  # rows of the user

import numpy as np

from ...agreement.kinds import ASKED_KINDS, AgreementOptions
from ...errors import InvalidOption
from ...options import option

TOLERANCE = 1e-4
"""Ten times narrower than between versions of a model: both servers are to run the same one, by whatever engine."""


def names_of(text: str) -> tuple[str, ...]:
    """`a,b` as a tuple."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class ParityOptions:
    """What is compared, and how closely.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    rows: Any = option(
        None,
        "rows to send: `.npy`, `.npz`, a `.json` predict, classify or regress request or list of rows, captured "
        "requests (`.parquet`), a warm-up or request log file, or a version's folder with one",
        metavar="FILE",
        shown="requests that A captured, else those of its warm-up file, else made up",
    )
    max_rows: int = option(256, "most rows for each signature")
    labels: tuple[str, ...] = option(
        (), "labels to compare where no server lists them", metavar="LABEL,LABEL,...", parse=names_of
    )
    kind: str | None = option(
        None, "what outputs of numbers are", choices=ASKED_KINDS, shown="numbers, compared one by one"
    )
    tolerance: float = option(
        TOLERANCE, "by how much floating-point numbers may differ, relative to their size plus A's spread"
    )
    requests: int = option(100, "requests to each server for the latencies, for each model and protocol; 0 for none")
    timeout_s: float = option(30.0, "how long a response may take", metavar="S")
    wait_s: float = option(0.0, "how long to wait for a server that is still starting", metavar="S")

    def __post_init__(self) -> None:
        AgreementOptions(self.kind, self.tolerance)  # checks both
        for name, least in (("max_rows", 1), ("requests", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                hint = f"--{name.replace('_', '-')} 100"
                raise InvalidOption(f"{name}={value!r} must be a number of at least {least}", hint=hint)
        if not 0 < self.timeout_s < float("inf"):
            raise InvalidOption(f"timeout_s={self.timeout_s!r} must be a positive number", hint="--timeout-s 30")
        if not 0 <= self.wait_s < float("inf"):
            raise InvalidOption(f"wait_s={self.wait_s!r} must be 0 or a positive number", hint="--wait-s 60")

    def agreement_for(self, output: np.ndarray) -> AgreementOptions:
        """How an output is compared: floating-point numbers one by one, all else must be equal, unless told otherwise.

        Versions of a model agree on a class; two servers of the same version are to give the same numbers.
        """
        is_counted = output.dtype.kind in "iubOSU"
        return AgreementOptions(self.kind or (None if is_counted else "regression"), self.tolerance)
