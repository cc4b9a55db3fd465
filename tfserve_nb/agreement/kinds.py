"""The kind of each output, decided once, with the reason in words.

In this order: by the user's options, by the versions' provenance (loss and last activation), by the rows. Shares of
classes are recognised by their rows, which are nonnegative and sum to one. All other floating-point
numbers are compared as numbers unless the options or the provenance call them scores: two regression targets look
like the logits of two classes.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidOption
from ..options import option

CLASS_SHARES = "class shares"
SCORES = "scores"
REGRESSION = "regression"
EXACT = "exact"
SETS = "sets"
RANDOM = "random"
KINDS = (CLASS_SHARES, SCORES, REGRESSION, EXACT, SETS, RANDOM)
"""Every value of `OutputAgreement.kind`; docs/agreement.md describes how each is recognised and what agrees."""

ASKED_KINDS = ("classification", "regression", "exact", RANDOM)
"""The values of `--kind` and `kind=`."""

DEFAULT_TOLERANCE = 1e-3
ZERO_SPREAD = 1e-3
"""Stands for the spread of numbers that are always zero in A, so that the default tolerance allows 1e-6 there."""

SLACK = 0.1
"""How far beyond 0 to 1 B's numbers may lie where A's are shares, as those of a share that something was added to."""
MAX_COLUMNS = 4096
"""Columns that have a spread each; of more, all numbers have one together."""

ARGMAX, HALF, SIGN, NUMBERS, EQUAL, NOTHING = "argmax", "half", "sign", "numbers", "equal", "nothing"
"""How a row is judged: by its largest number, by which numbers are at least 0.5, by which are at least 0, by how far
the numbers are apart, by equality, by its shape alone."""

_NUMBER_LOSSES = frozenset({
    "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error",
    "huber", "log_cosh", "poisson", "cosine_similarity",
})  # fmt: skip
_SIGN_LOSSES = frozenset({"hinge", "squared_hinge"})
_BY_VALUES = "by values"
_DECIDES = {
    ARGMAX: "the largest decides",
    HALF: "each number decides by whether it is at least 0.5",
    SIGN: "each number decides by its sign",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Loss and activation of one output, from a version's provenance.

    Attributes:
        activation: of the layer that makes it, such as `softmax`; "" when it is not known.
        loss: what it was trained with, such as `binary_crossentropy`; "" when it is not known.
        from_logits: whether that loss takes logits.
    """

    activation: str = ""
    loss: str = ""
    from_logits: bool = False

    def __str__(self) -> str:
        logits = " (from logits)" if self.from_logits else ""
        parts = [f"loss {self.loss}{logits}" if self.loss else "", f"activation {self.activation}"]
        return ", ".join(part for part in parts[: 2 if self.activation else 1] if part)


@dataclass(frozen=True, slots=True)
class AgreementOptions:
    """The user's options for the outputs; None leaves a value to be derived.

    Attributes:
        kind: one of `ASKED_KINDS`, for all outputs of numbers.
        tolerance: by how much numbers may differ, relative to the size of A's number plus the spread (standard
            deviation) of A's numbers in that column; `DEFAULT_TOLERANCE` by default. Classes and exact outputs have
            none.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    kind: str | None = option(
        None, "what the outputs are, to compare them", choices=ASKED_KINDS, shown="derived from the model"
    )
    tolerance: float | None = option(
        None, "by how much numbers of a regression may differ, relative", shown=f"{DEFAULT_TOLERANCE:g}"
    )

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in ASKED_KINDS:
            raise InvalidOption(f"kind={self.kind!r} must be one of {', '.join(ASKED_KINDS)}", hint="--kind regression")
        value = self.tolerance
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value < math.inf):
            raise InvalidOption(f"tolerance={value!r} must be a number of at least 0", hint="--tolerance 0.001")


def kind_for(asked: str | None, draws: Iterable[Mapping[str, str]]) -> str | None:
    """The `kind` to compare versions with: the user's, or `random` when a version answers differently each time.

    Args:
        asked: the user's, or None.
        draws: `VersionStatus.draws` of the versions.
    """
    return RANDOM if asked is None and any(draws) else asked


@dataclass(frozen=True, slots=True)
class Rule:
    """How the rows of one output are compared.

    Attributes:
        kind: one of `KINDS`.
        reason: why, in words.
        judged_by: `ARGMAX`, `HALF`, `SIGN`, `NUMBERS`, `EQUAL` or `NOTHING`.
        is_guess: whether it rests on the numbers alone.
        tolerance: see `AgreementOptions`; 0 where equality is required.
        spread: standard deviation of A's numbers by column, float64 `(k,)`, or of all together `(1,)`; 0 for numbers
            that never change.
        unit: what errors are divided by to be comparable: the spread, or the size of a number that never changes;
            as `spread`.
    """

    kind: str
    reason: str
    judged_by: str
    is_guess: bool = False
    tolerance: float = 0.0
    spread: tuple[float, ...] = (0.0,)
    unit: tuple[float, ...] = (1.0,)


def is_text(array: np.ndarray) -> bool:
    """Whether an array holds text."""
    return array.dtype.kind in "OSU"


def by_position(array: np.ndarray) -> np.ndarray:
    """Rows `(n, ...)` as `(n, p, k)`: k numbers of the last axis at each of p positions."""
    n = len(array)
    if array.ndim <= 2:
        return array.reshape(n, 1, array.shape[1] if array.ndim == 2 else 1)
    return array.reshape(n, math.prod(array.shape[1:-1]), array.shape[-1])


def as_numbers(array: np.ndarray) -> np.ndarray:
    """Numbers as float64, complex ones as complex128; bfloat16, which numpy does not know, too."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def rounding_of(*arrays: np.ndarray) -> float:
    """The relative step of the coarsest floating-point type; 0 for integers."""
    steps = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7}
    return max(0.0 if array.dtype.kind in "iub" else steps.get(array.dtype.name, 1.2e-7) for array in arrays)


def decide(
    pieces: Sequence[tuple[np.ndarray, np.ndarray]],
    options: AgreementOptions,
    evidence: tuple[Evidence | None, Evidence | None] = (None, None),
) -> Rule:
    """The rule for one output.

    Args:
        pieces: what A and B predicted for the same rows, arrays `(n, ...)`; pieces may differ in their other sizes.
        options: the user's.
        evidence: of this output, from the provenance of A and of B.
    """
    if options.kind == RANDOM:
        return Rule(RANDOM, "the answers to one request differ each time", NOTHING)
    texts = [(is_text(a), is_text(b)) for a, b in pieces]
    if not pieces or any(a or b for a, b in texts):
        words = "text must be equal" if pieces and all(a and b for a, b in texts) else "only one of them is text"
        return Rule(EXACT, words if pieces else "no rows", EQUAL)
    tolerance = DEFAULT_TOLERANCE if options.tolerance is None else options.tolerance
    widths = {by_position(a).shape[2] for a, _ in pieces}
    shapes = next(((a.shape[1:], b.shape[1:]) for a, b in pieces if a.shape[1:] != b.shape[1:]), None)
    first = pieces[0][0]
    if options.kind == "exact" or (first.dtype.kind in "iub" and shapes is None and options.kind is None
                                   and _judged_by_provenances(evidence, max(widths))[0] != ARGMAX):  # fmt: skip
        words = "kind=exact was given" if options.kind else "integers and booleans must be equal"
        return Rule(EXACT, words, EQUAL)
    if shapes is not None or len(widths) > 1:
        words = f"rows of A and B have shapes {shapes[0]} and {shapes[1]}" if shapes else "rows of different length"
        reason = f"{words}: shape first, then number by number"
        return _by_numbers(SETS, reason, [a for a, _ in pieces], tolerance, len(widths) == 1, False)
    a, b = (_joined([piece[side] for piece in pieces], keep_columns=True) for side in (0, 1))
    kind, judged_by, reason, is_guess = _kind_of(a, b, options.kind, evidence)
    if judged_by != NUMBERS:
        return Rule(kind, reason, judged_by, is_guess)
    return _by_numbers(kind, reason, [a], tolerance, a.shape[1] <= MAX_COLUMNS, is_guess)


def _by_numbers(
    kind: str, reason: str, outputs: Sequence[np.ndarray], tolerance: float, has_columns: bool, is_guess: bool
) -> Rule:
    """A rule with the spread of A's numbers, by column where columns have a meaning of their own."""
    spread, unit = _spread(_joined(outputs, keep_columns=has_columns))
    return Rule(kind, reason, NUMBERS, is_guess, tolerance, spread, unit)


def _kind_of(
    a: np.ndarray, b: np.ndarray, asked: str | None, evidence: tuple[Evidence | None, Evidence | None]
) -> tuple[str, str, str, bool]:
    """Kind, how it is judged, why, and whether that is a guess.

    Args:
        a: positions by columns, `(m, k)`.
        b: the same of the other version.
        asked: the user's `kind`.
        evidence: from the provenance of A and of B.
    """
    if asked == "regression" or "c" in (a.dtype.kind, b.dtype.kind):
        return REGRESSION, NUMBERS, "kind=regression was given" if asked else "complex numbers", False
    seen = _Seen(a.shape[1], (_are_shares(a), _are_shares(b)), _are_within(a, 0.0) and _are_within(b, SLACK))
    if asked == "classification":
        judged_by = ARGMAX if seen.columns > 1 else HALF if seen.is_within_one else SIGN
        says, words = judged_by, "kind=classification was given"
        is_shares = all(seen.shares) if judged_by == ARGMAX else judged_by == HALF
    else:
        says, words = _judged_by_provenances(evidence, seen.columns)
        says = (HALF if seen.is_within_one else SIGN) if says == _BY_VALUES else says
        judged_by, is_shares = seen.confirms(says)
    if judged_by:
        return CLASS_SHARES if is_shares else SCORES, judged_by, f"{words}: {_DECIDES[judged_by]}", False
    if all(seen.shares):
        return CLASS_SHARES, ARGMAX, f"rows are nonnegative and sum to one: {_DECIDES[ARGMAX]}", False
    if says == NUMBERS:
        return REGRESSION, NUMBERS, words, False
    if says or seen.shares[0]:
        both = words or "A's rows are shares of classes"
        return REGRESSION, NUMBERS, f"{both}, but A's and B's numbers are not of one kind: number by number", False
    return (
        REGRESSION,
        NUMBERS,
        "a guess: neither the provenance nor kind= shows that these numbers are scores of classes",
        True,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """Properties of the rows: columns, whether A's and B's are shares, whether all lie from about 0 to 1."""

    columns: int
    shares: tuple[bool, bool]
    is_within_one: bool

    def confirms(self, says: str) -> tuple[str, bool]:
        """How rows are judged if they fit the provenance, and whether they are shares; "" if they do not fit."""
        if says == ARGMAX and self.shares[0] == self.shares[1]:
            return ARGMAX, self.shares[0]
        if says == HALF and self.is_within_one:
            return HALF, True
        return (SIGN, False) if says == SIGN else ("", False)


def _judged_by_provenances(evidence: tuple[Evidence | None, Evidence | None], columns: int) -> tuple[str, str]:
    """How both provenances together judge an output, and why, in words; ("", "") when they do not decide."""
    found = [(one, _judged_by_provenance(one, columns)) for one in evidence if one is not None]
    known = [(str(one), says) for one, says in found if says]
    if not known:
        return "", ""
    known = [one for one in known if one[1] != _BY_VALUES] or known
    if len({says for _, says in known}) > 1:
        return NUMBERS, f"A was made with {known[0][0]}, B with {known[1][0]}: number by number"
    return known[0][1], known[0][0]


def _judged_by_provenance(evidence: Evidence, columns: int) -> str:
    """How an output of so many columns is judged by its loss and activation; "" when nothing follows."""
    loss, activation = evidence.loss, evidence.activation
    if loss in _NUMBER_LOSSES:
        return NUMBERS
    is_binary = "binary" in loss and loss.endswith("crossentropy")
    is_class_loss = (loss.endswith("crossentropy") and not is_binary) or loss == "categorical_hinge"
    if columns > 1 and (is_class_loss or activation in ("softmax", "log_softmax")):
        return ARGMAX
    if loss in _SIGN_LOSSES or (is_binary and evidence.from_logits):
        return SIGN
    if activation in ("sigmoid", "hard_sigmoid"):
        return HALF
    return _BY_VALUES if is_binary else ""


def _joined(arrays: Sequence[np.ndarray], *, keep_columns: bool) -> np.ndarray:
    """All positions of all rows below each other, `(m, k)`, or all numbers in one column.

    The type stays that of the outputs, so that what is allowed for rounding suits it.
    """
    parts = [by_position(one) for one in arrays]
    width = parts[0].shape[2] if keep_columns else 1
    return np.concatenate([part.reshape(part.size // max(1, width), width) for part in parts])


def _are_shares(array: np.ndarray) -> bool:
    """Whether finite rows are nonnegative and sum to one within their type's rounding; False without such rows."""
    numbers = as_numbers(array)
    rows = numbers[np.isfinite(numbers).all(axis=1)]
    allowed = {"float16": 2e-2, "bfloat16": 5e-2}.get(array.dtype.name, 1e-3)
    return bool(
        rows.shape[1] > 1 and len(rows) and (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= allowed).all()
    )


def _are_within(array: np.ndarray, slack: float) -> bool:
    """Whether all finite numbers lie from 0 to 1, or not farther away than `slack`."""
    numbers = as_numbers(array)
    return bool(((numbers >= -slack) & (numbers <= 1 + slack) | ~np.isfinite(numbers)).all())


def _spread(array: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Spread and unit of each column; see `Rule`."""
    numbers = as_numbers(array)
    is_known = np.isfinite(numbers)
    known = np.where(is_known, numbers, 0.0)
    num = np.maximum(1, is_known.sum(axis=0))
    size = np.abs(known).max(axis=0, initial=0.0)
    # Divided by the largest first: squares of huge numbers would overflow.
    scaled = known / np.where(size > 0, size, 1.0)
    off = np.where(is_known, scaled - scaled.sum(axis=0) / num, 0.0)
    spread = size * np.sqrt((np.abs(off) ** 2).sum(axis=0) / num)
    is_constant = spread <= 4 * rounding_of(array) * size
    spreads = np.where(size == 0, ZERO_SPREAD, np.where(is_constant, 0.0, spread))
    units = np.where(size == 0, 1.0, np.where(is_constant, size, spread))
    return tuple(spreads.tolist()), tuple(units.tolist())
