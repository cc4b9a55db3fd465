"""A version holds each variable of its model once, whatever the model is, and answers as the live model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.layers import Noise
from helpers.model_case import Case

import tfserve_nb
from tfserve_nb.export.graph.effects import effects_of
from tfserve_nb.export.graph.live import live_outputs
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_meta_graph
from tfserve_nb.export.source import prepare_source
from tfserve_nb.export.weights import Weights
from tfserve_nb.serving.engines.saved_model.session import SavedModelServable

layers = keras.layers
X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
WORDS = np.array([[b"red"], [b"blue"], [b"pink"], [b"red"]], dtype=object)
SPEC = tf.TensorSpec([None, 3], tf.float32, name="x")

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of tf_keras
]


def sequential(*stack: Any, **given: Any) -> Any:
    return keras.Sequential([keras.Input(**({"shape": (3,)} | given), name="x"), *stack])


def trained() -> Case:
    model = sequential(layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(2))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, np.ones((4, 2)), verbose=0)
    return Case(model, (X,))


def shared_and_nested() -> Case:
    inner, twice = sequential(layers.Dense(3), layers.BatchNormalization()), layers.Dense(3)
    x = keras.Input((3,), name="x")
    return Case(keras.Model(x, twice(inner(twice(x)))), (X,))


class Subclassed(keras.Model):  # type: ignore[misc]
    """Has a variable that Keras does not know, and a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.spare = layers.Dense(2), layers.Dense(5)
        self.spare.build((None, 3))
        self.factor = tf.Variable(2.0, trainable=False)

    def call(self, x: Any) -> Any:
        return self.dense(x) * self.factor


def subclassed() -> Case:
    model = Subclassed()
    model(X)
    return Case(model, (X,), more=(model.factor,))


def tables() -> Case:
    text = layers.TextVectorization(output_mode="multi_hot")
    text.adapt(["red blue", "red pink"])
    look_up = layers.StringLookup(output_mode="multi_hot")
    look_up.adapt(WORDS)
    bins = layers.Discretization(num_bins=3, output_mode="one_hot")
    bins.adapt(X)
    numbers = layers.IntegerLookup(vocabulary=[3, 4], output_mode="one_hot")
    word, number, x = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64"), keras.Input((1,))
    hashed = layers.Hashing(4, output_mode="one_hot")(word)
    parts = [layers.Flatten()(text(word)), look_up(word), hashed, numbers(number), bins(x)]
    model = keras.Model([word, number, x], layers.Dense(2)(layers.Concatenate()(parts)))
    return Case(model, (WORDS, np.array([[3], [4], [9], [3]]), X[:, :1]))


def table_of_a_file() -> Case:
    Path("words.txt").write_text("red\nblue\n")
    look_up = layers.StringLookup(vocabulary="words.txt", output_mode="multi_hot")
    return Case(sequential(look_up, layers.Dense(2), shape=(1,), dtype="string"), (WORDS,))


class Changing(keras.Model):  # type: ignore[misc]
    """Looks up in a table that can be written to."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)
        self.table.insert([1, 2], [3.0, 4.0])
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(tf.reshape(self.table.lookup(tf.cast(x, tf.int64)), [-1, 3]))


def mutable_table() -> Case:
    model = Changing()
    model(np.ones((2, 3), np.float32))
    return Case(model, (np.float32([[1, 2, 3]]),))


def stateful_lstm() -> Case:
    lstm = layers.LSTM(3, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(4, 2, 3)), lstm, layers.Dense(1)])
    return Case(model, (np.stack([X, X], axis=1),), tuple(lstm.states))


def quantized() -> Case:
    model = sequential(layers.Dense(8), layers.Dense(2))
    model.quantize("int8", filters=lambda layer: isinstance(layer, layers.Dense))
    return Case(model, (X,))


def adapted() -> Case:
    model = sequential(layers.Dense(8), layers.Dense(2))
    model.layers[0].enable_lora(2)
    return Case(model, (X,))


def of_several_devices() -> Case:
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        return Case(sequential(layers.Dense(4), layers.BatchNormalization()), (X,))


class Module(tf.Module):
    """Has a variable of its own and a Keras model."""

    def __init__(self) -> None:  # pylint: disable=super-init-not-called
        self.own = tf.Variable(tf.ones((3, 2)))
        self.model = sequential(layers.Dense(2))

    @tf.function(input_signature=[SPEC])
    def __call__(self, x: Any) -> Any:
        """Both."""
        return x @ self.own + self.model(x)


def module() -> Case:
    model = Module()
    return Case(model, (X,), more=tuple(model.model.variables))


def function() -> Case:
    model, own = sequential(layers.Dense(2)), tf.Variable(tf.ones((3, 2)))

    @tf.function(input_signature=[SPEC])
    def both(x: Any) -> Any:
        return x @ own + model(x)

    return Case(both, (X,), more=(own, *model.variables))


def of_tf_keras() -> Case:
    import tf_keras

    stack = [tf_keras.Input((3,)), tf_keras.layers.Dense(4), tf_keras.layers.BatchNormalization()]
    return Case(tf_keras.Sequential(stack), (X,))


def of_another_version() -> Case:
    first = export_version(trained().model, "first", "model").path
    loaded = layers.TFSMLayer(str(first), call_endpoint="serving_default")
    x = keras.Input((3,), name="x")
    return Case(keras.Model(x, layers.Dense(2)(loaded(x)["output_0"])), (X,))


CASES: dict[str, Callable[[], Case]] = {
    "trained": trained,
    "shared and nested": shared_and_nested,
    "subclassed": subclassed,
    "tables": tables,
    "table of a file": table_of_a_file,
    "mutable table": mutable_table,
    "seed generator": lambda: Case(sequential(Noise(), layers.Dense(2)), (X,)),
    "stateful LSTM": stateful_lstm,
    "int8": quantized,
    "LoRA": adapted,
    "mixed precision": lambda: Case(
        sequential(layers.Dense(4, dtype="mixed_float16"), layers.BatchNormalization(), layers.Dense(2)), (X,)
    ),
    "several devices": of_several_devices,
    "module": module,
    "function": function,
    "tf_keras": of_tf_keras,
    "another version": of_another_version,
}


def kinds(variables: Any) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and types, sorted."""
    return sorted((tuple(one.shape), tf.as_dtype(one.dtype).name) for one in variables)


@pytest.mark.parametrize("name", CASES)
def test_each_variable_is_there_once_and_answers_are_those_of_the_live_model(name: str) -> None:
    case = CASES[name]()
    source = prepare_source(case.model, example=case.rows[0])
    rows = {spec.name: array for spec, array in zip(source.inputs, case.rows, strict=True)}
    expected = live_outputs(source, rows)

    version = export_version(source, "models", "model")

    stored = [one for key, one in Weights(version.path).variables.items() if key.endswith("VARIABLE_VALUE")]
    nodes = [node for node in read_meta_graph(version.path).graph_def.node if node.op == "VarHandleOp"]
    handles = [node for node in nodes if node.attr["dtype"].type != tf.string.as_datatype_enum]  # no paths of assets
    assert kinds(stored) == kinds(case.variables)
    assert len(handles) == len(stored)
    servable = SavedModelServable(version.path)
    answer = servable.run("serving_default", rows)
    servable.close()
    loaded = tf.saved_model.load(str(version.path))
    read = loaded.signatures["serving_default"](**{key: tf.constant(array) for key, array in rows.items()})
    for output, values in expected.items():
        np.testing.assert_allclose(answer[output], values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(read[output], values, rtol=1e-5, atol=1e-6)


def test_a_version_can_be_trained_further_where_it_is_loaded() -> None:
    model = trained().model
    path = export_version(model, "models", "model").path
    loaded = tf.saved_model.load(str(path))
    layer = layers.TFSMLayer(str(path), call_endpoint="serving_default")

    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(X)["output_0"])
    gradients = tape.gradient(total, layer.trainable_variables)
    loaded.trainable_variables[-1].assign([5.0, 6.0])

    assert kinds(layer.trainable_variables) == kinds(model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert [one.shape for one in loaded.variables] == [one.shape for one in model.variables]
    assert len(loaded.non_trainable_variables) == len(model.non_trainable_variables)
    bias = model.trainable_variables[-1].numpy()
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](x=X)["output_0"], model(X).numpy() - bias + [5.0, 6.0], rtol=1e-5
    )


def test_what_a_run_changes_has_the_name_that_it_has_in_the_model() -> None:
    model = CASES["seed generator"]().model

    version = export_version(model, "models", "model")
    (written,) = effects_of(read_meta_graph(version.path), version.path).states["serving_default"].written

    assert written.name == model.layers[0].generator.state.path


def test_versions_that_hold_variables_twice_are_served_and_compared() -> None:
    model = trained().model
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", model.__call__, input_signature=[SPEC])
    archive.write_out("before", verbose=False)
    assert len(Weights(Path("before")).variables) == 2 * len(model.variables) - 1  # no graph uses the seed of Dropout
    before = model(X).numpy()

    handle = tfserve_nb.deploy("before", "net")
    np.testing.assert_allclose(handle.predict(X), before, rtol=1e-5)
    model.layers[0].kernel.assign(2 * model.layers[0].kernel)
    tfserve_nb.deploy(model, "net")

    np.testing.assert_allclose(handle.predict(X), model(X).numpy(), rtol=1e-5)
    np.testing.assert_allclose(handle.predict(X, version=1), before, rtol=1e-5)
    changes = [(one.change, one.params_a, one.params_b) for one in handle.diff(1, 2).layers]
    assert changes == [("changed", 16, 16), ("same", 16, 16), ("same", 10, 10)]
    handle.rollback()
    np.testing.assert_allclose(handle.predict(X), before, rtol=1e-5)
