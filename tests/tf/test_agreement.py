"""Replay, A/B test and diff of real models: one rule, the same numbers for the same rows, and those that docs/ say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers.eventually import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfserve_nb
from tfserve_nb.agreement.kinds import Evidence
from tfserve_nb.agreement.result import Agreement
from tfserve_nb.errors import InvalidOption

ROWS = np.random.default_rng(3).normal(size=(120, 4)).astype(np.float32)
KERNEL = np.random.default_rng(4).normal(size=(4, 2)).astype(np.float32)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PLUS = keras.layers.Rescaling


pytestmark = pytest.mark.usefixtures("own_folder")


def dense(kernel: np.ndarray, activation: str | None, loss: Any, *more: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(kernel.shape[1], activation), *more])
    if loss is not None:
        model.compile("adam", loss)
    model.layers[0].set_weights([kernel, np.zeros(kernel.shape[1], np.float32)])
    return model


def three_ways(handle: Any, sizes: list[int], **options: Any) -> tuple[Agreement, Agreement, Agreement]:
    """What replay, A/B test and diff say of versions 1 and 2, for the same rows in requests of these sizes."""
    num = sum(sizes)
    handle.clear_captured()
    handle.capture()
    test = handle.ab_test(1, 2, split=0, shadow=100, auto_rollback=False, **options)
    first = 0
    for size in sizes:
        handle.predict(ROWS[first : first + size])
        first += size
        eventually(lambda seen=first: test.agreement.num_rows == seen)  # type: ignore[misc]
    found = test.agreement
    test.stop()
    replayed = handle.replay(onto=2, speed=100, **options).agreement
    return found, replayed, handle.diff(1, 2, rows=ROWS[:num], **options).agreement


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, found in one.items():
        known = other[name]
        assert (found.kind, found.reason, found.num_rows, found.num_same, found.share) == (
            known.kind, known.reason, known.num_rows, known.num_same, known.share,
        )  # fmt: skip
        assert found.flips == known.flips
        assert found.largest_difference == pytest.approx(known.largest_difference, rel=1e-4, abs=1e-6)
        assert found.bias == pytest.approx(known.bias, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "kind", "low", "high"),
    [
        (dense(KERNEL, None, "mse"), dense(2 * KERNEL, None, "mse"), "regression", 0.0, 0.0),
        (dense(KERNEL, None, "mse"), dense(KERNEL * 1.0001, None, "mse"), "regression", 1.0, 1.0),
        (dense(KERNEL, None, LOGITS), dense(KERNEL + 0.01, None, LOGITS, PLUS([1.01, 1.0])), "scores", 0.9, 1.0),
        (dense(KERNEL, None, None), dense(KERNEL + 0.01, None, None), "regression", 0.0, 0.1),
        (dense(KERNEL[:, :1], "sigmoid", "binary_crossentropy"),
         dense(KERNEL[:, :1], "sigmoid", "binary_crossentropy", PLUS(1.0, 0.01)), "class shares", 0.95, 1.0),
        (dense(KERNEL[:, :1], "sigmoid", "mse"), dense(KERNEL[:, :1], "sigmoid", "mse", PLUS(1.0, 0.01)),
         "regression", 0.0, 0.0),
        (dense(KERNEL, "softmax", None), dense(1.1 * KERNEL, "softmax", None), "class shares", 1.0, 1.0),
    ],
    ids=["doubled", "relative error", "logits", "no provenance", "sigmoid", "regression in 0 to 1", "softmax"],
)  # fmt: skip
def test_all_three_say_what_the_documents_say(a: Any, b: Any, kind: str, low: float, high: float) -> None:
    handle = tfserve_nb.deploy(a, "net")
    tfserve_nb.deploy(b, "net", stage=True)

    by_test, by_replay, by_diff = three_ways(handle, [60, 40, 20])

    found = by_diff["output_0"]
    assert (found.kind, found.num_rows) == (kind, 120)
    assert low <= found.share <= high
    same(by_test, by_diff)
    same(by_replay, by_diff)


def test_it_does_not_matter_how_rows_come() -> None:
    inputs = keras.Input((4,))
    price = keras.layers.Dense(2, name="price")(inputs)
    digit = keras.layers.Dense(3, activation="softmax", name="digit")(inputs)
    model = keras.Model(inputs, {"price": price, "digit": digit})
    model.compile("adam", {"price": "mse", "digit": "categorical_crossentropy"})
    handle = tfserve_nb.deploy(model, "net")
    model.set_weights([weight * 1.001 + 0.0005 for weight in model.get_weights()])
    tfserve_nb.deploy(model, "net", stage=True)

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.sampled_from([None, 0.01]))
    def check(sizes: list[int], tolerance: float | None) -> None:
        by_test, by_replay, by_diff = three_ways(handle, sizes, tolerance=tolerance)
        assert set(by_diff) == {"price", "digit"}
        assert (by_diff["price"].kind, by_diff["digit"].kind) == ("regression", "class shares")
        same(by_test, by_diff)
        same(by_replay, by_diff)
        assert by_test.num_same == by_replay.num_same == by_diff.num_same

    check()


def test_a_version_says_what_its_outputs_are() -> None:
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    outputs = {
        "digit": inner(inputs),
        "spam": keras.layers.Dropout(0.5)(keras.layers.Dense(1, activation="sigmoid")(inputs)),
        "score": keras.layers.Dense(2)(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"digit": "categorical_crossentropy", "spam": "mse", "score": LOGITS})

    handle = tfserve_nb.deploy(model, "net")

    assert handle.provenance(1).outputs == {
        "digit": Evidence("softmax", "categorical_crossentropy"),
        "spam": Evidence("sigmoid", "mean_squared_error"),
        "score": Evidence("linear", "sparse_categorical_crossentropy", from_logits=True),
    }


def test_what_the_user_says_holds_everywhere_and_is_checked() -> None:
    handle = tfserve_nb.deploy(dense(KERNEL, None, None), "net")
    tfserve_nb.deploy(dense(2 * KERNEL, None, None), "net", stage=True)

    for found in three_ways(handle, [30], kind="classification"):
        assert (found["output_0"].kind, found["output_0"].share) == ("scores", 1.0)
    for call in (
        lambda: handle.diff(1, 2, kind="classes"),
        lambda: handle.replay(onto=2, kind="classes"),
        lambda: handle.ab_test(1, 2, kind="classes"),
        lambda: tfserve_nb.deploy(dense(KERNEL, None, None), "net", check_replay=True, kind="classes"),
        lambda: tfserve_nb.deploy(dense(KERNEL, None, None), "net", kind="regression"),
    ):
        with pytest.raises(InvalidOption, match="kind"):
            call()
