"""Every kind of model makes the round trip: exported, read back by TensorFlow, and equal to the live model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import ModelNotServable
from tfserve_nb.export.check import CheckReport, verify_against_live
from tfserve_nb.export.graph.live import live_outputs
from tfserve_nb.export.saved_model import ExportedVersion, export_version
from tfserve_nb.export.signatures import read_signatures
from tfserve_nb.export.source import prepare_source
from tfserve_nb.types import DEFAULT_SIGNATURE, ProgressEvent, TensorSpec

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

layers = keras.layers
Batch = dict[str, np.ndarray]


def load_and_run(path: Path, signature: str, inputs: Any) -> Batch:
    """Run one signature of a SavedModel as any reader in Python would."""
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures[signature](**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., ExportedVersion]:
    """Export, verify, and return the version; `reports` on the fixture collects what the checks found."""

    def run(model: object, example: object = None, **options: Any) -> ExportedVersion:
        source = prepare_source(model, example=example)

        def verify(path: Path) -> None:
            reports.append(verify_against_live(source, path, load_and_run, example))

        return export_version(source, tmp_path / "models", "model", verify=verify, **options)

    reports: list[CheckReport] = []
    run.reports = reports  # type: ignore[attr-defined]
    return run


def inputs_of(version: ExportedVersion) -> dict[str, str]:
    return {name: str(spec) for name, spec in read_signatures(version.path)[DEFAULT_SIGNATURE].inputs.items()}


def outputs_of(version: ExportedVersion) -> dict[str, str]:
    return {name: str(spec) for name, spec in read_signatures(version.path)[DEFAULT_SIGNATURE].outputs.items()}


def served(version: ExportedVersion, **inputs: Any) -> Batch:
    return load_and_run(version.path, DEFAULT_SIGNATURE, {name: np.asarray(value) for name, value in inputs.items()})


def assert_checked(export: Any, num_rows: int = 4) -> None:
    """The last export was compared with the live model, and found equal."""
    report = export.reports[-1]
    assert report.skipped_reason == ""
    assert report.num_rows == num_rows
    assert report.max_difference is not None
    assert report.max_difference < 1e-4


def two_inputs() -> tuple[Any, Any]:
    return keras.Input((3,), name="left"), keras.Input((2,), name="right")


# ---------------------------------------------------------------- sequential and functional models


def test_a_sequential_model_answers_what_it_answers_live(export: Any, rng: np.random.Generator) -> None:
    model = keras.Sequential([keras.Input((64,)), layers.Dense(16, activation="relu"), layers.Dense(10)])
    x = rng.standard_normal((5, 64)).astype(np.float32)

    version = export(model)

    assert version.version == 1
    assert version.path.name == "1"
    assert inputs_of(version) == {"inputs": "float32[?, 64]"}
    assert outputs_of(version) == {"output_0": "float32[?, 10]"}
    np.testing.assert_allclose(served(version, inputs=x)["output_0"], model(x, training=False), rtol=1e-5, atol=1e-6)
    assert_checked(export)


def test_versions_count_up_and_say_what_was_written(export: Any) -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])

    first, second, ninth = export(model), export(model), export(model, version=9)

    assert [first.version, second.version, ninth.version, export(model).version] == [1, 2, 9, 10]
    assert export(model, above=40).version == 41
    files = [path for path in first.path.rglob("*") if path.is_file()]
    assert first.num_bytes == sum(path.stat().st_size for path in files)
    assert first.seconds > 0
    assert (first.path.stat().st_mode & 0o777) == 0o777 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_names_of_inputs_are_those_of_keras_input(export: Any) -> None:
    model = keras.Sequential([keras.Input((4,), name="pixels"), layers.Dense(3, name="scores")])

    version = export(model)

    assert inputs_of(version) == {"pixels": "float32[?, 4]"}
    assert outputs_of(version) == {"output_0": "float32[?, 3]"}


def test_several_named_inputs_and_outputs(export: Any, rng: np.random.Generator) -> None:
    left, right = two_inputs()
    both = layers.concatenate([left, right])
    model = keras.Model([left, right], [layers.Dense(2, name="price")(both), layers.Dense(1, name="risk")(left)])
    a, b = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((4, 2)).astype(np.float32)

    version = export(model)

    assert inputs_of(version) == {"left": "float32[?, 3]", "right": "float32[?, 2]"}
    assert outputs_of(version) == {"price": "float32[?, 2]", "risk": "float32[?, 1]"}
    price, risk = model([a, b], training=False)
    answer = served(version, left=a, right=b)
    np.testing.assert_allclose(answer["price"], price, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer["risk"], risk, rtol=1e-5, atol=1e-6)


def test_names_in_the_file_are_the_same_as_in_our_reading_of_it(export: Any) -> None:
    left, right = two_inputs()
    version = export(keras.Model({"left": left, "right": right}, layers.Dense(2)(layers.concatenate([left, right]))))
    loaded = tf.saved_model.load(str(version.path)).signatures[DEFAULT_SIGNATURE]

    assert set(loaded.structured_input_signature[1]) == {"left", "right"}
    assert set(loaded.structured_outputs) == {"output_0"}
    assert list(read_signatures(version.path)) == [DEFAULT_SIGNATURE]


def test_keys_of_a_dict_of_outputs_are_kept(export: Any) -> None:
    left, _ = two_inputs()
    version = export(keras.Model(left, {"y": layers.Dense(2)(left), "x": layers.Dense(1)(left)}))

    assert outputs_of(version) == {"x": "float32[?, 1]", "y": "float32[?, 2]"}


def test_names_that_keras_made_up_do_not_reach_clients(export: Any) -> None:
    a, b = keras.Input((3,)), keras.Input((2,))
    version = export(keras.Model([a, b], [layers.Dense(1)(a), layers.Dense(1, name="mine")(b)]))

    assert inputs_of(version) == {"inputs_0": "float32[?, 3]", "inputs_1": "float32[?, 2]"}
    assert outputs_of(version) == {"mine": "float32[?, 1]", "output_0": "float32[?, 1]"}


def test_nested_inputs_and_outputs_become_flat(export: Any) -> None:
    left, right = two_inputs()
    both = layers.concatenate([left, right])
    version = export(keras.Model([left, {"right": right}], {"a": layers.Dense(2)(both), "b": [left, right]}))

    assert inputs_of(version) == {"left": "float32[?, 3]", "right": "float32[?, 2]"}
    assert outputs_of(version) == {"a": "float32[?, 2]", "b_0": "float32[?, 3]", "b_1": "float32[?, 2]"}
    assert_checked(export)


def test_names_that_tensorflow_would_mangle_are_kept(export: Any, rng: np.random.Generator) -> None:
    names = ["sepal length (cm)", "Age", "age", "class", "2nd", "größe"]
    inputs = [keras.Input((1,), name=name) for name in names]
    model = keras.Model(inputs, layers.Dense(1)(layers.concatenate(inputs)))
    rows = {name: rng.standard_normal((3, 1)).astype(np.float32) for name in names}

    version = export(model)

    assert set(inputs_of(version)) == set(names)
    answer = served(version, **rows)["output_0"]
    np.testing.assert_allclose(answer, model([rows[name] for name in names]), rtol=1e-5, atol=1e-6)
    assert_checked(export)


def test_the_batch_dimension_is_free_even_if_the_model_fixed_it(export: Any) -> None:
    x = keras.Input(batch_shape=(8, 3), name="x")

    assert inputs_of(export(keras.Model(x, layers.Dense(1)(x)))) == {"x": "float32[?, 3]"}


def test_unknown_sizes_stay_unknown_and_are_checked_with_some_size(export: Any) -> None:
    image = keras.Input((None, None, 3), name="image")
    small = layers.Conv2D(4, 7, strides=2)(layers.Conv2D(4, 3, strides=2)(image))

    version = export(keras.Model(image, layers.GlobalAveragePooling2D()(small)))

    assert inputs_of(version) == {"image": "float32[?, ?, ?, 3]"}
    assert_checked(export)


def test_dropout_is_off(export: Any) -> None:
    model = keras.Sequential([keras.Input((1000,)), layers.Dropout(0.5), layers.GaussianNoise(1.0)])
    x = np.ones((2, 1000), np.float32)

    np.testing.assert_array_equal(served(export(model), inputs=x)["output_0"], x)


def test_batch_normalisation_uses_what_it_learned(export: Any, rng: np.random.Generator) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()])
    model.compile("sgd", "mse")
    x = rng.normal(5.0, 3.0, (64, 3)).astype(np.float32)
    model.fit(x, x, epochs=2, verbose=0)

    version = export(model)

    np.testing.assert_allclose(served(version, inputs=x)["output_0"], model(x, training=False), rtol=1e-5, atol=1e-5)
    assert_checked(export)


def test_training_on_does_not_change_what_was_exported(export: Any) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
    version = export(model)

    model.layers[0].kernel.assign(tf.zeros((3, 1)))

    assert served(version, inputs=np.ones((1, 3), np.float32))["output_0"].tolist() == [[3.0]]


def test_a_model_in_mixed_precision_is_checked_with_the_tolerance_that_it_needs(export: Any) -> None:
    dense = layers.Dense(64, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((256,)), dense, layers.Dense(3, dtype="float32")])

    assert prepare_source(model).coarsest_dtype == "float16"
    assert outputs_of(export(model)) == {"output_0": "float32[?, 3]"}
    assert export.reports[-1].skipped_reason == ""


# ---------------------------------------------------------------- text


def test_text_vectorization_survives_moving_the_folder(export: Any, tmp_path: Path) -> None:
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(["the red fox", "the blue sea"])
    model = keras.Sequential(
        [keras.Input((), dtype="string", name="text"), vectorize, layers.Embedding(10, 3), layers.Flatten()]
    )
    text = np.array([b"the red sea", b"nothing known"], dtype=object)
    expected = model(tf.constant(text), training=False).numpy()

    version = export(model)
    assert inputs_of(version) == {"text": "string[?]"}
    moved = tmp_path / "elsewhere"
    shutil.move(version.path, moved)

    np.testing.assert_allclose(load_and_run(moved, DEFAULT_SIGNATURE, {"text": text})["output_0"], expected, rtol=1e-6)
    assert_checked(export)


def test_string_lookup_with_a_vocabulary_file_survives_moving_the_folder(export: Any, tmp_path: Path) -> None:
    vocabulary = tmp_path / "colours.txt"
    vocabulary.write_text("red\ngreen\nblue\n")
    colour, amount = keras.Input((1,), dtype="string", name="colour"), keras.Input((2,), name="amount")
    encoded = layers.StringLookup(vocabulary=str(vocabulary), output_mode="one_hot")(colour)
    model = keras.Model({"colour": colour, "amount": amount}, layers.concatenate([encoded, amount]))

    version = export(model)
    vocabulary.unlink()
    moved = tmp_path / "elsewhere"
    shutil.move(version.path, moved)

    rows = {"colour": np.array([[b"green"], [b"?"]], dtype=object), "amount": np.zeros((2, 2), np.float32)}
    answer = load_and_run(moved, DEFAULT_SIGNATURE, rows)["output_0"]
    assert answer.tolist() == [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_tables_work_in_a_process_that_has_never_seen_the_model(export: Any) -> None:
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    version = export(keras.Sequential([keras.Input((1,), dtype="string", name="word"), lookup]))
    code = (
        "import sys, tensorflow as tf; f = tf.saved_model.load(sys.argv[1]).signatures['serving_default']; "
        "print(f(word=tf.constant([['b'], ['z']]))['output_0'].numpy().tolist())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(version.path)], capture_output=True, text=True, check=True, timeout=50
    )

    assert done.stdout.strip() == "[[2], [0]]"


def test_made_up_words_that_a_model_refuses_skip_the_check(export: Any) -> None:
    lookup = layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0)
    model = keras.Sequential([keras.Input((1,), dtype="string", name="word"), lookup])

    export(model)

    report = export.reports[-1]
    assert report.num_rows == 0
    assert report.skipped_reason.startswith("rows made from the signature do not suit the model: ")


def test_words_of_the_user_are_checked(export: Any) -> None:
    lookup = layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0)
    model = keras.Sequential([keras.Input((1,), dtype="string", name="word"), lookup])

    export(model, example=["a", "b", "a"])

    assert_checked(export, num_rows=3)


def test_made_up_indices_that_are_out_of_range_are_tried_smaller(export: Any) -> None:
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(1, 3)])

    export(model)

    assert_checked(export)


# ---------------------------------------------------------------- subclassed models


class Plain(keras.Model):
    """One tensor in, one out; random unless told not to be."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)
        self.dropout = layers.Dropout(0.5)

    def call(self, features: Any, *, training: Any = True) -> Any:
        """Dropout by default, to see that `training=False` arrives."""
        return self.dropout(self.dense(features), training=training)


class OfDict(keras.Model):
    """A dict in, a dict out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        """Use both."""
        return {"sum": self.dense(inputs["a"]) + self.dense(inputs["b"]), "same": inputs["a"]}


class OfTwo(keras.Model):
    """Two arguments in, a tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, a: Any, b: Any, mask: Any = None) -> Any:
        """Use both."""
        return self.dense(a) + self.dense(b), b


class OfIndices(keras.Model):
    """Integers in."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Embedding(5, 3)

    def call(self, ids: Any) -> Any:
        """Look up."""
        return self.embedding(ids)


def test_a_subclassed_model_that_was_called_needs_no_example(export: Any, rng: np.random.Generator) -> None:
    model = Plain()
    x = rng.standard_normal((3, 4)).astype(np.float32)
    model(x)

    version = export(model)

    assert inputs_of(version) == {"features": "float32[?, 4]"}
    assert outputs_of(version) == {"output_0": "float32[?, 3]"}
    expected = model(x, training=False)
    np.testing.assert_allclose(served(version, features=x)["output_0"], expected, rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_of_a_dict_keeps_its_keys(export: Any) -> None:
    model = OfDict()
    model({"a": np.ones((2, 4), np.float32), "b": np.ones((2, 4), np.float32)})

    version = export(model)

    assert inputs_of(version) == {"a": "float32[?, 4]", "b": "float32[?, 4]"}
    assert outputs_of(version) == {"same": "float32[?, 4]", "sum": "float32[?, 3]"}
    assert_checked(export)


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_subclassed_model_of_several_arguments_takes_an_example(export: Any, *, as_dict: bool) -> None:
    model = OfTwo()
    a, b = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    model(a, b)

    version = export(model, example={"a": a, "b": b} if as_dict else (a, b))

    assert inputs_of(version) == {"a": "float32[?, 4]", "b": "float32[?, 4]"}
    assert outputs_of(version) == {"output_0": "float32[?, 3]", "output_1": "float32[?, 4]"}
    assert_checked(export, num_rows=2)


def test_an_example_gives_a_subclassed_model_its_types(export: Any) -> None:
    model = OfIndices()
    model(np.zeros((2, 4), np.int32))

    version = export(model, example=np.zeros((3, 4), np.int64))

    assert inputs_of(version) == {"ids": "int64[?, 4]"}
    assert_checked(export, num_rows=3)


def test_sizes_in_which_example_and_record_differ_stay_open(export: Any) -> None:
    model = OfIndices()
    model(np.zeros((2, 4), np.int32))

    assert inputs_of(export(model, example=np.zeros((3, 9), np.int32))) == {"ids": "int32[?, ?]"}


def test_floats_of_an_example_get_the_type_of_the_model(export: Any) -> None:
    model = Plain()
    model(np.zeros((1, 4)))

    assert inputs_of(export(model, example=np.zeros((3, 4), np.float64))) == {"features": "float32[?, 4]"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' saving on NumPy 2
def test_a_subclassed_model_that_was_loaded_can_be_exported(export: Any, tmp_path: Path) -> None:
    model = OfDict()
    model({"a": np.ones((2, 4), np.float32), "b": np.ones((2, 4), np.float32)})
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"OfDict": OfDict})

    assert inputs_of(export(loaded)) == {"a": "float32[?, 4]", "b": "float32[?, 4]"}
    assert_checked(export)


# ---------------------------------------------------------------- functions, modules, folders


class Scaler(tf.Module):
    """A module with a variable, a table and a function for training, which is not served."""

    def __init__(self) -> None:
        super().__init__(name="scaler")
        self.scale = tf.Variable(2.0)
        pairs = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0])
        self.table = tf.lookup.StaticHashTable(pairs, 0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def predict(self, word: Any) -> Any:
        """Look up and scale."""
        return {"value": self.table.lookup(word) * self.scale}

    @tf.function
    def train(self, x: Any) -> Any:
        """Not for serving."""
        return x


def test_a_module_with_one_signature_is_served_by_it(export: Any) -> None:
    version = export(Scaler())

    assert inputs_of(version) == {"word": "string[?]"}
    assert outputs_of(version) == {"value": "float32[?]"}
    words = np.array([b"b", b"z"], dtype=object)
    assert served(version, word=words)["value"].tolist() == [4.0, 0.0]
    assert_checked(export)


def test_a_module_that_does_not_call_its_super_class(export: Any) -> None:
    class Forgetful(tf.Module):
        def __init__(self) -> None:  # pylint: disable=super-init-not-called
            self.scale = tf.Variable(3.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def predict(self, x: Any) -> Any:
            return {"y": x * self.scale}

    assert prepare_source(Forgetful()).description == "Forgetful (function predict)"
    assert served(export(Forgetful()), x=np.float32([2.0]))["y"].tolist() == [6.0]
    assert_checked(export)


def test_text_without_dimensions_is_compared_byte_by_byte(export: Any) -> None:
    module = tf.Module()
    module.run = tf.function(
        lambda x: {"mark": tf.constant(b"a\0\xff\0"), "n": x}, input_signature=[tf.TensorSpec([], tf.string, name="x")]
    )

    version = export(module, np.array(b"\0", dtype=object))

    assert outputs_of(version) == {"mark": "string[]", "n": "string[]"}
    assert export.reports[-1].skipped_reason == ""


def test_outputs_have_the_order_of_their_numbers(export: Any) -> None:
    inputs = keras.Input((1,), name="x")
    model = keras.Model(inputs, [layers.Rescaling(float(number))(inputs) for number in range(12)])

    version = export(model)

    names = [f"output_{number}" for number in range(12)]
    assert list(read_signatures(version.path)[DEFAULT_SIGNATURE].outputs) == names
    found = served(version, x=np.ones((1, 1), np.float32))
    assert [found[name].item() for name in names] == list(range(12))


def test_calls_that_fixed_training_keep_it_as_in_kerass_own_export(export: Any, tmp_path: Path) -> None:
    x = keras.Input((64,), name="x")
    inner = keras.Model(x, layers.Dropout(0.5)(x, training=True))
    y = keras.Input((64,), name="y")
    rows = np.ones((4, 64), np.float32)

    for model in (inner, keras.Model(y, inner(y)), keras.Sequential([keras.Input((64,)), inner])):
        assert [note for note in prepare_source(model).notes if "training=True" in note]
        version = export(model)
        (name,) = inputs_of(version)
        (out,) = served(version, **{name: rows}).values()
        assert set(np.unique(out)) == {0.0, 2.0}

    plain = keras.Sequential([keras.Input((64,)), layers.Dropout(0.5)])
    (out,) = served(export(plain), inputs=rows).values()
    assert set(np.unique(out)) == {1.0}


# ---------------------------------------------------------------- tf_keras

tf_keras_warnings = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@tf_keras_warnings
def test_models_of_tf_keras(export: Any) -> None:
    import tf_keras

    class Pair(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(2)
            self.drop = tf_keras.layers.Dropout(0.5)

        def call(self, ids: Any, training: bool | None = None) -> Any:
            return {"logits": self.drop(self.dense(tf.cast(ids, tf.float32)), training=training)}

    sequential = tf_keras.Sequential(
        [tf_keras.layers.Input((4,)), tf_keras.layers.Dropout(0.5), tf_keras.layers.Dense(3)]
    )
    a, b = tf_keras.Input((2,), name="a"), tf_keras.Input((2,), dtype="int32", name="b")
    both = tf_keras.Model({"a": a, "b": b}, [a + tf_keras.layers.Lambda(lambda t: tf.cast(t, tf.float32))(b), 2.0 * a])
    subclassed = Pair()
    subclassed(np.ones((1, 3), np.int32))

    version = export(sequential)
    assert inputs_of(version) == {"inputs": "float32[?, 4]"}
    rows = np.ones((5, 4), np.float32)
    np.testing.assert_allclose(served(version, inputs=rows)["output_0"], sequential.predict(rows, verbose=0), rtol=1e-5)
    assert_checked(export)
    version = export(both)
    assert inputs_of(version) == {"a": "float32[?, 2]", "b": "int32[?, 2]"}
    assert_checked(export)
    version = export(subclassed)
    assert inputs_of(version) == {"ids": "int32[?, 3]"}
    assert outputs_of(version) == {"logits": "float32[?, 2]"}
    assert_checked(export)


@tf_keras_warnings
def test_what_is_wrong_with_a_model_of_tf_keras_is_said() -> None:
    import tf_keras

    with pytest.raises(ModelNotServable, match="was never built, called or trained"):
        prepare_source(tf_keras.Sequential([tf_keras.layers.Dense(3)]))
    with pytest.raises(ModelNotServable, match="is a layer, not a model"):
        prepare_source(tf_keras.layers.Dense(3))


def test_a_method_of_a_module_brings_its_module(export: Any) -> None:
    module = Scaler()

    assert served(export(module.predict), word=np.array([b"a"], dtype=object))["value"].tolist() == [2.0]


def test_call_and_serving_default_are_preferred(export: Any) -> None:
    class Several(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return x + 1

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def other(self, x: Any) -> Any:
            return x + 2

    class Named(Several):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serving_default(self, x: Any) -> Any:
            return x + 3

    x = np.zeros(1, np.float32)
    assert served(export(Several()), x=x)["output_0"].tolist() == [1.0]
    assert served(export(Named()), x=x)["output_0"].tolist() == [3.0]


def test_a_function_brings_the_variables_tables_and_models_that_it_uses(export: Any) -> None:
    factor = tf.Variable(3.0)
    table = Scaler().table
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, kernel_initializer="ones")])

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x"), tf.TensorSpec([None], tf.string, name="w")]
    )
    def both(x: Any, w: Any) -> Any:
        return model(x)[:, 0] * factor, table.lookup(w)

    version = export(both)

    assert inputs_of(version) == {"w": "string[?]", "x": "float32[?, 2]"}
    answer = served(version, x=np.ones((1, 2), np.float32), w=np.array([b"b"], dtype=object))
    assert [answer["output_0"].tolist(), answer["output_1"].tolist()] == [[6.0], [2.0]]


def test_a_function_without_signature_takes_an_example(export: Any) -> None:
    @tf.function
    def double(x: Any) -> Any:
        return x * 2

    assert inputs_of(export(double, example=np.ones((3, 2), np.float32))) == {"x": "float32[?, 2]"}
    assert_checked(export, num_rows=3)


def doubled(x: Any) -> Any:
    return 2 * x


class Optional(tf.Module):
    """Functions with arguments that a signature leaves to their defaults."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def flagged(self, x: Any, training: bool = False, scale: float = 2.0, name: str | None = None) -> Any:
        return 0 * x if training else scale * x

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def hooked(self, x: Any, hook: Any = doubled, *, after: Any = tf.identity) -> Any:
        return after(hook(x))

    @tf.function(input_signature=[{"x": tf.TensorSpec([None, 3], tf.float32)}])
    def packed(self, parts: Any, hook: Any = doubled, training: bool = False) -> Any:
        return parts["x"] if training else hook(parts["x"])

    @tf.function
    def unsigned(self, x: Any, training: bool = False, hook: Any = doubled) -> Any:
        return x if training else hook(x)


@pytest.mark.parametrize("name", ["flagged", "hooked", "packed", "unsigned"])
def test_arguments_that_are_no_tensors_keep_their_defaults(export: Any, name: str) -> None:
    function = getattr(Optional(), name)
    rows = np.ones((2, 3), np.float32)

    version = export(function, example=rows if name == "unsigned" else None)

    (given,) = inputs_of(version)
    np.testing.assert_array_equal(served(version, **{given: rows})["output_0"], 2 * rows)
    assert_checked(export, 2 if name == "unsigned" else 4)


def test_a_trace_keeps_the_arguments_that_it_was_made_with(export: Any) -> None:
    trace = Optional().unsigned.get_concrete_function(tf.TensorSpec([None, 3], tf.float32, name="x"), training=True)
    rows = np.ones((2, 3), np.float32)

    np.testing.assert_array_equal(served(export(trace), x=rows)["output_0"], rows)


def test_a_trace_can_be_served(export: Any) -> None:
    @tf.function
    def double(x: Any) -> Any:
        return x * 2

    trace = double.get_concrete_function(tf.TensorSpec([None, 2], tf.float32, name="x"))

    assert inputs_of(export(trace)) == {"x": "float32[?, 2]"}


def test_inputs_without_rows_are_kept_as_they_are(export: Any) -> None:
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x"), tf.TensorSpec(None, tf.float32, name="y")])
    def add(x: Any, y: Any) -> Any:
        return x + y

    assert inputs_of(export(add)) == {"x": "float32[]", "y": "float32[...]"}


def test_a_saved_model_folder_is_copied_as_it_is(export: Any, tmp_path: Path) -> None:
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def double(self, x: Any) -> Any:
            return {"y": 2 * x}

    module = Two()
    source = tmp_path / "mine"
    tf.saved_model.save(module, str(source), signatures={DEFAULT_SIGNATURE: module.double, "again": module.double})
    (source / "assets.extra").mkdir()
    (source / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"records")

    version = export(str(source))

    assert list(read_signatures(version.path)) == ["again", DEFAULT_SIGNATURE]
    assert (version.path / "assets.extra" / "tf_serving_warmup_requests").read_bytes() == b"records"
    assert served(version, x=np.ones(1, np.float32))["y"].tolist() == [2.0]
    assert export.reports == [CheckReport(4, None)]
    assert (source / "saved_model.pb").exists()


def test_a_version_of_ours_can_be_deployed_again(export: Any, tmp_path: Path) -> None:
    first = export(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))

    assert read_signatures(export(first.path).path) == read_signatures(first.path)


# ---------------------------------------------------------------- around it


def test_sources_know_their_inputs_in_the_models_own_order() -> None:
    b, a = keras.Input((3,), name="b"), keras.Input((2,), name="a")
    source = prepare_source(keras.Model([b, a], layers.concatenate([b, a])))

    assert source.inputs == (TensorSpec("b", "float32", (None, 3)), TensorSpec("a", "float32", (None, 2)))
    assert prepare_source(source) is source


def test_live_outputs_are_named_as_the_served_ones() -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, {"twice": layers.Rescaling(2.0)(x), "noise": layers.Dropout(0.9)(x)})

    outputs = live_outputs(model, {"x": np.ones((1, 2), np.float32)})

    assert {name: value.tolist() for name, value in outputs.items()} == {"twice": [[2.0, 2.0]], "noise": [[1.0, 1.0]]}


def test_progress_tells_each_step(export: Any) -> None:
    events: list[ProgressEvent] = []

    export(keras.Sequential([keras.Input((2,)), layers.Dense(1)]), progress=events.append)

    assert [(event.phase, event.done, event.total, event.detail) for event in events] == [
        ("exporting", 0, 2, "tracing"),
        ("exporting", 1, 2, "writing"),
        ("exporting", 2, 2, ""),
        ("checking", 0, 1, ""),
        ("checking", 1, 1, ""),
    ]


def test_exporting_prints_and_logs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = keras.Sequential([keras.Input((2,), name="sepal length (cm)"), layers.Dense(1)])
    with caplog.at_level("DEBUG"):
        export_version(model, tmp_path, "quiet")

    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []
