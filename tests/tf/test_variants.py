"""Variants of a version: the same answers within what each may lose, for every kind of model and every loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfserve_nb
from tfserve_nb.export.graph.effects import effects_of
from tfserve_nb.export.graph.live import live_outputs
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_meta_graph, read_signatures
from tfserve_nb.export.source import prepare_source
from tfserve_nb.export.variants.write import variant_of, write_variant
from tfserve_nb.serving.engines.saved_model.session import SavedModelServable

layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 16)).astype(np.float32)
IMAGES = RANDOM.normal(size=(3, 12, 12, 3)).astype(np.float32)
IDS = RANDOM.integers(0, 50, size=(4, 7)).astype(np.int32)
WORDS = np.array([[b"red"], [b"blue"], [b"pink"], [b"red"]], dtype=object)
SPEC = tf.TensorSpec([None, 16], tf.float32, name="x")

LOSES = {"float32": 0.0, "float16": 3e-3, "int8": 5e-2, "xla": 1e-5}
"""Variant -> what its answers may be off by, as a part of the largest number of the output."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tf_keras


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    keras.utils.set_random_seed(1)
    monkeypatch.chdir(tmp_path)
    yield
    tfserve_nb.shutdown()


@dataclass(frozen=True)
class Case:
    """A model and rows for its inputs in order."""

    model: Any
    rows: tuple[np.ndarray, ...] = (X,)


def dense() -> Case:
    stack = [layers.Dense(64, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(8, "softmax")]
    model = keras.Sequential([keras.Input((16,), name="x"), *stack])
    model.compile("adam", "categorical_crossentropy")
    model.fit(X, np.eye(8)[:6], verbose=0)
    return Case(model)


def convolutions() -> Case:
    stack = [
        layers.Conv2D(16, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.SeparableConv2D(32, 3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10),
    ]
    return Case(keras.Sequential([keras.Input((12, 12, 3), name="x"), *stack]), (IMAGES,))


def recurrent() -> Case:
    stack = [layers.Embedding(50, 16), layers.LSTM(16, return_sequences=True), layers.GRU(16), layers.Dense(4)]
    return Case(keras.Sequential([keras.Input((7,), dtype="int32", name="x"), *stack]), (IDS,))


def attention() -> Case:
    x = keras.Input((7,), dtype="int32", name="x")
    y = layers.Embedding(50, 32)(x)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(4, 8)(y, y))
    return Case(keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(y))), (IDS,))


def shared_and_nested() -> Case:
    twice = layers.Dense(16)
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(16), layers.BatchNormalization()])
    x = keras.Input((16,), name="x")
    return Case(keras.Model(x, twice(inner(twice(x)))))


class Tied(layers.Layer):  # type: ignore[misc]
    """A layer of the user's own: multiplies with a matrix and with its transpose."""

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 24), name="matrix")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(keras.ops.matmul(x, self.matrix), keras.ops.transpose(self.matrix))


class Subclassed(keras.Model):  # type: ignore[misc]
    """Has a variable that Keras does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = Tied()
        self.factor = tf.Variable(tf.ones((16, 16)) * 0.5, trainable=False)

    def call(self, x: Any) -> Any:
        return self.tied(x) @ self.factor


def subclassed() -> Case:
    model = Subclassed()
    model(X)
    return Case(model)


def tables() -> Case:
    word = keras.Input((1,), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=["red", "blue"])(word)
    y = layers.Flatten()(layers.Embedding(50, 16)(ids))
    return Case(keras.Model(word, layers.Dense(20)(y)), (WORDS,))


def noisy_states() -> Case:
    lstm = layers.LSTM(16, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(16, 2, 16)), lstm, layers.Dense(16)])
    return Case(model, (RANDOM.normal(size=(16, 2, 16)).astype(np.float32),))


class Module(tf.Module):
    """Has a variable of its own and a Keras model."""

    def __init__(self) -> None:  # pylint: disable=super-init-not-called
        self.own = tf.Variable(tf.random.normal((16, 24)))
        self.model = keras.Sequential([keras.Input((16,)), layers.Dense(24)])

    @tf.function(input_signature=[SPEC])
    def __call__(self, x: Any) -> Any:
        """Both."""
        return x @ self.own + self.model(x)


def function() -> Case:
    own = tf.Variable(tf.random.normal((16, 24)))

    @tf.function(input_signature=[SPEC])
    def product(x: Any) -> Any:
        return x @ own

    return Case(product)


def of_tf_keras() -> Case:
    import tf_keras

    stack = [tf_keras.Input((16,), name="x"), tf_keras.layers.Dense(64), tf_keras.layers.BatchNormalization()]
    return Case(tf_keras.Sequential(stack))


def held_twice() -> Case:
    """A folder as Keras itself writes it."""
    archive = keras.export.ExportArchive()
    model = dense().model
    archive.track(model)
    archive.add_endpoint("serving_default", model.__call__, input_signature=[SPEC])
    archive.write_out("twice", verbose=False)
    return Case("twice")


def of_tensorflow_1() -> Case:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 16], name="x")
        matrix = v1.get_variable("matrix", [16, 24], use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, "first", {"x": x}, {"y": x @ matrix})
    return Case("first")


CASES: dict[str, Callable[[], Case]] = {
    "dense": dense,
    "convolutions": convolutions,
    "recurrent": recurrent,
    "attention": attention,
    "shared and nested": shared_and_nested,
    "subclassed": subclassed,
    "tables": tables,
    "stateful": noisy_states,
    "module": lambda: Case(Module()),
    "function": function,
    "tf_keras": of_tf_keras,
    "held twice": held_twice,
    "TensorFlow 1": of_tensorflow_1,
}

NOT_COMPILED = {"tables", "TensorFlow 1"}
"""What XLA cannot compile: text, and graphs without functions."""


def exported(case: Case) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A plain version of a model, rows for it, and its answers for them."""
    source = prepare_source(case.model, example=None if isinstance(case.model, str) else case.rows[0])
    path = export_version(source, "models", "model").path
    (signature,) = read_signatures(path).values()
    names = [spec.name for spec in source.inputs] or list(signature.inputs)
    rows = dict(zip(names, case.rows, strict=True))
    expected = live_outputs(source, rows) if source.call else run_session(path, rows)
    return path, rows, expected


def run_session(path: Path, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As TensorFlow Serving does: a session that runs the restore and the init op."""
    servable = SavedModelServable(path)
    try:
        return dict(servable.run("serving_default", rows))
    finally:
        servable.close()


def run_loaded(path: Path, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As TensorFlow's own loader for Python does."""
    loaded = tf.saved_model.load(str(path))
    found = loaded.signatures["serving_default"](**{name: tf.constant(array) for name, array in rows.items()})
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("variant", LOSES)
@pytest.mark.parametrize("name", CASES)
def test_each_loader_answers_as_the_live_model_within_what_the_variant_loses(name: str, variant: str) -> None:
    if variant == "xla" and name in NOT_COMPILED:
        pytest.skip("XLA cannot compile it")
    path, rows, expected = exported(CASES[name]())

    written = write_variant(variant, path, Path("variant"))

    assert variant_of(written.path) == variant
    for run in (run_session, run_loaded):
        found = run(written.path, rows)
        assert found.keys() == expected.keys()
        for output, values in expected.items():
            allowed = LOSES[variant] * np.abs(values).max() + 1e-6
            np.testing.assert_allclose(found[output], values, rtol=1e-5, atol=allowed)
    if name != "stateful":
        assert effects_of(read_meta_graph(written.path), written.path).notes == ()
    assert read_signatures(written.path) == read_signatures(path)
