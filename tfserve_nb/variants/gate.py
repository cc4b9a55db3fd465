"""The gate of a variant: does it answer as the plain version that it was made from?

Both run the same rows; whether an output agrees is said by the one rule (docs/agreement.md). Rows of the user count;
made-up rows show that a variant runs, and how far its numbers are apart there, and decide nothing.

Thread: any; pure functions of what they are given to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any  # labels of the user

import numpy as np

from ..agreement.decisions import are_right, decisions_of
from ..agreement.kinds import AgreementOptions
from ..agreement.result import Agreement
from ..agreement.rows import num_rows
from ..agreement.summary import Agreeing, Evidences
from ..errors import ExportFailed, InvalidRequest
from ..export.check import compare_outputs
from ..export.reasons import innermost
from ..export.variants.variants import VARIANTS
from ..replay.result import MAX_DISAGREEMENT
from ..serving.engines.evidence import MADE_UP, Evidence
from ..types import Tensors

Run = Callable[[Tensors], Tensors]
"""Runs one signature of a version."""

MAX_LOST_ACCURACY = 0.01
"""Of the rows with labels, so many may be wrong beyond those that the plain version gets wrong."""

CHUNK = 256
"""Rows of one run, so that many rows take no more memory than few."""


@dataclass(frozen=True, slots=True)
class VariantCheck:
    """How a variant's answers compare with those of the plain version.

    Attributes:
        variant: a key of `VARIANTS`.
        agreement: of the rows that both ran; empty without any.
        rows_source: whose rows they were, in words; `made-up rows` decide nothing; "" when none could be run.
        accuracy: share of the rows whose label the variant gets right, None without labels.
        plain_accuracy: the same of the plain version.
        reason: why it does not pass, in words; "" when it passes.
    """

    variant: str
    agreement: Agreement = field(default_factory=Agreement)
    rows_source: str = ""
    accuracy: float | None = None
    plain_accuracy: float | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether it may be deployed."""
        return not self.reason

    @property
    def is_known(self) -> bool:
        """Whether rows of the user were compared: otherwise the agreement is unknown."""
        return bool(self.agreement) and self.rows_source != MADE_UP and self.agreement.is_compared

    @property
    def agrees(self) -> bool:
        """Whether every row of the user agrees."""
        return self.passed and self.is_known and self.agreement.num_same == self.agreement.num_rows

    @property
    def share(self) -> float | None:
        """The share of the user's rows that agree, 0 to 1; None when it is unknown."""
        return self.agreement.share if self.is_known else None

    @property
    def largest_difference(self) -> float | None:
        """The largest absolute difference of two numbers, on whatever rows were run; None without any."""
        found = [output.largest_difference for output in self.agreement.values() if output.is_compared]
        return max(found, default=None)

    @property
    def text(self) -> str:
        """In one line: on which rows it agrees, and how far it is apart."""
        if self.reason:
            return self.reason
        if not self.agreement:
            return "not compared: no rows could be run"
        apart = "" if self.largest_difference is None else f", largest difference {self.largest_difference:.3g}"
        right = "" if self.accuracy is None else f", accuracy {self.accuracy:.4g} (before {self.plain_accuracy:.4g})"
        if not self.agreement.is_compared:
            return "not compared: its answers to the same rows differ each time"
        if not self.is_known:
            return f"agreement unknown, since only {MADE_UP} were compared{apart} (give some: --check)"
        counted = f"{self.agreement.num_same:,} of {self.agreement.num_rows:,}"
        return f"{counted} rows agree ({self.rows_source}){apart}{right}"


def check_variant_rows(
    variant: str,
    plain: Run,
    candidate: Run,
    rows: Iterable[Evidence],
    evidences: Evidences | None = None,
    options: AgreementOptions | None = None,
    labels: Any = None,
    *,
    is_batched: bool = True,
) -> VariantCheck:
    """Compare a variant with the plain version.

    Args:
        variant: a key of `VARIANTS`.
        plain: runs the plain version's main signature.
        candidate: runs the variant's.
        rows: what to run: the user's rows, and made-up ones, which are taken only when there are no others.
        evidences: what is known of the outputs, from the version's provenance.
        options: how outputs are compared.
        labels: the right answer for each row of the first of `rows`, or output name -> these; None without any.
        is_batched: whether the model takes any number of rows.

    Raises:
        InvalidRequest: if there is not one label for each row.
    """
    chosen = chosen_rows(rows)
    source = ", ".join(dict.fromkeys(one.source for one in chosen))
    options, evidences = options or AgreementOptions(), evidences or {}
    agreeing, answers, problem = Agreeing(options, evidences), list[tuple[Tensors, Tensors]](), ""
    for one in chosen:
        for batch in _chunks(one.rows) if is_batched else [one.rows]:
            expected = _run_if_suited(plain, batch)
            if expected is None:
                continue
            try:
                found = candidate(batch)
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own
                why = f"it fails on rows that the model runs: {innermost(error)}"
                return VariantCheck(variant, rows_source=source, reason=why)
            agreeing.add(batch, expected, found, num_rows(batch), 0.0)
            answers += [(expected, found)] if one is chosen[0] else []
            problem = problem or (_not_exact(expected, found) if VARIANTS[variant].is_exact else "")
        if agreeing.agreement and one.source == MADE_UP:
            break  # the best of them come first
    check = VariantCheck(variant, agreeing.agreement, source if agreeing.agreement else "", reason=problem)
    if labels is not None and answers and check.is_known:
        before, now = (_accuracy([pair[side] for pair in answers], labels, options, evidences) for side in (0, 1))
        check = replace(check, accuracy=now, plain_accuracy=before)
    return check if problem or not check.is_known else _limited(check)


def _run_if_suited(run: Run, batch: Tensors) -> Tensors | None:
    """What the model answers; None for rows that do not suit it, which say nothing about its variant."""
    try:
        return run(batch)
    except Exception:  # noqa: BLE001 - runtimes raise types of their own
        return None


def chosen_rows(rows: Iterable[Evidence]) -> list[Evidence]:
    """The rows that decide: the user's, or made-up ones when there are no others."""
    found = list(rows)
    return [one for one in found if one.source != MADE_UP] or found


def _limited(check: VariantCheck) -> VariantCheck:
    """The same, with the reason why it does not pass if it keeps a limit not."""
    reasons = []
    lost = 1 - check.agreement.share
    if lost > MAX_DISAGREEMENT:
        reasons.append(
            f"{check.agreement.num_rows - check.agreement.num_same:,} of {check.agreement.num_rows:,} rows disagree, "
            f"{100 * MAX_DISAGREEMENT:g} % may"
        )
    before, now = check.plain_accuracy, check.accuracy
    if before is not None and now is not None and before - now > MAX_LOST_ACCURACY:
        reasons.append(f"accuracy falls from {before:.4g} to {now:.4g}")
    return replace(check, reason="; ".join(reasons))


def _not_exact(expected: Tensors, found: Tensors) -> str:
    try:
        compare_outputs(expected, found, sides=("the plain version", "the variant"))
    except ExportFailed as error:
        return error.message
    return ""


def _chunks(rows: Tensors) -> Iterable[Tensors]:
    count = num_rows(rows)
    for start in range(0, count, CHUNK):
        yield {
            name: array[start : start + CHUNK] if array.ndim and len(array) == count else array
            for name, array in rows.items()
        }


def _accuracy(answers: Sequence[Tensors], labels: Any, options: AgreementOptions, evidences: Evidences) -> float:
    """The share of rows with the right answer; NaN without rows.

    Raises:
        InvalidRequest: if there is not one label for each row.
    """
    outputs = {name: np.concatenate([np.atleast_1d(one[name]) for one in answers]) for name in answers[0]}
    rows = num_rows(outputs)
    decisions = decisions_of(outputs, rows, options, evidences)
    given = labels if isinstance(labels, Mapping) else {next(iter(decisions), ""): labels}
    right = [are_right(decisions, name, one, rows, "what --check gave") for name, one in given.items()]
    if not right:
        raise InvalidRequest("labels is an empty dict", hint="labels={'output_0': y}")
    together = np.logical_and.reduce(right)
    return float(together.mean()) if len(together) else math.nan
