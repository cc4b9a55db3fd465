"""Versions that fail on every row: they take no traffic, whichever door they come through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf

import tfserve_nb
from tfserve_nb.errors import FailedPrecondition, RunRejected
from tfserve_nb.notebook.overview import Overview
from tfserve_nb.types import ProgressEvent

PNG = np.array([tf.io.encode_png(np.zeros((2, size, 3), np.uint8)).numpy() for size in (1, 5)], dtype=object)


pytestmark = pytest.mark.usefixtures("own_folder")


class Widths(tf.Module):
    """The widths of pictures, times a factor; fails on all that is no picture."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="png")])
    def __call__(self, png: Any) -> Any:
        width = lambda blob: tf.cast(tf.shape(tf.io.decode_png(blob))[1], tf.float32)  # noqa: E731
        return self.factor * tf.map_fn(width, png, fn_output_signature=tf.float32)


class Words(keras.layers.Layer):  # type: ignore[misc]
    """Takes ids from 100 to 102 only: none that are made up."""

    def call(self, ids: Any) -> Any:
        is_known = tf.reduce_all((ids >= 100) & (ids <= 102))
        with tf.control_dependencies([tf.debugging.assert_equal(is_known, True, "unknown word")]):
            return tf.cast(ids, tf.float32) / 100


def half_saved(folder: Path) -> Path:
    """A SavedModel written by hand that lacks the value of one of its variables."""
    v1: Any = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        kept, lost = (v1.get_variable(name, [], use_resource=True) for name in ("kept", "lost"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": x * kept + lost})
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        saver = v1.train.Saver([kept])
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, saver=saver)
        builder.save()
    return folder


def test_without_rows_that_run_it_is_refused_and_the_version_before_answers_on() -> None:
    handle = tfserve_nb.deploy(Widths(1.0), "widths", check=PNG)

    with pytest.raises(FailedPrecondition, match="version 2 of widths cannot answer: no row made from") as caught:
        tfserve_nb.deploy(Widths(2.0), "widths")

    assert caught.value.hint.startswith("give rows that it takes: --check ROWS")
    assert not Path("tfserve_models/widths/2").exists()
    np.testing.assert_array_equal(handle.predict(PNG), [1.0, 5.0])


def test_rows_that_run_or_force_give_it_the_traffic() -> None:
    handle = tfserve_nb.deploy(Widths(1.0), "widths", force=True)
    np.testing.assert_array_equal(handle.predict(PNG), [1.0, 5.0])

    tfserve_nb.deploy(Widths(2.0), "widths", warmup=PNG)
    np.testing.assert_array_equal(handle.predict(PNG), [2.0, 10.0])


def test_a_warm_up_request_that_fails_is_named() -> None:
    handle = tfserve_nb.deploy(Widths(1.0), "widths", check=PNG)

    with pytest.raises(
        RunRejected, match="request 1 of assets.extra/tf_serving_warmup_requests cannot be run: "
    ) as caught:
        tfserve_nb.deploy(Widths(2.0), "widths", check=PNG, warmup=[b"no picture"])

    assert "--warmup" in caught.value.hint
    np.testing.assert_array_equal(handle.predict(PNG), [1.0, 5.0])


def test_a_staged_one_stays_without_traffic_and_says_so() -> None:
    handle = tfserve_nb.deploy(Widths(1.0), "widths", check=PNG)
    said: list[ProgressEvent] = []
    tfserve_nb.deploy(Widths(2.0), "widths", stage=True, progress=said.append)

    assert "loaded without traffic, since no row that was tried could be run" in said[-1].detail
    with pytest.raises(FailedPrecondition, match="version 2 of widths cannot answer"):
        handle.promote(2)
    url = handle.rest_url.partition("/v1/")[0]
    answer = requests.post(
        f"{url}/tfserve/v1/models/widths/promote",
        json={"version": 2},
        headers={"Authorization": f"Bearer {handle.token}"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert "version 2 of widths cannot answer" in answer.text
    with pytest.raises(FailedPrecondition, match="version 2 of widths cannot answer"):
        handle.set_label("stable", 2)
    with pytest.raises(FailedPrecondition, match="version 3 of widths cannot answer"):
        tfserve_nb.deploy(Widths(3.0), "widths", stage=True, label="stable")
    assert handle.labels == {}
    assert handle.traffic == {1: 100.0}
    # Who names a version gets it, with errors of its own, as TensorFlow Serving answers it.
    np.testing.assert_array_equal(handle.predict(PNG, version=2), [2.0, 10.0])
    assert "cannot answer" in " ".join(repr(Overview((handle,))).split())
    handle.set_label("stable", 1)


class Broken(tf.Module):
    """A trained model whose weights have become NaN; what it counts is right."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = tf.Variable(weight)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        return {"y": x * self.weight, "count": tf.cast(x, tf.int32)}


def test_answers_of_nothing_but_nan_are_told() -> None:
    said: list[ProgressEvent] = []
    tfserve_nb.deploy(Broken(2.0), "broken")
    handle = tfserve_nb.deploy(Broken(float("nan")), "broken", progress=said.append)

    note = "nothing but NaN was in y for all rows that were tried: look for NaN in its weights"
    first, second = sorted(handle.status().versions, key=lambda one: one.version)
    assert not first.notes
    assert any(line.startswith(note) for line in second.notes)
    assert any(note in event.detail for event in said)
    assert note in " ".join(repr(Overview((handle,))).split())
    assert handle.traffic == {2: 100.0}  # NaN may be the right answer


def test_an_epoch_that_cannot_answer_is_told_and_not_promoted() -> None:
    ids = np.array([[100, 101], [102, 100]])
    model = keras.Sequential([keras.Input((2,), dtype="int32"), Words(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = tfserve_nb.DeployCallback("words", promote_if="loss")

    with pytest.warns(RuntimeWarning, match="without traffic, since no row|cannot answer") as told:
        model.fit(ids, np.ones(2), epochs=1, verbose=0, callbacks=[callback])
    assert any("check=ROWS" in str(one.message) for one in told)
    handle = tfserve_nb.deployment("words")
    assert handle.version is None

    callback = tfserve_nb.DeployCallback("words", promote_if="loss", check=ids, strict=True)
    model.fit(ids, np.ones(2), epochs=1, verbose=0, callbacks=[callback])
    assert handle.version == callback.versions[-1]


@pytest.mark.parametrize("rows", [{}, {"check": np.ones(2, np.float32)}], ids=["made-up rows", "own rows"])
def test_what_no_rows_cure_is_refused(rows: dict[str, Any]) -> None:
    folder = half_saved(Path("by_hand"))
    with pytest.raises(tfserve_nb.ServingError) as caught:
        tfserve_nb.deploy(folder, "broken", **rows)

    assert "lost" in caught.value.message
    if not rows:
        assert caught.value.hint.startswith("no rows cure that")
    assert not list(Path("tfserve_models").glob("broken/*"))

    handle = tfserve_nb.deploy(folder, "broken", force=True, **rows)
    assert handle.version == 1
