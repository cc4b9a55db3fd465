"""Sums up how two versions agree on many requests: shares that agree, errors, bias, the rows that differ most.

The first `DECIDING_ROWS` rows are kept whole; they decide the kind of each output and the spread of its numbers, which
then stay. Until then every figure is computed from all rows so far, so it does not matter how rows were cut into
requests; later rows only add to the sums.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple  # JSON

import numpy as np

from ..serialization import TextFloat, to_json
from ..types import Tensors
from .kinds import AgreementOptions, Evidence, Rule, decide
from .result import Agreement, Disagreement, OutputAgreement
from .rows import Judged, judge, never, with_rows
from .worst import Worst

DECIDING_ROWS = 1024
MAX_DECIDING_BYTES = 32 << 20
"""Inputs and outputs of those rows; of larger rows fewer decide."""
MOST_FLIPS = 2000
"""Pairs of classes that are counted separately."""
KEPT_ROWS = 64

Evidences = Mapping[str, tuple[Evidence | None, Evidence | None]]
"""Output name -> its evidence from the provenance of A and of B."""


def evidence_pairs(a: Mapping[str, Evidence], b: Mapping[str, Evidence]) -> Evidences:
    """The evidence of two versions, side by side by output."""
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])}


class _Piece(NamedTuple):
    inputs: Tensors
    a: Tensors
    b: Tensors
    rows: int
    at: float


@dataclass(slots=True)
class _Mean:
    """Mean and sum of squared deviations of numbers that come in parts (Chan, Golub and LeVeque, 1979)."""

    num: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        known = values[~np.isnan(values)]
        if not len(known):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(known.mean())
            squares = float(((known - mean) ** 2).sum())
        apart, total = mean - self.mean, self.num + len(known)
        self.squares += squares + apart * apart * self.num * len(known) / total
        self.mean += apart * len(known) / total
        self.num = total


@dataclass(slots=True)
class _Sums:
    """Sums over the rows of one output."""

    num_rows: int = 0
    num_same: int = 0
    largest: float = 0.0
    bias: _Mean = field(default_factory=_Mean)
    squared_error: _Mean = field(default_factory=_Mean)
    flips: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, judged: Sequence[Judged]) -> None:
        """Take rows in, all at once: rounding must not depend on how they were cut."""
        agrees = np.concatenate([one.agrees for one in judged])
        self.num_rows += len(agrees)
        self.num_same += int(agrees.sum())
        self.largest = max([self.largest, *(float(one.difference.max(initial=0.0)) for one in judged)])
        self.bias.add(np.concatenate([one.bias for one in judged]))
        self.squared_error.add(np.concatenate([one.squared_error for one in judged]))
        for rows in judged:
            if rows.decisions is None:
                continue
            for a, b in rows.decisions[rows.decisions[:, 0] != rows.decisions[:, 1]].tolist():
                if (a, b) in self.flips or len(self.flips) < MOST_FLIPS:
                    self.flips[a, b] += 1

    def result(self, rule: Rule) -> OutputAgreement:
        """The same for people."""
        bias, errors = self.bias, self.squared_error
        return OutputAgreement(
            kind=rule.kind,
            reason=rule.reason,
            is_guess=rule.is_guess,
            num_rows=self.num_rows,
            num_same=self.num_same,
            largest_difference=self.largest,
            bias=bias.mean if bias.num else math.nan,
            bias_variance=bias.squares / (bias.num - 1) if bias.num > 1 else math.nan,
            num_biased=bias.num,
            error=math.sqrt(errors.mean) if errors.num else math.nan,
            tolerance=rule.tolerance,
            flips=dict(self.flips.most_common()),
        )


class _Totals:
    """Whole rows, every output, and the rows that differ most.

    Args:
        num_worst: how many of those are kept.
    """

    def __init__(self, num_worst: int) -> None:
        self.num_rows = 0
        self.num_same = 0
        self.outputs: dict[str, _Sums] = {}
        self.worst = Worst(num_worst)

    def add(self, rules: Mapping[str, Rule], pieces: Sequence[_Piece]) -> np.ndarray:
        """Take requests in; whether each of their rows agrees, bool `(n,)`."""
        judged = [judge_outputs(rules, piece.a, piece.b, piece.rows) for piece in pieces]
        for name in dict.fromkeys(name for found in judged for name in found):
            self.outputs.setdefault(name, _Sums()).add([found[name] for found in judged if name in found])
        agrees = [whole_rows(found, piece.rows) for found, piece in zip(judged, pieces, strict=True)]
        for piece, found, same in zip(pieces, judged, agrees, strict=True):
            scores = np.max([np.zeros(piece.rows), *(one.score for one in found.values())], axis=0)
            self.worst.add(piece.inputs, piece.a, piece.b, same, scores, piece.at)
        joined = np.concatenate(agrees)
        self.num_rows += len(joined)
        self.num_same += int(joined.sum())
        return joined

    def result(self, rules: Mapping[str, Rule]) -> Agreement:
        """The same for people."""
        outputs = {name: sums.result(rules[name]) for name, sums in self.outputs.items()}
        return Agreement(self.num_rows, self.num_same, outputs)


def judge_outputs(rules: Mapping[str, Rule], a: Tensors, b: Tensors, rows: int) -> dict[str, Judged]:
    """Every output of A, compared with B's of the same name; outputs that only B has do not count.

    Args:
        rules: output name -> rule.
        a: name -> array of `rows` rows, or one that belongs to all of them.
        b: the same of the other version.
        rows: rows of the request.
    """
    found = {}
    for name, left in a.items():
        right = b.get(name)
        if right is None or len(with_rows(left, rows)) != len(with_rows(right, rows)):
            found[name] = never(rows)
            continue
        judged = judge(rules[name], with_rows(left, rows), with_rows(right, rows))
        if len(judged.agrees) != rows:
            judged = Judged(*(None if part is None else np.repeat(part, rows, axis=0) for part in judged))  # type: ignore[arg-type]
        found[name] = judged
    return found


def whole_rows(judged: Mapping[str, Judged], rows: int) -> np.ndarray:
    """Whether every output of each row agrees; bool `(rows,)`."""
    agrees = np.full(rows, bool(judged))
    for output in judged.values():
        agrees &= output.agrees
    return agrees


class Agreeing:
    """The accumulator.

    Args:
        options: the user's.
        evidence: from the versions' provenance.
        num_worst: how many of the rows that differ most are kept.
    """

    def __init__(
        self, options: AgreementOptions | None = None, evidence: Evidences | None = None, num_worst: int = KEPT_ROWS
    ) -> None:
        self._options = options or AgreementOptions()
        self._evidence = evidence or {}
        self._num_worst = num_worst
        self._is_settled = False
        self._pieces: list[_Piece] = []
        self._num_deciding = 0
        self._most_deciding = DECIDING_ROWS
        self._rules: dict[str, Rule] = {}
        self._num_ruled = 0
        self._totals = _Totals(num_worst)

    def add(self, inputs: Tensors, a: Tensors, b: Tensors, rows: int, at: float) -> np.ndarray:
        """Take in a request that both versions ran.

        Args:
            inputs: name -> array.
            a: output name -> what A predicted.
            b: the same of B.
            rows: rows of the request.
            at: when, on any clock.

        Returns:
            Whether each row agrees as far as known now, bool `(rows,)`; the first rows may still be judged otherwise
            when more of them have come.
        """
        if not rows:
            return np.zeros(0, bool)
        piece = _Piece(inputs, a, b, rows, at)
        if self._is_settled:
            self._rule_new(piece)
            return self._totals.add(self._rules, [piece])
        rest = self._keep_deciding(piece)
        self._rule_new(piece)
        if rest.rows:
            self._totals.add(self._rules, [rest])
        return whole_rows(judge_outputs(self._rules, a, b, rows), rows)

    def judge(self, a: Tensors, b: Tensors, rows: int) -> dict[str, Judged]:
        """Compare a request again that was added before, with what is known by now."""
        return judge_outputs(self._current()[0], a, b, rows)

    @property
    def agreement(self) -> Agreement:
        """The agreement so far; empty without rows."""
        rules, totals = self._current()
        return totals.result(rules)

    def worst(self, limit: int | None = None) -> tuple[Disagreement, ...]:
        """The rows that differ most: those that disagree first, then by how far they are apart."""
        return self._current()[1].worst.ranked()[:limit]

    def _keep_deciding(self, piece: _Piece) -> _Piece:
        """Keep copies of rows until enough are there to decide; the rows that were too many are given back."""
        if not self._pieces:
            num_bytes = sum(array.nbytes for part in piece[:3] for array in part.values())
            self._most_deciding = max(1, min(DECIDING_ROWS, MAX_DECIDING_BYTES * piece.rows // max(1, num_bytes)))
        kept, rest = _cut(piece, self._most_deciding - self._num_deciding)
        inputs, a, b = ({name: np.array(array) for name, array in part.items()} for part in kept[:3])
        self._pieces.append(_Piece(inputs, a, b, kept.rows, kept.at))
        self._num_deciding += kept.rows
        if self._num_deciding >= self._most_deciding:
            self._rules, self._totals = self._current()
            self._is_settled, self._pieces = True, []
        return rest

    def _current(self) -> tuple[dict[str, Rule], _Totals]:
        if self._is_settled or not self._pieces:
            return self._rules, self._totals
        rules, totals = self._decided(self._pieces), _Totals(self._num_worst)
        totals.add(rules, self._pieces)
        return rules, totals

    def _rule_new(self, piece: _Piece) -> None:
        """Rules for outputs that were not seen before; while all is open, again whenever there are twice the rows."""
        if not self._is_settled and self._num_deciding >= 2 * self._num_ruled:
            self._rules, self._num_ruled = self._decided(self._pieces), self._num_deciding
        if not piece.a.keys() <= self._rules.keys():
            self._rules = {**self._decided([piece]), **self._rules}

    def _decided(self, pieces: Sequence[_Piece]) -> dict[str, Rule]:
        """Output name -> rule, from rows that both versions predicted."""
        found = {}
        for name in dict.fromkeys(name for piece in pieces for name in piece.a):
            pairs = [
                (with_rows(piece.a[name], piece.rows), with_rows(piece.b.get(name, piece.a[name]), piece.rows))
                for piece in pieces
                if name in piece.a
            ]
            rule = decide(pairs, self._options, self._evidence.get(name, (None, None)))
            is_missing = not any(name in piece.b for piece in pieces)
            found[name] = replace(rule, reason="only A has this output: no row agrees") if is_missing else rule
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads, without the worst rows; what the outputs are stays so in it."""
        rules, totals = self._current()
        sums = {name: asdict(output) | {"flips": [[*pair, count] for pair, count in output.flips.items()]}
                for name, output in totals.outputs.items()}  # fmt: skip
        for output in sums.values():
            output["largest"] = to_json(output["largest"], TextFloat)
        return {
            "num_rows": totals.num_rows,
            "num_same": totals.num_same,
            "rules": {name: asdict(rule) for name, rule in rules.items()},
            "outputs": sums,
        }

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], options: AgreementOptions | None = None, evidence: Evidences | None = None
    ) -> Agreeing:
        """The inverse of `to_json`; counts of versions before there were kinds are left out."""
        self = cls(options, evidence)
        if not value.get("rules"):
            return self
        for name, rule in value["rules"].items():
            self._rules[name] = Rule(**{**rule, "spread": tuple(rule["spread"]), "unit": tuple(rule["unit"])})
        for name, sums in value["outputs"].items():
            self._totals.outputs[name] = _Sums(
                sums["num_rows"],
                sums["num_same"],
                float(sums["largest"]),
                _Mean(**sums["bias"]),
                _Mean(**sums["squared_error"]),
                Counter({(a, b): count for a, b, count in sums["flips"]}),
            )
        self._totals.num_rows, self._totals.num_same = value["num_rows"], value["num_same"]
        self._is_settled = True
        return self


def _cut(piece: _Piece, room: int) -> tuple[_Piece, _Piece]:
    """The first `room` rows of a request, and the others."""

    def part(rows: slice, num: int) -> _Piece:
        inputs, a, b = (
            {name: array[rows] if array.ndim and len(array) == piece.rows else array for name, array in tensors.items()}
            for tensors in piece[:3]
        )
        return _Piece(inputs, a, b, num, piece.at)

    room = min(room, piece.rows)
    return part(slice(0, room), room), part(slice(room, None), piece.rows - room)
