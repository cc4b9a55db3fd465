"""Models that change something when they are called: deploying leaves them alone, and they are served as exported."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.eventually import eventually
from helpers.layers import Noise

import tfserve_nb
from tfserve_nb.errors import InvalidOption
from tfserve_nb.export.source import prepare_source
from tfserve_nb.replay.report import report_of
from tfserve_nb.reports.text import to_text
from tfserve_nb.types import ProgressEvent

layers = keras.layers
X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
SPEC = [tf.TensorSpec([None, 3], tf.float32, name="x")]


pytestmark = pytest.mark.usefixtures("own_folder")


class RunningMean(layers.Layer):  # type: ignore[misc]
    """Subtracts a running mean, also when it does not train."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="running_mean")

    def call(self, x: Any) -> Any:
        self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, axis=0))
        return x - self.mean


class Judged(layers.Layer):  # type: ignore[misc]
    """Updates a metric."""

    def __init__(self) -> None:
        super().__init__()
        self.average = keras.metrics.Mean()

    def call(self, x: Any) -> Any:
        self.average.update_state(x)
        return x + self.average.result()


class Trains(keras.Model):  # type: ignore[misc]
    """Behaves as in training whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = layers.BatchNormalization(), layers.Dropout(0.5, seed=2)

    def call(self, x: Any) -> Any:
        return self.drop(self.norm(x, training=True), training=True)


class Counter(tf.Module):
    """Counts its runs in a variable, and its traces in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = tf.Variable(5.0, name="counter")
        self.num_traces, self.seen = 0, []

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        self.num_traces += 1
        self.seen.append(x)
        return x * 0 + self.count.assign_add(1.0)


class Loops(tf.Module):
    """Writes only inside of a loop and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = tf.Variable(0.0, name="in_a_loop")

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        for _ in tf.range(3):
            if tf.reduce_sum(x) > -1e6:
                self.count.assign_add(1.0)
        return x * 0 + self.count


class Draws(tf.Module):
    """Has a generator of TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = tf.random.Generator.from_seed(3)

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        return x + self.generator.normal(tf.shape(x))


class Remembers(tf.Module):
    """Counts in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
        self.table.insert(tf.constant([0], tf.int64), tf.constant([7.0]))

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        key = tf.constant([0], tf.int64)
        self.table.insert(key, self.table.lookup(key) + 1.0)
        return x * 0 + self.table.lookup(key)


class Crowds(tf.Module):
    """Counts in a table of the other kind, whose import keeps the keys that it had."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.experimental.DenseHashTable(
            tf.int64, tf.float32, 0.0, empty_key=-1, deleted_key=-2, initial_num_buckets=8
        )
        self.table.insert(tf.constant([9], tf.int64), tf.constant([7.0]))

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        key = tf.constant([0], tf.int64)
        self.table.insert(key, self.table.lookup(key) + 1.0)
        return x * 0 + self.table.lookup(key) + tf.cast(self.table.size(), tf.float32)


def sequential(*parts: Any) -> Any:
    return keras.Sequential([keras.Input((3,), name="x"), *parts])


def recurrent(layer: Any) -> Any:
    return keras.Sequential([keras.Input(batch_shape=(4, 3), name="x"), layers.Reshape((3, 1)), layer])


def called(model: Any) -> Any:
    model(X)
    return model


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "lstm": (lambda: recurrent(layers.LSTM(2, stateful=True)), "lstm"),
    "gru": (lambda: recurrent(layers.GRU(2, stateful=True)), "gru"),
    "running mean": (lambda: sequential(RunningMean()), "running_mean"),
    "seed generator": (lambda: sequential(Noise()), "seed_generator_state"),
    "metric": (lambda: sequential(Judged()), "total"),
    "in training mode": (lambda: called(Trains()), "moving_mean"),
    "counter": (Counter, "counter"),
    "loop": (Loops, "in_a_loop"),
    "generator": (Draws, "StateVar"),
    "table": (Remembers, ""),
    "dense table": (Crowds, ""),
}


def values_of(model: Any) -> list[np.ndarray]:
    """All that a model holds in variables and tables."""
    found = [variable.numpy().copy() for variable in model.variables]
    if isinstance(model, keras.Model):
        found += [variable.numpy().copy() for variable in model.metrics_variables]
        found += [one.numpy().copy() for layer in model.layers for one in layer.metrics_variables]
    if isinstance(model, Crowds):
        return [model.table.size().numpy(), model.table.lookup(tf.constant([0, 9], tf.int64)).numpy()]
    if isinstance(model, Remembers):
        found += [tensor.numpy() for tensor in model.table.export()]
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_with_state_is_left_alone_and_served_from_where_it_was(kind: str) -> None:
    make, named = MODELS[kind]
    model = make()
    before, said = values_of(model), list[str]()

    def progress(event: ProgressEvent) -> None:
        said.append(event.detail)

    handle = tfserve_nb.deploy(model, "stateful", progress=progress, max_batch_size=8)

    for value, now in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(now, value)
    (summary,) = {text for text in said if text.startswith("4 rows agree; ")}
    assert "; a run changes its own state (" in summary
    assert named in summary
    status = handle.status().versions[0]
    assert status.changes
    assert "each loaded version and each server has a state of its own" in status.notes[0]
    # Run after run, the served model answers as the live one does from the same state.
    live = tf.function(prepare_source(model).call, autograph=False)
    for _ in range(3):
        (expected,) = live(tf.constant(X)).values()
        np.testing.assert_allclose(handle.predict(X), expected, rtol=1e-5, atol=1e-6)


def test_attributes_that_tracing_moves_are_put_back() -> None:
    module = Counter()

    tfserve_nb.deploy(module, "counting")

    assert (module.num_traces, module.seen) == (0, [])


def test_requests_for_a_model_with_state_run_one_by_one_and_whole() -> None:
    handle = tfserve_nb.deploy(Counter(), "counting", max_batch_size=4)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: handle.predict(X[:1])[0, 0], range(20)))
    whole = handle.predict(np.zeros((50, 3), np.float32))

    assert sorted(answers) == list(range(6, 26))
    assert set(whole.ravel()) == {26.0}


def test_every_load_begins_with_the_exported_state() -> None:
    handle = tfserve_nb.deploy(Counter(), "counting")
    module = Counter()
    module.count.assign(100.0)
    tfserve_nb.deploy(module, "counting", stage=True, warmup=X)
    assert handle.predict(X[:1])[0, 0] == 6.0

    handle.promote(2)
    assert [handle.predict(X[:1])[0, 0] for _ in range(2)] == [101.0, 102.0]
    assert handle.predict(X[:1], version=1)[0, 0] == 7.0

    tfserve_nb.shutdown()
    tfserve_nb.resume("tfserve_models")
    assert tfserve_nb.deployment("counting").predict(X[:1])[0, 0] == 101.0


def test_copies_and_replays_that_would_move_a_version_are_refused() -> None:
    handle = tfserve_nb.deploy(sequential(layers.Rescaling(2.0)), "net")
    handle.capture()
    handle.predict(X)

    with pytest.raises(InvalidOption, match="cannot get copies of requests: a run changes its own state .counter"):
        tfserve_nb.deploy(Counter(), "net", shadow=50)
    assert handle.versions == (1,)
    tfserve_nb.deploy(Counter(), "net", stage=True)
    staged = handle.versions[-1]
    with pytest.raises(InvalidOption, match="cannot get copies of requests"):
        handle.shadow(staged)
    with pytest.raises(InvalidOption, match=f"nothing can be replayed onto version {staged} of net: a run changes"):
        handle.replay(staged)
    for a, b in ((1, staged), (staged, 1)):  # both get copies of each other's requests
        with pytest.raises(InvalidOption, match=f"without copies only: version {staged} cannot get copies") as caught:
            handle.ab_test(a, b, split=0 if b == staged else 50)
        assert "--shadow 0" in caught.value.hint
        assert handle.traffic == {1: 100.0}
    np.testing.assert_array_equal(handle.predict(X), 2 * X)
    assert handle.predict(X[:1], version=staged)[0, 0] == 6.0
    handle.ab_test(1, staged, shadow=0)
    handle.end_experiment("stop")
    with pytest.raises(InvalidOption, match="made-up rows are not sent to .*: a run changes its own state .counter"):
        handle.benchmark(version=staged, seconds=0.2)


class Dice(tf.Module):
    """Adds noise from an op that holds its own generator."""

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        return x + tf.random.normal(tf.shape(x))


def test_answers_that_differ_by_themselves_are_not_compared() -> None:
    handle = tfserve_nb.deploy(Dice(), "dice")
    handle.capture()
    for _ in range(20):
        handle.predict(X)
    tfserve_nb.deploy(Dice(), "dice", check_replay=tfserve_nb.ReplayLimits(max_slowdown=1000))

    assert handle.status().versions[0].draws == {"serving_default": "a run draws random numbers (RandomStandardNormal)"}
    replayed = handle.replay(2, speed=10)
    verdict = dataclasses.replace(replayed, effects=()).verdict
    assert "answers 80 rows, which are not compared since answers differ each time" in str(verdict)
    assert not replayed.problems(max_slowdown=1000)
    assert "is not compared: the answers to one request differ each time" in " ".join(
        to_text(report_of(replayed)).split()
    )
    found = handle.diff(1, 2, rows=X)
    assert found.agreement["output_0"].kind == "random"
    assert not found.disagreements or not found.disagreements[0].score
    with pytest.raises(InvalidOption, match="max_disagreement counts rows that differ"):
        handle.ab_test(1, 2, max_disagreement=0.1)
    test = handle.ab_test(1, 2, shadow=100, split=50)
    for _ in range(20):
        handle.predict(X)
    eventually(lambda: test.agreement.num_rows > 0)
    assert test.agreement.share == 1.0
    assert not test.agreement.is_compared
    assert handle.diff(1, 2, rows=X, kind="regression").agreement.is_compared


class Clock(tf.Module):
    """Answers with the time."""

    @tf.function(input_signature=SPEC)
    def __call__(self, x: Any) -> Any:
        return tf.cast(x, tf.float64) + tf.math.floormod(1000 * tf.timestamp(), 1000.0)


def test_who_reads_the_clock_answers_differently_each_time() -> None:
    said: list[ProgressEvent] = []
    handle = tfserve_nb.deploy(Clock(), "clock", progress=said.append)

    status = handle.status().versions[0]
    assert status.draws == {"serving_default": "a run reads the clock (Timestamp)"}
    assert "a run reads the clock (Timestamp)" in status.notes
    assert any("draws random numbers or reads the clock: its outputs" in event.detail for event in said)
    assert handle.diff(1, 1, rows=X).agreement["output_0"].kind == "random"


def test_what_keras_computes_differently_outside_of_graphs_is_compared_as_predict_computes_it() -> None:
    model = keras.Sequential([keras.Input((9, 9, 3), dtype="uint8", name="x"), layers.Resizing(5, 5)])
    images = np.random.default_rng(0).integers(0, 255, (3, 9, 9, 3), dtype=np.uint8)

    handle = tfserve_nb.deploy(model, "small", check=images)

    np.testing.assert_array_equal(handle.predict(images), model.predict(images, verbose=0))


def fit(make: Callable[[], Any], callbacks: list[Any]) -> tuple[list[np.ndarray], list[float]]:
    """All values after a fit, and numbers drawn from each global generator after it."""
    keras.utils.set_random_seed(7)
    rows = np.random.default_rng(1).normal(size=(32, 3)).astype(np.float32)
    model = make()
    model.compile("adam", "mse")
    model.fit(rows, rows[:, :2], batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    values = [variable.numpy().copy() for variable in (*model.variables, *model.optimizer.variables)]
    return values, [random.random(), float(np.random.rand()), float(tf.random.uniform(()))]  # noqa: NPY002, S311


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(layers.Dense(4), layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(2)),
        lambda: sequential(RunningMean(), Noise(), layers.Dense(2)),
        lambda: recurrent(layers.LSTM(2, stateful=True)),
    ],
    ids=["dropout", "running mean and noise", "lstm"],
)
def test_a_fit_with_the_callback_gives_the_same_weights_and_random_numbers(make: Callable[[], Any]) -> None:
    plain_values, plain_draws = fit(make, [])

    values, draws = fit(make, [tfserve_nb.DeployCallback("net", strict=True)])

    for one, other in zip(plain_values, values, strict=True):
        np.testing.assert_array_equal(other, one)
    assert draws == plain_draws
