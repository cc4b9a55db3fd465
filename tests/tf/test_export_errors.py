"""What cannot be exported is refused with a message that says what to type, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import ExportFailed, InvalidOption, ModelNotServable, ServingError, VersionExists
from tfserve_nb.export.check import CheckReport, compare_outputs, example_batch, verify_against_live
from tfserve_nb.export.graph.live import live_outputs
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_signatures
from tfserve_nb.export.source import prepare_source

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

layers = keras.layers


def load_and_run(path: Path, signature: str, inputs: Any) -> dict[str, np.ndarray]:
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures[signature](**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def export(model: object, base: Path, example: object = None, name: str = "model", **options: Any) -> None:
    source = prepare_source(model, example=example)
    verify = options.pop("verify", lambda path: verify_against_live(source, path, load_and_run, example))
    export_version(source, base, name, verify=verify, **options)


def refused(
    model: object, base: Path, kind: type[ServingError], example: object = None, **options: Any
) -> ServingError:
    """The error, after a look at what it left behind."""
    before = everything_in(base)
    with pytest.raises(kind) as caught:
        export(model, base, example, **options)
    assert everything_in(base) == before
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def dense() -> Any:
    return keras.Sequential([keras.Input((3,)), layers.Dense(2)])


def called(model: Any, shape: tuple[int, ...] = (2, 4)) -> Any:
    model(np.ones(shape, np.float32))
    return model


# ---------------------------------------------------------------- what is no model


class Estimator:
    """Stands for a scikit-learn estimator."""

    def __repr__(self) -> str:
        return "LogisticRegression()"


Estimator.__module__ = "sklearn.linear_model"


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (
            3,
            "builtins.int 3 is no model that can be served",
            "give a Keras model, a tf.Module, a tf.function, an ONNX model, or the path",
        ),
        (None, "builtins.NoneType None is no model", "give a Keras model"),
        (
            Estimator(),
            "sklearn.linear_model.Estimator LogisticRegression() is no model",
            "export it as ONNX, skl2onnx.to_onnx(model",
        ),
        (lambda x: x, "is no model that can be served", "make it a tf.function: @tf.function(input_signature="),
        (keras.Model, "is no model that can be served", "that is a class; make a model of it: Model(...)"),
        (np.zeros((100, 100)), "numpy.ndarray is no model that can be served", "give a Keras model"),
        ("no/such/folder", "no/such/folder does not exist; a model is a Keras model, a tf.Module", "check the path"),
        ("a long text " * 1000, "… does not exist; a model is a Keras model", "check the path"),
        ("zero\0byte", "does not exist; a model is a Keras model", "check the path"),
        ("my_model.keras", "is a Keras file, not a SavedModel", "model = keras.saving.load_model('my_model.keras')"),
        (Path("weights.h5"), "weights.h5 is a Keras file", "model = keras.saving.load_model('weights.h5')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_model_is_named_with_what_would_be_one(
    tmp_path: Path, value: object, message: str, hint: str
) -> None:
    error = refused(value, tmp_path, ModelNotServable)

    assert message in error.message
    assert hint in error.hint


def test_a_layer_is_no_model(tmp_path: Path) -> None:
    error = refused(layers.Dense(3, name="top"), tmp_path, ModelNotServable)

    assert error.message == "Dense 'top' is a Keras layer, not a model"
    assert error.hint == "keras.Sequential([keras.Input(shape), layer])"


def test_a_folder_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()

    error = refused(folder, tmp_path, ModelNotServable)

    assert error.message == f"{folder} is no SavedModel: it holds no saved_model.pb"


def test_a_folder_of_versions_leads_to_its_newest_version(tmp_path: Path) -> None:
    for _ in range(2):
        export(dense(), tmp_path)

    error = refused(tmp_path / "model", tmp_path, ModelNotServable)

    assert error.hint == f"deploy one of its versions: {tmp_path / 'model' / '2'}"


def test_a_damaged_saved_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff" * 40)

    error = refused(folder, tmp_path, ModelNotServable)

    assert "is damaged: it cannot be parsed" in error.message


def test_a_saved_model_without_signature_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))

    error = refused(tmp_path / "bare", tmp_path, ModelNotServable)

    assert "has no signature, so no request could reach it" in error.message


def test_a_saved_model_whose_variables_are_gone_is_refused(tmp_path: Path) -> None:
    export(dense(), tmp_path)
    for path in (tmp_path / "model" / "1" / "variables").iterdir():
        path.unlink()

    error = refused(tmp_path / "model" / "1", tmp_path, ExportFailed, name="copy")

    assert error.message.startswith("the SavedModel cannot be loaded: ")


def test_signatures_of_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match=re.escape("saved_model.pb cannot be read (No such file or directory)")):
        read_signatures(tmp_path)


# ---------------------------------------------------------------- Keras models that are not ready


def test_a_sequential_model_without_inputs_is_unbuilt(tmp_path: Path) -> None:
    error = refused(keras.Sequential([layers.Dense(2)], name="top"), tmp_path, ModelNotServable)

    assert error.message == "Sequential 'top' has no weights yet: it was never built, called or trained"
    assert error.hint == "train it, or call it once on a batch: model(x[:1])"


class Plain(keras.Model):
    """As users write them."""

    def __init__(self) -> None:
        super().__init__(name="plain")
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        """One layer."""
        return self.dense(x)


class OfTwo(keras.Model):
    """Keras records nothing about the second argument."""

    def call(self, a: Any, b: Any) -> Any:
        """Add."""
        return a + b


def test_a_subclassed_model_that_was_never_called_is_unbuilt(tmp_path: Path) -> None:
    assert "Plain 'plain' has no weights yet" in refused(Plain(), tmp_path, ModelNotServable).message


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called:UserWarning")
def test_a_subclassed_model_that_was_built_in_name_only_is_unbuilt(tmp_path: Path) -> None:
    model = Plain()
    model.build((None, 4))

    assert "Plain 'plain' has no weights yet" in refused(model, tmp_path, ModelNotServable).message


def test_a_model_of_several_arguments_asks_for_an_example(tmp_path: Path) -> None:
    model = OfTwo(name="two")
    model(np.ones((2, 4), np.float32), np.ones((2, 4), np.float32))

    error = refused(model, tmp_path, ModelNotServable)

    assert error.message == "the inputs of OfTwo 'two' are not known: Keras did not record them for call(a, b)"
    assert "--check VARIABLE" in error.hint
    bad = refused(model, tmp_path, ModelNotServable, example={"a": np.ones((1, 4))})
    assert bad.message == "OfTwo 'two' is called with a, b, and the example has a"
    assert bad.hint == "give a dict with the keys a, b"


def test_an_example_without_rows_is_refused(tmp_path: Path) -> None:
    error = refused(called(Plain()), tmp_path, ModelNotServable, example=5)

    assert error.message == "the example 5 has no rows"


def test_another_keras_backend_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense()
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")

    error = refused(model, tmp_path, ModelNotServable)

    assert error.message == (
        f"Sequential {model.name!r} runs on the Keras backend 'openvino'; served are tensorflow, jax, torch"
    )
    assert "%env KERAS_BACKEND=tensorflow" in error.hint


def test_a_sparse_input_is_refused(tmp_path: Path) -> None:
    x = keras.Input((3,), sparse=True, name="x")

    error = refused(keras.Model(x, layers.Dense(1)(x)), tmp_path, ModelNotServable)

    assert "input 'x' of Functional" in error.message
    assert "is sparse or ragged" in error.message


def test_a_ragged_output_is_refused(tmp_path: Path) -> None:
    class Ragged(keras.Model):
        def call(self, x: Any) -> Any:
            return {"parts": tf.RaggedTensor.from_tensor(x)}

    error = refused(called(Ragged()), tmp_path, ModelNotServable)

    assert error.message == "output 'parts' is a RaggedTensor; a served model returns dense tensors"
    assert error.hint == "return value.to_tensor() instead"


# ---------------------------------------------------------------- functions and modules without signature


def test_a_function_without_signature_is_refused(tmp_path: Path) -> None:
    @tf.function
    def double(x: Any) -> Any:
        return x * 2

    double(tf.ones(2))
    error = refused(double, tmp_path, ModelNotServable)

    assert error.message == "tf.function 'double' has no input signature"
    assert error.hint.startswith("@tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name='x')])")


def test_modules_without_or_with_too_many_signatures_are_refused(tmp_path: Path) -> None:
    class Several(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def one(self, x: Any) -> Any:
            return x

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def two(self, x: Any) -> Any:
            return x

    class Without(tf.Module):
        @tf.function
        def one(self, x: Any) -> Any:
            return x

    several = refused(Several(name="m"), tmp_path, ModelNotServable)
    assert several.message == "Several 'm' has several functions that could be served: one, two"
    assert several.hint == "name one of them serving_default or __call__, or deploy one: model = module.one"
    assert "its functions one have none" in refused(Without(), tmp_path, ModelNotServable).message
    assert "it has no tf.function at all" in refused(tf.Module(), tmp_path, ModelNotServable).message


def test_a_function_that_cannot_be_traced_says_why(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def broken(x: Any) -> Any:
        return tf.matmul(x, tf.ones((4, 4)))

    error = refused(broken, tmp_path, ExportFailed)

    assert error.message.startswith("tf.function 'broken' cannot be traced: ValueError: Dimensions must be equal")


def test_a_ragged_argument_is_refused(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.float32)])
    def total(x: Any) -> Any:
        return tf.reduce_sum(x, axis=1)

    assert "a RaggedTensor; requests carry dense tensors" in refused(total, tmp_path, ModelNotServable).message


def test_a_table_that_nobody_owns_is_explained(tmp_path: Path) -> None:
    holder = {"table": tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def look_up(word: Any) -> Any:
        return holder["table"].lookup(word)

    error = refused(look_up, tmp_path, ExportFailed)

    assert error.message == "tf.function 'look_up' uses a table or variable that belongs to no object known here"
    assert "make it an attribute of a tf.Module" in error.hint


# ---------------------------------------------------------------- code that does not survive tracing


def test_code_that_cannot_be_traced_is_explained_in_one_line(tmp_path: Path) -> None:
    class Numpy(keras.Model):
        def call(self, x: Any) -> Any:
            return x * float(np.mean(x.numpy()))

    error = refused(called(Numpy(name="num")), tmp_path, ExportFailed, example=np.ones((2, 4)))

    expected = "Numpy 'num' cannot be traced: AttributeError: 'SymbolicTensor' object has no attribute 'numpy'"
    assert error.message == expected
    assert error.hint.startswith("use TensorFlow or keras.ops on the tensors in call()")
    # Not only what was guessed may be the cause.
    error = refused(called(Numpy(name="num")), tmp_path, ExportFailed)
    assert error.hint.startswith("guessed float32 for x: pass --check rows; use TensorFlow or keras.ops")


def test_python_inside_of_the_graph_is_refused(tmp_path: Path) -> None:
    class Python(keras.Model):
        def call(self, x: Any) -> Any:
            return tf.numpy_function(lambda value: value * 2, [x], tf.float32)

    error = refused(called(Python(name="py")), tmp_path, ExportFailed, example=np.ones((2, 4)))

    assert error.message == "Python 'py' runs Python code inside of its graph (PyFunc), which a SavedModel cannot carry"
    assert error.hint == "replace tf.py_function and tf.numpy_function by TensorFlow ops or keras.ops"


# ---------------------------------------------------------------- the check


class Counting(keras.Model):
    """Answers something else each time it is called in Python."""

    def __init__(self) -> None:
        super().__init__(name="counting")
        self.calls = 0

    def call(self, x: Any) -> Any:
        """Count."""
        self.calls += 1
        return x * float(self.calls)


def test_a_model_whose_python_code_changes_the_answer_fails_the_check(tmp_path: Path) -> None:
    error = refused(called(Counting()), tmp_path, ExportFailed, example=np.ones((2, 4)))

    pattern = r"output 'output_0' of the SavedModel differs from the live model in row 0: \d instead of \d \(largest"
    assert re.match(pattern, error.message)
    assert "no Python counters, clocks or random numbers" in error.hint


def test_a_difference_counts_for_unknown_sizes_too(tmp_path: Path) -> None:
    class Count(keras.Layer):
        calls = 0

        def call(self, x: Any) -> Any:
            self.calls += 1
            return x * float(self.calls)

    x = keras.Input((None,), name="x")

    error = refused(keras.Model(x, Count()(x)), tmp_path, ExportFailed)

    assert "differs from the live model" in error.message


def test_a_layer_that_misreads_an_unknown_size_is_not_blamed_on_counters(tmp_path: Path) -> None:
    steps = keras.Sequential([keras.Input((None, 4)), layers.TimeDistributed(layers.Dense(2))])

    error = refused(steps, tmp_path, ExportFailed)

    assert "is float32[4, 4, 2], of the live model float32[4, 32, 2]" in error.message
    assert "TimeDistributed" in error.hint
    assert "give all sizes, keras.Input((32, 4))" in error.hint
    export(keras.Sequential([keras.Input((32, 4)), layers.TimeDistributed(layers.Dense(2))]), tmp_path)


def test_what_a_saved_model_cannot_hold_is_named(tmp_path: Path) -> None:
    class Holding(tf.Module):
        def __init__(self, held: Any, take: Callable[[Any], Any]) -> None:
            super().__init__()
            self.held, self.take = held, take

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return x + self.take(self.held)

    for held, take, what in (
        (tf.queue.FIFOQueue(2, [tf.float32], [()]), lambda held: held.dequeue(), "a queue"),
        (iter(tf.data.Dataset.range(2)), lambda held: tf.cast(next(held), tf.float32), "the iterator of a dataset"),
    ):
        error = refused(Holding(held, take), tmp_path, ExportFailed)
        assert f"uses {what}, which a SavedModel cannot hold" in error.message
        assert "as an input" in error.hint


def test_a_model_that_draws_random_numbers_skips_the_check(tmp_path: Path) -> None:
    class Noisy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return x + tf.random.normal(tf.shape(x))

    tf.random.set_seed(None)  # with a seed, the exported model draws the live one's numbers
    reports: list[CheckReport] = []
    source = prepare_source(Noisy())
    export(source, tmp_path, verify=lambda path: reports.append(verify_against_live(source, path, load_and_run)))

    assert reports[0].skipped_reason.startswith("the model draws random numbers")


def test_rows_of_the_user_that_the_model_cannot_take_are_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(3, 1)], name="emb")

    error = refused(model, tmp_path, InvalidOption, example=[[0, 99]])

    assert error.message.startswith("Sequential 'emb' itself fails on the rows given: ")
    assert "\n" not in error.message


def test_rows_of_the_user_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    error = refused(dense(), tmp_path, InvalidOption, example=np.zeros((2, 5)))

    assert error.message == "check: Input inputs has shape [2, 5], expected float32[?, 3]"


def test_a_saved_model_that_fails_where_the_live_model_answers_is_refused(tmp_path: Path) -> None:
    def fails(path: Path, signature: str, inputs: Any) -> Any:
        raise RuntimeError("boom")

    source = prepare_source(dense())
    error = refused(
        source, tmp_path, ExportFailed, verify=lambda path: verify_against_live(source, path, fails) and None
    )

    assert error.message == "the SavedModel fails on rows on which the live model does not: RuntimeError: boom"


def test_a_check_that_cannot_read_something_does_not_blame_the_folder(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", "labels.txt")

    error = refused(dense(), tmp_path, ExportFailed, verify=verify)

    assert error.message.startswith("the exported model cannot be checked: FileNotFoundError: ")
    assert "labels.txt" in error.message


def test_numbers_that_are_used_up_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model" / str(2**63 - 1)).mkdir(parents=True)

    assert refused(dense(), tmp_path, InvalidOption).message.startswith("version=9223372036854775808 must be")


def test_any_error_of_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def verify(path: Path) -> None:
        seen.append(sorted(entry.name for entry in path.iterdir()))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export_version(dense(), tmp_path / "new" / "base", "model", verify=verify)

    assert seen == [["assets", "fingerprint.pb", "saved_model.pb", "variables"]]
    assert everything_in(tmp_path) == []


def test_a_folder_has_no_live_outputs(tmp_path: Path) -> None:
    export(dense(), tmp_path)

    with pytest.raises(InvalidOption, match="has no live model"):
        live_outputs(tmp_path / "model" / "1", {})


def test_types_that_numpy_does_not_know_are_made_up_and_compared() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.bfloat16, name="x")])
    def double(x: Any) -> Any:
        return x * 2

    source = prepare_source(double)
    batch = example_batch(signature_of(source), 3)
    outputs = live_outputs(source, batch)

    assert batch["x"].dtype.name == "bfloat16"
    assert compare_outputs(outputs, outputs) == 0.0
    with pytest.raises(ExportFailed):
        compare_outputs(outputs, {"output_0": outputs["output_0"] + 1})


def signature_of(source: Any) -> Any:
    from tfserve_nb.types import SignatureSpec

    return SignatureSpec("serving_default", {spec.name: spec for spec in source.inputs}, {})


# ---------------------------------------------------------------- names, versions, folders


def test_a_version_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    export(dense(), tmp_path)
    (tmp_path / "model" / "0007").mkdir()

    error = refused(dense(), tmp_path, VersionExists, version=1)
    assert error.message == f"version 1 of model model exists already: {tmp_path / 'model' / '1'}"
    assert error.hint == ("leave --version out to get 8, or remove it: %undeploy model --version 1 --delete")
    assert "version 7 of model model exists already" in refused(dense(), tmp_path, VersionExists, version=7).message


def test_a_version_that_appears_during_the_export_is_refused(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        (tmp_path / "model" / "5" / "variables").mkdir(parents=True)

    with pytest.raises(VersionExists, match="version 5 of model model exists already"):
        export(dense(), tmp_path, version=5, verify=verify)

    assert everything_in(tmp_path) == ["model", "model/5", "model/5/variables"]


def test_without_a_version_the_next_free_one_is_taken_at_the_last_moment(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        (tmp_path / "model" / "1" / "variables").mkdir(parents=True)

    assert export_version(dense(), tmp_path, "model", verify=verify).version == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name='a/b' cannot name a model"),
        ({"version": 0}, "version=0 must be an integer from 1 to"),
        ({"version": "3"}, "version='3' must be an integer from 1 to"),
    ],
)
def test_bad_names_and_versions_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    assert refused(dense(), tmp_path, InvalidOption, **options).message.startswith(message)


def below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "models"


def with_a_file_in_its_place(tmp_path: Path) -> Path:
    (tmp_path / "model").write_text("not a folder")
    return tmp_path


@pytest.mark.parametrize(
    ("make_base", "reason"), [(below_a_file, "Not a directory"), (with_a_file_in_its_place, "File exists")]
)
@pytest.mark.parametrize("version", [None, 3])
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, make_base: Callable[[Path], Path], reason: str, version: int | None
) -> None:
    base = make_base(tmp_path)

    with pytest.raises(ExportFailed) as caught:
        export_version(dense(), base, "model", version=version)

    assert caught.value.message == f"the model cannot be written to {base / 'model'}: {reason}"
    assert caught.value.hint == "choose a folder that you may write to: --base-path FOLDER"


def test_a_saved_model_is_not_copied_into_itself(tmp_path: Path) -> None:
    export(dense(), tmp_path)
    folder = tmp_path / "model" / "1"

    error = refused(folder, folder, InvalidOption, name="inner")

    assert error.message == f"base_path lies inside of {folder}, the SavedModel to be copied"
