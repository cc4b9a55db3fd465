"""Which rows may run together, decided from runs; models of numpy, which couple their rows in many ways."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfserve_nb.errors import RunRejected
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.versions.row_evidence import EVIDENCE_FILE, NotedRows, note_rows, read_noted_rows
from tfserve_nb.serving.versions.sharing import (
    MADE_UP,
    Evidence,
    RowSharing,
    decide,
    ignores_added_length,
    made_up,
    noted_from,
)
from tfserve_nb.types import SignatureSpec, Tensors, TensorSpec

Model = Callable[[np.ndarray], np.ndarray]
SIZES = BatchingOptions(16).allowed_batch_sizes


def signature(dtype: str = "float32", shape: tuple[int | None, ...] = (None, 2)) -> SignatureSpec:
    """One input and one output."""
    return SignatureSpec(
        "serving_default", {"x": TensorSpec("x", dtype, shape)}, {"y": TensorSpec("y", "float32", (None, 2))}
    )


def decided(
    model: Model, *rows: np.ndarray, spec: SignatureSpec | None = None, noted: NotedRows | None = None
) -> RowSharing:
    """What is decided of a model, from the user's rows and made-up ones."""
    spec = spec or signature()

    def run(inputs: Tensors) -> Tensors:
        with np.errstate(all="ignore"):
            return {"y": np.asarray(model(inputs["x"]))}

    evidence = [Evidence({"x": array}, "your rows") for array in rows]
    return decide(run, spec, [*evidence, *(Evidence(made, MADE_UP) for made in made_up(spec))], SIZES, noted=noted)


def above(size: int, model: Model) -> Model:
    """Couples its rows only when there are more than `size`."""
    return lambda x: model(x) if len(x) > size else x


COUPLED: dict[str, Model] = {
    "share of the sum": lambda x: x / x.sum(axis=0),
    "mean": lambda x: x - x.mean(axis=0),
    "statistics": lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + 1),
    "softmax over rows": lambda x: np.exp(x) / np.exp(x).sum(axis=0),
    "sort": lambda x: np.sort(x, axis=0),
    "cumulated": lambda x: np.cumsum(x, axis=0),
    "cumulated from the end": lambda x: np.cumsum(x[::-1], axis=0)[::-1],
    "reversed": lambda x: x[::-1],
    "only the neighbour above": lambda x: x + np.roll(x, 1, axis=0),
    "only a little": lambda x: x + np.float32(1e-9) * x.sum(axis=0),
    "above a size": above(8, lambda x: x - x.mean(axis=0)),
    "above all allowed sizes": above(40, lambda x: x - x.mean(axis=0)),
    "large values only": lambda x: x / x.sum(axis=0) if x.max() > 500 else x,
    "negative values only": lambda x: x - x.mean(axis=0) if x.min() < -900 else x,
    "number of rows": lambda x: x * len(x),
    "chosen rows": lambda x: x[x[:, 0] > -1],
    "one value": lambda x: x.sum(),
    "one row": lambda x: x.sum(axis=0, keepdims=True),
    "very large values only": lambda x: x - x.mean(axis=0) if x.max() > 1e5 else x,
    "largest values only": lambda x: x - x.mean(axis=0) if x.min() < -5e8 else x,
    "as wide as its largest": lambda x: np.ones((len(x), 1 + int(np.nanmax(np.abs(x)) > 1))),
}


@pytest.mark.parametrize("name", COUPLED)
def test_rows_that_depend_on_each_other_never_run_together(name: str) -> None:
    found = decided(COUPLED[name])

    assert not found.is_allowed
    assert found.reason


@pytest.mark.parametrize(
    "model",
    [
        lambda x: 2 * x,
        lambda x: x / x.sum(axis=1, keepdims=True),
        lambda x: np.where(np.isfinite(x), x, -1),
        np.log,
        lambda x: x.argmax(axis=1),
    ],
    ids=["scaled", "per row", "cares for NaN", "NaN for some", "classes"],
)
def test_rows_that_do_not_depend_on_each_other_run_together(model: Model) -> None:
    assert decided(model) == RowSharing(is_allowed=True)


def longest(x: np.ndarray, padding: int) -> np.ndarray:
    """How many numbers the longest row has before its padding, for each row."""
    return np.full(len(x), (x != padding).sum(axis=1).max(), np.float32)


def embedded(x: np.ndarray) -> np.ndarray:
    """Vectors for the numbers 0 to 9."""
    if not ((x >= 0) & (x < 10)).all():
        raise RunRejected("indices out of range")
    return np.eye(10, dtype=np.float32)[x.astype(np.int64)].mean(axis=1)


DISCRETE: dict[str, tuple[str, Model]] = {
    "share of the largest": ("uint8", lambda x: x / np.float32(max(1, x.max()))),
    "trimmed to the longest": ("int64", lambda x: x[:, : int(longest(x, 50256)[0])].mean(axis=1)),
    "longest, padded with -1": ("int32", lambda x: longest(x, -1)),
    "longest, padded with 0": ("int32", lambda x: embedded(x).argmax(axis=1) + longest(x, 0)),
    "any row is True": ("bool", lambda x: x.astype(np.int32) * int(x.all(axis=1).any())),
    "any row of three is True": ("bool", lambda x: x[:, :3] * int(x[:, :3].all(axis=1).any())),
    "every row has a True": ("bool", lambda x: x.astype(np.int32) * int(x.any(axis=1).all())),
    "largest of the type only": ("int64", lambda x: x[::-1] if x.max() > 2**62 else x),
    "smallest of the type only": ("int16", lambda x: x[::-1] if x.min() == -(2**15) else x),
    "negative numbers only": ("int32", lambda x: x - x.min() if x.min() < 0 else x),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_rows_of_whole_numbers_and_booleans_that_depend_on_each_other_never_run_together(name: str) -> None:
    dtype, model = DISCRETE[name]

    assert not decided(model, spec=signature(dtype, (None, 6))).is_allowed


@pytest.mark.parametrize(
    ("dtype", "model"),
    [
        ("int64", embedded),
        ("int32", lambda x: x.sum(axis=1)),
        ("uint8", lambda x: x / np.float32(255)),
        ("int8", lambda x: x.max(axis=1)),
        ("uint64", lambda x: x.astype(np.float32)),
        ("bool", lambda x: x.any(axis=1)),
    ],
)
@pytest.mark.parametrize("shape", [(None,), (None, 1), (None, 6), (None, None), (None, 5, 4)])
def test_rows_of_whole_numbers_and_booleans_that_do_not_depend_run_together(
    dtype: str, model: Model, shape: tuple[int | None, ...]
) -> None:
    by_rows = (lambda x: model(x.reshape(len(x), -1))) if len(shape) != 2 else model

    assert decided(by_rows, spec=signature(dtype, shape)) == RowSharing(is_allowed=True)


def test_neighbours_stand_beside_the_users_whole_numbers_too() -> None:
    rows = np.array([[9, 9], [9, 8], [8, 9]], np.int32)

    assert not decided(lambda x: x / x.max(), rows, spec=signature("int32")).is_allowed


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_numbers_that_a_model_takes_for_steps_keep_no_deployment_busy(dtype: str) -> None:
    asked: list[float] = []

    def model(x: np.ndarray) -> np.ndarray:
        asked.append(float(np.nan_to_num(np.float64(x)).max()))
        time.sleep(min(2.0, 2e-5 * max(0.0, asked[-1])))
        return x

    assert decided(model, spec=signature(dtype, (None,))) == RowSharing(is_allowed=True)
    assert max(asked) < 1e6


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_numbers_that_a_model_takes_for_the_size_of_a_matrix_keep_no_deployment_busy(dtype: str) -> None:
    asked: list[float] = []

    def model(x: np.ndarray) -> np.ndarray:
        asked.append(float(np.nan_to_num(np.float64(x)).max()))
        time.sleep(min(2.0, 2e-10 * max(0.0, asked[-1]) ** 3))
        return x

    assert decided(model, spec=signature(dtype, (None,))) == RowSharing(is_allowed=True)
    assert max(asked) <= 1e3


def refuses_made_up(model: Model) -> Model:
    """A model of numbers between 10 and 20."""

    def run(x: np.ndarray) -> np.ndarray:
        if not ((x >= 10) & (x <= 20)).all():
            raise RunRejected("a number is not between 10 and 20")
        return model(x)

    return run


ROWS = np.array([[10, 11], [12, 13], [20, 15]], np.float32)


def test_without_rows_that_run_nothing_is_assumed_and_the_reason_says_what_to_give() -> None:
    found = decided(refuses_made_up(lambda x: x))

    assert not found.is_allowed
    assert "no rows are known that show whether they may share a run: a number is not between 10 and 20" in found.reason
    assert "--check VAR" in found.reason
    assert "--warmup VAR" in found.reason


def test_rows_of_the_user_are_evidence_for_both() -> None:
    assert decided(refuses_made_up(lambda x: 2 * x), ROWS) == RowSharing(is_allowed=True)
    assert decided(refuses_made_up(lambda x: x - x.mean(axis=0)), ROWS) == RowSharing(
        is_allowed=False, reason="the outputs for a row depend on the rows beside it (seen with your rows)"
    )


def test_what_only_the_users_rows_show_counts() -> None:
    def model(x: np.ndarray) -> np.ndarray:
        return x - x.mean(axis=0) if (x == 42).any() else x

    assert decided(model).is_allowed
    assert not decided(model, np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 42]], np.float32)).is_allowed


def test_copies_of_one_row_are_no_evidence() -> None:
    found = decided(refuses_made_up(lambda x: x), ROWS[:1])

    assert not found.is_allowed
    assert "two or more different rows are needed" in found.reason


VALUES = {b"Rome": 2.0, b"Oslo": 3.0, b"Bern": 5.0}
"""A table that made-up text is not in."""


def looked_up(text: np.ndarray) -> np.ndarray:
    """The values of some texts, all others have one value."""
    return np.array([VALUES.get(one, 1.0) for one in text.ravel()], np.float32).reshape(text.shape)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: looked_up(x) / looked_up(x).max(),
        lambda x: looked_up(x) - looked_up(x).mean(),
        lambda x: (looked_up(x) >= looked_up(x).max()).astype(np.int32),
        looked_up,
    ],
    ids=["share of the largest", "mean", "is the largest", "independent"],
)
def test_rows_that_all_have_the_same_outputs_are_no_evidence(model: Model) -> None:
    found = decided(model, spec=signature("string", (None,)))

    assert "input x makes no difference" in found.reason
    assert "--check VAR" in found.reason
    assert decided(model, np.array([b"Rome", b"Oslo"], object), spec=signature("string", (None,))).is_allowed == (
        model is looked_up
    )


def as_numbers(text: np.ndarray) -> np.ndarray:
    """Numbers written as text."""
    try:
        return np.array([float(one) for one in text], np.float32)
    except ValueError as error:
        raise RunRejected(str(error)) from error


def test_text_that_models_read_as_numbers_is_tried() -> None:
    spec = signature("string", (None,))

    assert decided(as_numbers, spec=spec).is_allowed
    assert not decided(lambda x: as_numbers(x) / as_numbers(x).max(), spec=spec).is_allowed


def test_one_row_of_text_or_whole_numbers_beside_smaller_ones_is_no_evidence() -> None:
    def words(x: np.ndarray) -> np.ndarray:
        if not all(text.isalpha() or not text for text in x):
            raise RunRejected("no word")
        return np.array([len(text) for text in x], np.float32)

    found = decided(
        lambda x: words(x) / words(x).max(), np.array([b"summer"], object), spec=signature("string", (None,))
    )
    assert not found.is_allowed
    found = decided(lambda x: embedded(x).argmax(axis=1) / x.max(), np.array([[9, 9]]), spec=signature("int64"))
    assert not found.is_allowed


def test_small_whole_numbers_are_tried_where_a_model_takes_no_others() -> None:
    spec = signature("int32", (None, 6))

    def kinds(x: np.ndarray) -> np.ndarray:
        if not ((x == 0) | (x == 1)).all():
            raise RunRejected("indices out of range")
        return x.mean(axis=1)

    assert decided(kinds, spec=spec).is_allowed
    assert not decided(lambda x: kinds(x) - kinds(x).mean(), spec=spec).is_allowed


@pytest.mark.parametrize(
    ("city", "is_allowed"), [((b"Rome", b"Oslo"), True), ((b"Rome", b"Rome"), True), ((b"Kiel", b"Bonn"), False)]
)
def test_each_input_has_to_make_a_difference(city: tuple[bytes, bytes], *, is_allowed: bool) -> None:
    spec = SignatureSpec(
        "serving_default",
        {"age": TensorSpec("age", "float32", (None,)), "city": TensorSpec("city", "string", (None,))},
        {"y": TensorSpec("y", "float32", (None,))},
    )

    def run(inputs: Tensors) -> Tensors:
        return {"y": inputs["age"] + looked_up(inputs["city"])}

    rows = {"age": np.array([7, 8], np.float32), "city": np.array(city, object)}
    made = [Evidence(rows, MADE_UP) for rows in made_up(spec)]

    assert "input city makes no difference" in decide(run, spec, made, SIZES).reason
    assert decide(run, spec, [Evidence(rows, "your rows"), *made], SIZES).is_allowed is is_allowed


def test_a_model_that_changes_from_run_to_run_runs_alone() -> None:
    random = np.random.default_rng(0)

    assert "change from run to run" in decided(lambda x: x + random.normal(size=x.shape)).reason


def test_outputs_that_are_all_nan_are_no_evidence() -> None:
    assert not decided(lambda x: x * np.nan).is_allowed


def test_text_of_different_lengths_runs_alone() -> None:
    def widths(x: np.ndarray) -> np.ndarray:
        words = [text.split() for text in x]
        longest = max(map(len, words))
        return np.array([[len(word) for word in line] + [0] * (longest - len(line)) for line in words], np.float32)

    spec = signature("string", (None,))
    assert not decided(widths, spec=spec).is_allowed
    assert decided(lambda x: np.array([[len(text), 1] for text in x], np.float32), spec=spec).is_allowed


def test_dimensions_that_count_no_rows_are_named() -> None:
    found = decided(lambda x: x, spec=signature(shape=(3, 2)))

    assert found.reason == "input x (float32[3, 2]) does not count rows in its first dimension"


def test_notes_of_an_earlier_check_are_evidence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = refuses_made_up(lambda x: x - x.mean(axis=0))
    noted = noted_from(lambda inputs: {"y": model(inputs["x"])}, signature(), {"x": ROWS}, SIZES)
    assert noted is not None
    note_rows(tmp_path, {"serving_default": noted})

    assert read_noted_rows(tmp_path) == {"serving_default": noted}
    assert "seen with the rows of --check" in decided(model, noted=noted).reason
    assert decided(refuses_made_up(lambda x: x), noted=NotedRows(are_independent=True)).is_allowed
    assert not decided(lambda x: x[::-1], noted=NotedRows(are_independent=True)).is_allowed, "made-up rows show it"

    with caplog.at_level(logging.ERROR):
        (tmp_path / EVIDENCE_FILE).write_text("[]")
        assert read_noted_rows(tmp_path) == {}
    assert read_noted_rows(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("model", "is_ignored"),
    [
        (lambda x: x.max(axis=1, keepdims=True), True),
        (lambda x: x.sum(axis=1, keepdims=True), False),
        (lambda x: x, False),
        (refuses_made_up(lambda x: x.max(axis=1, keepdims=True)), False),
    ],
    ids=["largest", "sum", "as long as the input", "no evidence"],
)
def test_inputs_are_filled_up_only_where_that_changes_no_answer(model: Model, *, is_ignored: bool) -> None:
    spec = signature(shape=(None, None))
    evidence = [Evidence(made, MADE_UP) for made in made_up(spec)]

    assert ignores_added_length(lambda inputs: {"y": model(inputs["x"])}, spec, evidence) is is_ignored
