"""The rule for agreement: which kind an output is, which rows agree, and that it does not matter how rows are cut."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.agreement.kinds import (
    CLASS_SHARES,
    EXACT,
    REGRESSION,
    SCORES,
    SETS,
    AgreementOptions,
    Evidence,
)
from tfserve_nb.agreement.result import Agreement, OutputAgreement, wilson
from tfserve_nb.agreement.summary import DECIDING_ROWS, Agreeing
from tfserve_nb.agreement.worst import MAX_BYTES
from tfserve_nb.errors import InvalidOption
from tfserve_nb.serialization import from_json, to_json

SIGMOID = Evidence("sigmoid", "binary_crossentropy")
LOGITS = Evidence("linear", "sparse_categorical_crossentropy", from_logits=True)
BINARY_LOGITS = Evidence("linear", "binary_crossentropy", from_logits=True)
MSE = Evidence("linear", "mean_squared_error")

rng = np.random.default_rng(5)
NUMBERS = rng.normal(size=(400, 2)).astype(np.float32)
SHARES = rng.dirichlet([1.0, 1.0, 1.0], 400).astype(np.float32)
COLUMN = rng.uniform(size=(400, 1)).astype(np.float32)


def compared(
    a: object,
    b: object,
    evidence: Evidence | tuple[Evidence | None, Evidence | None] | None = None,
    **said: object,
) -> OutputAgreement:
    left, right = np.asarray(a), np.asarray(b)
    both = evidence if isinstance(evidence, tuple) else (evidence, evidence)
    agreeing = Agreeing(AgreementOptions(**said), {"y": both})  # type: ignore[arg-type]
    agreeing.add({"x": np.arange(len(left))}, {"y": left}, {"y": right}, len(left), 0.0)
    return agreeing.agreement["y"]


def agrees(a: object, b: object, **said: object) -> list[bool]:
    """Whether each row agrees, judged with all others."""
    left, right = np.asarray(a), np.asarray(b)
    agreeing = Agreeing(AgreementOptions(**said))  # type: ignore[arg-type]
    found: list[bool] = agreeing.add({}, {"y": left}, {"y": right}, len(left), 0.0).tolist()
    return found


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    ("a", "b", "evidence", "kind", "share"),
    [
        (NUMBERS, 2 * NUMBERS, None, REGRESSION, 0.0),
        (NUMBERS, NUMBERS * np.float32(1.0001), None, REGRESSION, 1.0),
        (NUMBERS, NUMBERS + np.float32(0.05), None, REGRESSION, 0.0),
        (NUMBERS, 2 * NUMBERS, LOGITS, SCORES, 1.0),
        (NUMBERS, NUMBERS[:, ::-1], LOGITS, SCORES, 0.0),
        (NUMBERS[:, :1], NUMBERS[:, :1] * 3, BINARY_LOGITS, SCORES, 1.0),
        (NUMBERS[:, :1], -NUMBERS[:, :1], Evidence(loss="hinge"), SCORES, 0.0),
        (SHARES, SHARES**2 / (SHARES**2).sum(1, keepdims=True), None, CLASS_SHARES, 1.0),
        (SHARES, SHARES, MSE, CLASS_SHARES, 1.0),
        (COLUMN, COLUMN + np.float32(0.3), None, REGRESSION, 0.0),
        (COLUMN, COLUMN + np.float32(0.01), MSE, REGRESSION, 0.0),
        (COLUMN, 1 - COLUMN, SIGMOID, CLASS_SHARES, 0.0),
        (COLUMN, COLUMN * np.float32(0.5), Evidence("sigmoid", "mean_squared_error"), REGRESSION, 0.0),
        (COLUMN, 50 + NUMBERS[:, :1], (SIGMOID, BINARY_LOGITS), REGRESSION, 0.0),
        (SHARES, np.log(SHARES), None, REGRESSION, 0.0),
        (NUMBERS, NUMBERS, (MSE, LOGITS), REGRESSION, 1.0),
        (NUMBERS, 2 * NUMBERS, (None, LOGITS), SCORES, 1.0),
        ((100 * NUMBERS).astype(int), (100 * NUMBERS).astype(int), None, EXACT, 1.0),
        ((100 * NUMBERS).astype(int), (100 * NUMBERS).astype(int) + 1, LOGITS, SCORES, 1.0),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), None, EXACT, 0.5),
        (NUMBERS > 0, (NUMBERS > 0).astype(int), None, EXACT, 1.0),
        (NUMBERS, SHARES, None, SETS, 0.0),
        (NUMBERS.astype(complex), NUMBERS * 1j, LOGITS, REGRESSION, 0.0),
    ],
)  # fmt: skip
def test_the_kind_follows_from_provenance_and_rows(
    a: np.ndarray, b: np.ndarray, evidence: Evidence | None, kind: str, share: float
) -> None:
    found = compared(a, b, evidence)

    assert (found.kind, found.share) == (kind, share)
    assert found.reason


def test_a_guess_is_said_to_be_one() -> None:
    guess, known = compared(NUMBERS, NUMBERS), compared(NUMBERS, NUMBERS, MSE)

    assert guess.is_guess
    assert guess.reason.startswith("a guess")
    assert not known.is_guess
    assert "loss mean_squared_error" in known.reason


def test_what_the_user_says_counts_before_everything() -> None:
    assert compared(SHARES, SHARES * 1.1, kind="regression").share == 0.0
    assert compared(NUMBERS, 2 * NUMBERS, MSE, kind="classification").kind == SCORES
    assert compared(COLUMN, COLUMN + 0.01, kind="classification").share > 0.97
    assert compared(NUMBERS, NUMBERS * (1 + 1e-6), kind="exact").kind == EXACT
    assert compared(NUMBERS.astype(np.float64), NUMBERS * (1 + 1e-6), kind="exact").share == 0.0
    assert compared([1, 2, 3], [1, 2, 4], kind="regression", tolerance=0.5).share == 1.0
    for wrong in ({"kind": "logits"}, {"tolerance": -1}, {"tolerance": math.nan}, {"tolerance": True}):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            AgreementOptions(**wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- rows


def test_numbers_may_differ_by_a_share_of_their_size_and_of_their_columns_spread() -> None:
    a = np.array([[0.0, 1e6], [10.0, 3e6]])  # spreads of 5 and 1e6

    assert agrees(a, a + np.array([[0.004, 0.0]])) == [True, True]
    assert agrees(a, a + np.array([[0.006, 0.0]])) == [False, True]
    assert agrees(a, a + np.array([[0.0, 1900.0]])) == [True, True]
    assert agrees(a, a + np.array([[0.0, 2500.0]])) == [False, True]
    assert agrees(a, a + np.array([[0.4, 0.0]]), tolerance=0.1) == [True, True]
    assert agrees(a * 1e-12, 2e-12 * a) == [False, False]
    assert agrees(np.full((3, 1), 5.0), np.full((3, 1), 5.004)) == [True] * 3
    assert agrees(np.full((3, 1), 5.0), np.full((3, 1), 5.006)) == [False] * 3
    assert agrees(np.zeros((2, 1)), np.array([[1e-7], [1e-5]])) == [True, False]
    assert agrees(a * 1e300, a * 1e300) == [True, True]


def test_nan_and_infinity_agree_only_with_the_same_in_the_same_place() -> None:
    nan, inf = math.nan, math.inf
    a = [[nan, 1.0], [inf, 1.0], [1.0, 2.0], [1.0, nan], [3.0, inf]]
    b = [[nan, 1.0], [inf, 1.0], [nan, 2.0], [nan, 1.0], [3.0, -inf]]

    for kind in ("regression", "classification", "exact"):
        assert agrees(a, b, kind=kind) == [True, True, False, False, False]
    assert compared(a, b).largest_difference == inf
    assert compared(a, a).largest_difference == 0.0


def test_a_tie_in_both_versions_is_decided_alike() -> None:
    half = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], np.float32)
    other = np.array([[0.5 - 3e-8, 0.5 + 3e-8], [0.4, 0.6], [0.6, 0.4]], np.float32)

    assert agrees(half, other) == [True, False, True]


def test_sequences_of_shares_agree_where_every_position_does() -> None:
    a = SHARES[:12].reshape(4, 3, 3)
    b = a.copy()
    b[1, 2] = b[1, 2][[1, 2, 0]]

    found = compared(a, b)

    assert (found.kind, found.num_rows, found.num_same, found.flips) == (CLASS_SHARES, 4, 3, {})


def test_columns_of_a_sigmoid_decide_each_for_itself() -> None:
    a = np.array([[0.9, 0.1], [0.9, 0.1]])
    b = np.array([[0.8, 0.2], [0.9, 0.6]])

    found = compared(a, b, Evidence("sigmoid"))

    assert (found.kind, found.share) == (CLASS_SHARES, 0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shares_of_any_precision_are_known_by_their_sum(dtype: type) -> None:
    many = rng.dirichlet(np.ones(200), 50).astype(dtype)

    assert compared(many, many).kind == CLASS_SHARES


def test_boxes_of_other_numbers_differ_and_those_of_the_same_are_compared() -> None:
    agreeing = Agreeing()
    for num_a, num_b in ((3, 3), (2, 3), (5, 5)):
        boxes = rng.normal(size=(1, 5, 4))
        agreeing.add({}, {"boxes": boxes[:, :num_a]}, {"boxes": boxes[:, :num_b]}, 1, 0.0)

    found = agreeing.agreement["boxes"]

    assert (found.kind, found.num_rows, found.num_same, found.largest_difference) == (SETS, 3, 2, math.inf)


def test_every_output_counts_and_one_that_is_gone_never_agrees() -> None:
    agreeing = Agreeing()
    whole = np.array([1.0, 2.0, 3.0])
    agreeing.add(
        {},
        {"same": whole, "gone": whole, "word": np.array(["a", "b", "c"], object), "one": np.array(7.0)},
        {"same": whole, "new": whole, "word": np.array(["a", "b", "x"], object), "one": np.array(7.0)},
        3,
        0.0,
    )

    found = agreeing.agreement

    assert {name: one.num_same for name, one in found.items()} == {"same": 3, "gone": 0, "word": 2, "one": 3}
    assert (found.num_rows, found.num_same) == (3, 0)
    assert "only A" in found["gone"].reason


def test_error_is_in_units_of_the_spread_and_bias_is_b_minus_a() -> None:
    found = compared(NUMBERS, NUMBERS + NUMBERS.std(0) / 2, MSE)

    assert found.error == pytest.approx(0.5, rel=1e-5)
    assert found.bias == pytest.approx(NUMBERS.std(0).mean() / 2, rel=1e-5)
    assert found.num_biased == 400
    assert math.isnan(compared(SHARES, SHARES).error)
    assert math.isnan(compared(np.array(["a"], object), np.array(["a"], object)).bias)


# ---------------------------------------------------------------- many requests

outputs_of = st.sampled_from(
    [
        (NUMBERS, NUMBERS + 0.003 * NUMBERS[::-1], None),
        (NUMBERS, NUMBERS[::-1].copy(), LOGITS),
        (SHARES, np.roll(SHARES, 1, axis=0), None),
        (COLUMN, np.abs(COLUMN - 0.02), SIGMOID),
        (np.where(NUMBERS > 1, np.nan, NUMBERS), NUMBERS, None),
        (np.array([b"a", b"b", b"c", b"d"] * 100, object), np.array([b"a"] * 400, object), None),
    ]
)


@given(outputs_of, st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 60))
def test_it_does_not_matter_how_rows_are_cut(
    case: tuple[np.ndarray, np.ndarray, Evidence | None], sizes: list[int], deciding: int
) -> None:
    a, b, evidence = case
    num = sum(sizes)
    a, b = (np.resize(one, (num, *one.shape[1:])) for one in (a, b))
    x = np.arange(num)
    whole, parts = Agreeing(evidence={"y": (evidence, None)}), Agreeing(evidence={"y": (evidence, None)})
    whole.add({"x": x}, {"y": a}, {"y": b}, num, 0.0)
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        parts.add({"x": x[rows]}, {"y": a[rows]}, {"y": b[rows]}, size, 0.0)
        first += size
        if first >= deciding:
            parts.agreement  # noqa: B018 - being looked at changes nothing

    assert repr(parts.agreement) == repr(whole.agreement)
    assert [one.inputs["x"].item() for one in parts.worst()] == [one.inputs["x"].item() for one in whole.worst()]
    assert sum(int((~one.agrees).sum()) for one in whole.judge({"y": a}, {"y": b}, num).values()) == (
        num - whole.agreement.num_same
    )


def test_after_enough_rows_kind_and_spread_stay() -> None:
    cut, whole = Agreeing(), Agreeing()
    a = np.concatenate([rng.normal(size=(DECIDING_ROWS, 1)), 1e6 * rng.normal(size=(500, 1))])
    b = a + 1e-3
    for agreeing, size in ((cut, 100), (whole, len(a))):
        for first in range(0, len(a), size):
            rows = slice(first, first + size)
            agreeing.add({}, {"y": a[rows]}, {"y": b[rows]}, len(a[rows]), 0.0)
    later = Agreeing.from_json(json.loads(json.dumps(cut.to_json())))

    assert cut.agreement.num_same == whole.agreement.num_same == later.agreement.num_same
    assert cut.agreement["y"].bias == pytest.approx(whole.agreement["y"].bias)
    for agreeing in (cut, later):
        agreeing.add({}, {"y": np.array([[0.25, 0.75]])}, {"y": np.array([[0.3, 0.7]])}, 1, 0.0)
    assert repr(later.agreement) == repr(cut.agreement)
    assert cut.agreement["y"].kind == REGRESSION


def test_counts_of_before_kinds_were_told_apart_are_not_taken_on() -> None:
    old = {"rows": 9, "same": 9, "numbers": 18, "shift": 0.1, "largest": 0.5, "may_threshold": True, "flips": []}

    assert Agreeing.from_json(old).agreement.num_rows == 0
    stored = {"num_rows": 9, "num_same": 8, "share": 8 / 9, "low": 0, "high": 1, "flips": []}
    found = from_json(stored, Agreement)
    assert (found.num_rows, found.num_same, dict(found)) == (9, 8, {})


def test_a_result_survives_as_json() -> None:
    found = Agreeing()
    found.add({}, {"y": SHARES, "n": NUMBERS}, {"y": SHARES[::-1], "n": np.full((400, 2), np.nan)}, 400, 0.0)

    again = from_json(json.loads(json.dumps(to_json(found.agreement), allow_nan=False)), Agreement)

    assert repr(again) == repr(found.agreement)


def test_the_rows_that_differ_most_are_kept_once_each_the_disagreeing_first() -> None:
    agreeing = Agreeing(num_worst=5)
    a = np.array([[0.99, 0.01], [0.51, 0.49], [0.9, 0.1], [0.5, 0.5]])
    b = np.array([[0.60, 0.40], [0.49, 0.51], [0.9, 0.1], [0.45, 0.55]])
    for _ in range(2):
        agreeing.add({"x": np.array([7.0, 8.0, 9.0, 10.0])}, {"y": a}, {"y": b}, 4, at=1.5)

    found = agreeing.worst()

    assert [one.inputs["x"].item() for one in found] == [10.0, 8.0, 7.0]
    assert (found[0].at, found[0].outputs_b["y"].shape) == (1.5, (1, 2))
    assert len(agreeing.worst(1)) == 1


def test_rows_that_are_very_large_are_not_kept() -> None:
    agreeing = Agreeing()
    large = np.zeros((1, MAX_BYTES // 4), np.float32)
    agreeing.add({"x": large}, {"y": large}, {"y": large + 1}, 1, 0.0)

    assert agreeing.worst() == ()
    assert agreeing.agreement.num_same == 0


def test_no_rows_are_nothing() -> None:
    agreeing = Agreeing()
    none = {"y": np.zeros((0, 3), np.float32)}

    assert agreeing.add(none, none, none, 0, 0.0).tolist() == []
    assert (dict(agreeing.agreement), agreeing.worst()) == ({}, ())
    assert not agreeing.agreement


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # Newcombe 1998, the same formula
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert (wilson(0, 4)[0], wilson(4, 4)[1], wilson(0, 0)) == (0.0, 1.0, (0.0, 1.0))
