"""Sends the same rows to both servers over every protocol, and compares what they answer, row by row.

Thread: the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...agreement.kinds import NUMBERS, Rule, as_numbers, by_position, decide, is_text
from ...agreement.rows import distances, judge, with_rows
from ...errors import InvalidRequest
from ...types import SignatureSpec, Tensors
from .doors import Answer, Door, Rest, call_of, doors_of
from .findings import PREDICT, Predictions, RowDifference, Verdict, Where
from .options import ParityOptions
from .rows import GivenRows, SentRows, count_rows, rows_for
from .side import Side
from .told import Version

KEPT_ROWS = 5
"""Rows that differ, of each signature and protocol."""
MAX_CHARS = 60
_TELLING: Door = Rest(has_rows=False)
"""What a server is asked over to find out whether it answers the same twice: every server has it."""


@dataclass(slots=True)
class _Tally:
    """The answers of both servers to the rows of one signature, over one protocol."""

    pairs: list[tuple[int, int, Tensors, Tensors]] = field(default_factory=list)
    """First row, number of rows, outputs of A, outputs of B."""
    one_sided: list[tuple[int, int, str]] = field(default_factory=list)
    """First row, number of rows, and what each server did where they did not do the same."""
    num_refused: int = 0
    refusal: str = ""

    def add(self, first: int, rows: int, a: Answer, b: Answer) -> None:
        """Take in the answers to one request."""
        if a.outputs is not None and b.outputs is not None:
            self.pairs.append((first, rows, a.outputs, b.outputs))
        elif a.outputs is None and b.outputs is None and a.refusal == b.refusal:
            self.num_refused += rows
            self.refusal = a.refusal
        else:
            self.one_sided.append((first, rows, f"row {first}: A {_did(a)}; B {_did(b)}"))


def _did(answer: Answer) -> str:
    return "answers" if answer.outputs is not None else f"refuses with {answer.refusal}"


class _Judged(NamedTuple):
    """One output of all rows that both answered."""

    name: str
    rule: Rule
    agrees: np.ndarray
    scores: np.ndarray


def compare_version(
    a: Side, b: Side, version: Version, given: GivenRows, options: ParityOptions
) -> Iterator[Predictions]:
    """Compare every signature of a version over every protocol.

    Args:
        a: the measure.
        b: the other server.
        version: what both have.
        given: rows; those of other signatures are made up.
        options: how closely.

    Raises:
        ServingError: if a server cannot be reached, or rows that were given do not fit.
    """
    for signature in version.signatures.values():
        rows = rows_for(signature, version.signatures, given, options.max_rows)
        reason = _why_not(a, b, version, signature, rows, options)
        for door in doors_of(signature):
            call = call_of(signature) if door.takes_examples else PREDICT
            where = Where(version.model, version.number, signature.name, door.name, call)
            if reason:
                yield Predictions(where, Verdict.NOT_COMPARED, remark=reason)
            else:
                yield _compare(a, b, door, where, signature, rows, options)


def _why_not(
    a: Side, b: Side, version: Version, signature: SignatureSpec, rows: SentRows, options: ParityOptions
) -> str:
    """Why answers of a signature would say nothing, or may not be asked for; "" when they can be compared."""
    if version.changes:
        return f"requests leave something behind, and none is sent: {version.changes}"
    draws = version.draws.get(signature.name) or _differs_by_itself(a, b, version, signature, rows, options)
    return f"answers to one request differ each time: {draws}" if draws else ""


def _differs_by_itself(
    a: Side, b: Side, version: Version, signature: SignatureSpec, rows: SentRows, options: ParityOptions
) -> str:
    """Whether a server gives one request two answers, which no comparison with another server can tell apart."""
    try:
        request = _TELLING.encode(version.model, version.number, signature, rows.pieces[0])
    except InvalidRequest:
        return ""
    for side in (a, b):
        first, second = (_TELLING.ask(side, version.model, version.number, signature, request) for _ in range(2))
        if first.outputs is None or second.outputs is None:
            continue
        tally = _Tally([(0, count_rows(signature, rows.pieces[0]), first.outputs, second.outputs)])
        if any(not output.agrees.all() for output in _judged(tally, options)):
            return f"{side.letter} gave other outputs when it was asked again"
    return ""


def _compare(
    a: Side, b: Side, door: Door, where: Where, signature: SignatureSpec, rows: SentRows, options: ParityOptions
) -> Predictions:
    closed = door.why_closed(a) or door.why_closed(b)
    if closed:
        return Predictions(where, door.if_closed, remark=closed)
    tally, first = _Tally(), 0
    for inputs in rows.pieces:
        try:
            request = door.encode(where.model, where.version, signature, inputs)
        except InvalidRequest as error:
            return Predictions(where, Verdict.NOT_COMPARED, remark=error.message)
        num = count_rows(signature, inputs)
        answers = (door.ask(side, where.model, where.version, signature, request) for side in (a, b))
        tally.add(first, num, *answers)
        first += num
    return _summed_up(where, tally, rows, options)


def _summed_up(where: Where, tally: _Tally, rows: SentRows, options: ParityOptions) -> Predictions:
    differing: set[int] = set()
    worst: list[tuple[float, int, _Judged]] = []
    for output in _judged(tally, options):
        for place in np.flatnonzero(~output.agrees).tolist():
            differing.add(place)
            worst.append((float(output.scores[place]), place, output))
    worst.sort(key=lambda found: -found[0])
    more = f" and {len(tally.one_sided) - 1} requests more" if len(tally.one_sided) > 1 else ""
    remarks = [text + more for _, _, text in tally.one_sided[:1]]
    remarks += sorted({text for pair in tally.pairs if (text := _unlike_names(pair[2], pair[3]))})
    num_alone = sum(num for _, num, _ in tally.one_sided)
    num_rows = sum(num for _, num, _, _ in tally.pairs) + num_alone
    if differing or remarks:
        kept = tuple(_row_difference(where, tally, output, place) for _, place, output in worst[:KEPT_ROWS])
        num_different = num_rows if not differing and not num_alone else len(differing) + num_alone
        return Predictions(
            where, Verdict.DIFFERENT, num_rows, num_different, tally.num_refused, "; ".join(remarks), kept
        )
    made_up = " (made-up rows; --rows FILE sends others)" if rows.are_made_up else ""
    remark = f"both refuse with {tally.refusal}{made_up}" if tally.num_refused else ""
    return Predictions(where, Verdict.SAME, num_rows, 0, tally.num_refused, remark)


def _judged(tally: _Tally, options: ParityOptions) -> Iterator[_Judged]:
    """Every output that both gave, in the order of `tally.pairs`; the rule comes from all rows."""
    names = dict.fromkeys(name for _, _, left, right in tally.pairs for name in left if name in right)
    for name in names:
        pieces = [
            (with_rows(left[name], rows), with_rows(right[name], rows))
            for _, rows, left, right in tally.pairs
            if name in left and name in right
        ]
        rule = decide(pieces, options.agreement_for(pieces[0][0]))
        parts = [judge(rule, *piece) for piece in pieces]
        agrees, scores = (np.concatenate([part[place] for part in parts]) for place in (0, 2))
        yield _Judged(name, rule, agrees, scores)


def _row_difference(where: Where, tally: _Tally, output: _Judged, place: int) -> RowDifference:
    """The number, or the text, that differs most in a row; `place` counts the rows of all pairs."""
    for first, rows, left, right in tally.pairs:
        if output.name not in left or output.name not in right:
            continue
        a, b = with_rows(left[output.name], rows), with_rows(right[output.name], rows)
        if place < len(a):
            row = first + place if len(a) == rows else first
            if a.shape != b.shape or is_text(a) != is_text(b):
                return RowDifference(where, row, output.name, _form(a), _form(b), math.inf, 0.0)
            return _at_worst(where, row, output, _row(a, place), _row(b, place))
        place -= len(a)
    raise AssertionError("a row that was judged is there")


def _at_worst(where: Where, row: int, output: _Judged, a: np.ndarray, b: np.ndarray) -> RowDifference:
    if is_text(a):
        apart = np.asarray(a.astype(object) != b.astype(object)).astype(np.float64)
    else:
        apart = distances(as_numbers(a), as_numbers(b))
    allowed = _allowed(output.rule, a)
    place = np.unravel_index(int(np.argmax(apart - allowed if np.isfinite(apart).all() else apart)), apart.shape)
    written = f"{output.name}[{', '.join(map(str, place))}]" if place else output.name
    limit = float(allowed[place])
    return RowDifference(where, row, written, _short(a[place]), _short(b[place]), float(apart[place]), limit)


def _row(array: np.ndarray, place: int) -> np.ndarray:
    """One row as an array, also where it is a single value."""
    return array[place : place + 1].reshape(array.shape[1:])


def _allowed(rule: Rule, a: np.ndarray) -> np.ndarray:
    """By how much each number of a row may differ; 0 where equality or a class is judged."""
    if rule.judged_by != NUMBERS:
        return np.zeros(a.shape)
    sizes = np.abs(as_numbers(by_position(a[np.newaxis])))
    allowed: np.ndarray = rule.tolerance * (np.where(np.isfinite(sizes), sizes, 0.0) + np.asarray(rule.spread))
    return allowed.reshape(a.shape)


def _unlike_names(a: Tensors, b: Tensors) -> str:
    only_a, only_b = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    parts = [f"only {letter} gives {', '.join(names)}" for letter, names in (("A", only_a), ("B", only_b)) if names]
    return " and ".join(parts)


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {'×'.join(map(str, array.shape[1:])) or 'number'}"


def _short(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = f"{value:.7g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"
