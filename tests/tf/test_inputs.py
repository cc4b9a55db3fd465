"""Inputs are what the model takes: types and names of signatures, and rows read alike wherever users give them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfserve_nb
from tfserve_nb.errors import ExportFailed, InvalidOption, InvalidRequest, ModelNotServable
from tfserve_nb.export.signatures import read_signatures
from tfserve_nb.export.source import prepare_source
from tfserve_nb.types import ProgressEvent

layers = keras.layers
BIG_IDS = [2**24, 2**24 + 1]


pytestmark = pytest.mark.usefixtures("own_folder")


class Of(keras.Model):
    """A subclassed model: a layer or function of one tensor."""

    def __init__(self, layer: Callable[[Any], Any]) -> None:
        super().__init__(name="of")
        self.layer = layer

    def call(self, x: Any) -> Any:
        """Apply it."""
        return self.layer(x)


class Masked(keras.Model):
    """Takes a mask for its ids, or none."""

    def __init__(self) -> None:
        super().__init__(name="masked")
        self.embedding = layers.Embedding(100, 4)

    def call(self, ids: Any, attention_mask: Any = None, *, training: bool = False) -> Any:
        """Sum what is not masked."""
        values = self.embedding(ids)
        if attention_mask is not None:
            values *= tf.cast(attention_mask, values.dtype)[..., None]
        return tf.reduce_sum(values, axis=[1, 2])


class Described(keras.Model):
    """Needs its optional argument after all."""

    def __init__(self) -> None:
        super().__init__(name="described")
        self.dense = layers.Dense(2)

    def call(self, image: Any, meta: Any = None) -> Any:
        """Both."""
        return self.dense(layers.Flatten()(image)) + meta[:, :2]


class Joined(keras.Model):
    """Fails in TensorFlow, not in Python, without its optional argument; has a table."""

    def __init__(self) -> None:
        super().__init__(name="joined")
        self.lookup = layers.StringLookup(vocabulary=["a", "b"])

    def call(self, word: Any, meta: Any = None) -> Any:
        """Both."""
        return keras.ops.concatenate([keras.ops.cast(self.lookup(word), "float32"), meta], -1)


class Holding(keras.Model):
    """Has a model inside that needs its optional argument."""

    def __init__(self) -> None:
        super().__init__(name="holding")
        self.inner = Joined()

    def call(self, word: Any, meta: Any = None) -> Any:
        """Both."""
        return self.inner(word, meta=meta)


class NeverMade(keras.Model):
    """Deployed as a class."""


IDS, MASK = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 1, 0], [1, 0, 0]])
IMAGE, META = np.ones((2, 4, 4, 1), np.float32), np.ones((2, 3), np.float32)


def inputs_of(model: object, example: object = None) -> dict[str, str]:
    return {spec.name: str(spec) for spec in prepare_source(model, example=example).inputs}


# ---------------------------------------------------------------- types


def of_text(layer: Any) -> Any:
    return layer, tf.constant([["a"], ["b c"]])


def of_ids(layer: Any) -> Any:
    return layer, np.array([[1, 2], [3, 0]])


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda: of_ids(layers.Embedding(9, 2, mask_zero=True)), "int64"),
        (lambda: of_ids(layers.IntegerLookup(vocabulary=[1, 2])), "int64"),
        (lambda: of_ids(lambda x: tf.gather(tf.eye(9), x)), "int64"),
        (lambda: of_ids(lambda x: tf.one_hot(x[:, 0], 9) + tf.one_hot(tf.cast(x[:, 1], tf.int32), 9)), "int64"),
        (lambda: of_text(layers.StringLookup(vocabulary=["a"])), "string"),
        (lambda: of_text(layers.TextVectorization(vocabulary=["a"], output_sequence_length=2)), "string"),
        (lambda: of_text(tf.strings.length), "string"),
        (lambda: (layers.Rescaling(1 / 255), np.ones((2, 2), np.uint8)), "float32"),
        (lambda: (lambda x: tf.cast(tf.cast(x * 255, tf.uint8), tf.float32), np.ones((2, 2), np.float32)), "float32"),
    ],
)
def test_a_type_that_keras_did_not_record_is_what_the_graph_makes_of_it(make: Any, dtype: str) -> None:
    layer, example = make()
    model = Of(layer)
    model(example)

    source = prepare_source(model)

    assert [spec.dtype for spec in source.inputs] == [dtype]
    assert source.notes == (f"guessed {dtype} for x: pass --check rows",)
    assert prepare_source(model, example=example).notes == ()


@pytest.mark.parametrize(
    "use",
    [
        lambda x: tf.gather(tf.eye(9), tf.cast(x[:, 0], tf.int32))[:, :2] + x[:, 1:],
        lambda x: tf.gather(tf.eye(9), tf.cast(x % 9, tf.int64)),
        lambda x: tf.strings.length(tf.strings.as_string(x)),
    ],
)
def test_an_input_that_is_ids_here_and_numbers_there_is_not_guessed(use: Any) -> None:
    model = Of(use)
    rows = np.ones((2, 3), np.float32)
    model(rows)

    with pytest.raises(ModelNotServable, match="the type of input 'x' of Of 'of' is not known") as caught:
        prepare_source(model)

    assert "--check VARIABLE" in caught.value.hint
    assert inputs_of(model, rows) == {"x": "float32[?, 3]"}


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], [["a", "b"], ["c", "d"]]])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Hashing(7),
        lambda: layers.Hashing(7, output_mode="multi_hot"),
        lambda: lambda x: layers.Hashing(7)(x[:, ::-1]),
        lambda: lambda x: layers.HashedCrossing(7)((x[:, :1], x[:, 1:])),
    ],
)
def test_an_input_that_is_hashed_may_be_text_and_is_not_guessed(layer: Any, rows: Any) -> None:
    model = Of(layer())
    batch = tf.constant(rows, "int64" if rows == [[1, 2], [3, 4]] else "string")
    model(batch)

    with pytest.raises(ModelNotServable, match="the type of input 'x' of Of 'of' is not known") as caught:
        prepare_source(model)

    assert "--check VARIABLE" in caught.value.hint
    assert inputs_of(model, batch) == {"x": f"{batch.dtype.name}[?, 2]"}


def test_ids_keep_all_their_digits() -> None:
    model = Of(layers.IntegerLookup(vocabulary=BIG_IDS))
    model(np.array([BIG_IDS]))
    events: list[ProgressEvent] = []

    handle = tfserve_nb.deploy(model, "ids", progress=events.append)

    assert handle.predict([BIG_IDS]).tolist() == [[1, 2]]
    assert any("guessed int64 for x: pass --check rows" in event.detail for event in events)


def test_a_float_input_in_front_of_an_embedding_is_mentioned() -> None:
    model = keras.Sequential([keras.Input((2,), name="ids"), layers.Embedding(9, 2)])

    (note,) = prepare_source(model).notes

    assert note == "ids is float32 as in the model, which rounds ids above 16777216: keras.Input(dtype='int64')"
    whole = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(9, 2)])
    assert prepare_source(whole).notes == ()


@tf.function
def whole(x: Any) -> Any:
    """A call in the graph."""
    return tf.cast(x, tf.int32)


def turned(x: Any) -> Any:
    """A loop that hands its values from one variable to the other and back."""
    body = lambda step, one, other: (step + 1, other, one)  # noqa: E731
    return tf.while_loop(lambda step, *_: step < 3, body, (0, x, x + 1), maximum_iterations=3)[1]


def embedding() -> Any:
    return layers.Embedding(9, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [keras.Sequential([embedding(), layers.Flatten()])],
        lambda: [layers.Reshape((1, 2)), layers.Permute((2, 1)), embedding()],
        lambda: [layers.Lambda(lambda x: x[:, :1]), embedding()],
        lambda: [layers.Lambda(lambda x: tf.one_hot(tf.cast(x, tf.int64), 9))],
        lambda: [layers.Lambda(lambda x: tf.gather(tf.eye(9), tf.cast(x - 1, tf.int64)))],
        lambda: [layers.Lambda(lambda x: x % 9), embedding()],
        lambda: [layers.Reshape((2, 1)), layers.TimeDistributed(embedding())],
        lambda: [layers.Lambda(whole), embedding()],
        lambda: [layers.Lambda(lambda x: tf.map_fn(whole, x, fn_output_signature=tf.int32)), embedding()],
        lambda: [layers.Lambda(lambda x: tf.cond(tf.size(x) > 3, lambda: whole(x), lambda: whole(x))), embedding()],
        lambda: [layers.Lambda(turned), embedding()],
        lambda: [keras.Sequential([layers.IntegerLookup(vocabulary=[1, 2])])],
        lambda: [keras.Sequential([layers.Hashing(7)])],
        lambda: [keras.Sequential([layers.CategoryEncoding(7)])],
    ],
)
def test_ids_are_found_wherever_the_graph_makes_whole_numbers(make: Any) -> None:
    model = keras.Sequential([keras.Input((2,), name="ids"), *make()])

    (note,) = prepare_source(model).notes

    assert note.startswith("ids is float32 as in the model, which rounds ids above 16777216")


def test_of_several_inputs_those_that_are_ids_are_mentioned() -> None:
    a, b, c = (keras.Input((2,), name=name) for name in "abc")
    joined = embedding()(layers.Concatenate()([a, b]))

    model = keras.Model([a, b, c], [joined, layers.Dense(1)(b), layers.Dense(1)(c)])

    assert [note[0] for note in prepare_source(model).notes] == ["a", "b"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dense(2),
        lambda: layers.Discretization([0.0, 1.0]),
        lambda: layers.Lambda(lambda x: tf.gather(tf.eye(256), tf.cast(x * 255, tf.int32))),
        lambda: layers.Lambda(lambda x: tf.cast(tf.cast(x, tf.uint8), tf.float32)),
        lambda: layers.Lambda(lambda x: tf.map_fn(lambda row: row * 2, x)),
    ],
)
def test_numbers_are_no_ids(make: Any) -> None:
    assert prepare_source(keras.Sequential([keras.Input((2,)), make()])).notes == ()


def test_a_call_in_the_graph_shows_the_type_too() -> None:
    model = Of(lambda x: tf.gather(tf.eye(9), whole(x)))
    model(np.array([[1, 2]]))

    assert [spec.dtype for spec in prepare_source(model).inputs] == ["int64"]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("model", "example", "names"),
    [
        (Masked, {"ids": IDS, "attention_mask": MASK}, ["ids", "attention_mask"]),
        (Masked, (IDS, MASK), ["ids", "attention_mask"]),
        (Masked, {"ids": IDS}, ["ids"]),
        (Masked, IDS, ["ids"]),
        (Masked, IDS.tolist(), ["ids"]),
        (Masked, (IDS, None), ["ids"]),
        (Masked, {"ids": IDS, "attention_mask": None}, ["ids"]),
        (Described, {"meta": META, "image": IMAGE}, ["image", "meta"]),
        (Described, (IMAGE, META), ["image", "meta"]),
    ],
)
def test_optional_tensors_are_served_when_the_rows_have_them(model: Any, example: Any, names: list[str]) -> None:
    live = model()
    live(*((IDS, MASK) if model is Masked else (IMAGE, META)))

    source = prepare_source(live, example=example)

    assert [spec.name for spec in source.inputs] == names
    left_out = "left out of call(): attention_mask; to serve it, pass --check rows {'ids': ..., 'attention_mask': ...}"
    assert source.notes == (() if len(names) == 2 else (left_out,))


class Times(layers.Layer):
    """Takes a factor, or none."""

    def call(self, x: Any, factor: Any = None) -> Any:
        return x if factor is None else x * factor


def with_optional(kind: Any) -> Any:
    """A functional model whose second input may be None."""
    x, factor = keras.Input((2,), name="x"), keras.Input((2,), name="factor", optional=True)
    bias = keras.Input((1,), name="bias", optional=True)
    return keras.Model(kind(x=x, factor=factor, bias=bias), Times()(Times()(x, factor), bias))


def listed(**inputs: Any) -> list[Any]:
    return [*inputs.values()]


ROWS, FACTOR = np.array([[1, 2], [3, 4]], np.float32), np.array([[5, 6], [7, 8]], np.float32)
BIAS = np.array([[2], [3]], np.float32)


@pytest.mark.parametrize("kind", [listed, dict])
@pytest.mark.parametrize(
    ("example", "names"),
    [
        (ROWS, ["x"]),
        (ROWS.tolist(), ["x"]),
        ({"x": ROWS}, ["x"]),
        ({"x": ROWS, "factor": None, "bias": None}, ["x"]),
        ([ROWS, None, None], ["x"]),
        ({"bias": BIAS, "x": ROWS}, ["x", "bias"]),
        ({"x": ROWS, "factor": FACTOR, "bias": BIAS}, ["x", "factor", "bias"]),
    ],
)
def test_optional_inputs_are_served_when_the_rows_have_them(kind: Any, example: Any, names: list[str]) -> None:
    source = prepare_source(with_optional(kind), example=example)

    assert [spec.name for spec in source.inputs] == names
    left_out = [name for name in ("factor", "bias") if name not in names]
    wanted = [f"left out of call(): {', '.join(left_out)}; to serve it, pass --check rows {{'x': ..., "]
    assert [note[: len(wanted[0])] for note in source.notes] == (wanted if left_out else [])


def test_without_rows_all_inputs_are_served_as_keras_exports_them(tmp_path: Path) -> None:
    model = with_optional(listed)
    model.export(tmp_path / "keras", verbose=False)

    source = prepare_source(model)

    assert {spec.name for spec in source.inputs} == set(read_signatures(tmp_path / "keras")["serving_default"].inputs)
    assert source.notes == (
        "optional, and given by every request: factor, bias; to serve it as None, pass --check rows without it",
    )


def test_each_variant_of_a_model_with_optional_inputs_answers_as_the_model_does() -> None:
    model = with_optional(listed)
    alone = tfserve_nb.deploy(model, "alone", check=ROWS)
    pair = tfserve_nb.deploy(model, "pair", check=[ROWS, None, BIAS], warmup=[ROWS, None, BIAS])
    every = tfserve_nb.deploy(model, "every")

    for value in (ROWS, {"x": ROWS}, {"x": ROWS, "factor": None, "bias": None}):
        np.testing.assert_array_equal(alone.predict(value), model.predict([ROWS, None, None], verbose=0))
    for value in ([ROWS, BIAS], {"x": ROWS, "bias": BIAS}):
        np.testing.assert_array_equal(pair.predict(value), model.predict([ROWS, None, BIAS], verbose=0))
    np.testing.assert_array_equal(every.predict([ROWS, FACTOR, BIAS]), model.predict([ROWS, FACTOR, BIAS], verbose=0))
    with pytest.raises(InvalidRequest, match="the model has no input 'factor'"):
        pair.predict({"x": ROWS, "factor": FACTOR, "bias": BIAS})
    with pytest.raises(InvalidRequest, match="input 'bias' is missing; given are x"):
        pair.predict({"x": ROWS, "bias": None})
    for handle, value in ((alone, [ROWS, None, None]), (pair, [ROWS, FACTOR, None]), (every, [ROWS, None, BIAS])):
        with pytest.raises(InvalidRequest):  # what was left out is not known there: no guess
            handle.predict(value)


Sides = namedtuple("Sides", ["left", "right"])


def test_a_model_of_a_named_tuple_takes_one() -> None:
    class Sum(keras.Model):
        def call(self, sides: Any) -> Any:
            return sides.left + 2 * sides.right

    rows = Sides(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))

    model = Sum()
    model(rows)

    handle = tfserve_nb.deploy(model, "sides", check=rows)

    assert handle.predict(rows).tolist() == 2 * [[3.0] * 3]
    assert handle.predict({"left": rows.left, "right": rows.right}).tolist() == 2 * [[3.0] * 3]


def test_an_argument_that_the_model_does_not_have_is_named() -> None:
    model = Masked()
    model(IDS)

    with pytest.raises(ModelNotServable, match="'atention_mask' is no argument of Masked 'masked'") as caught:
        prepare_source(model, example={"ids": IDS, "atention_mask": MASK})

    assert caught.value.hint == "the keys of the example can be ids, attention_mask"


def test_a_model_with_a_mask_answers_as_it_does_live() -> None:
    model = Masked()
    model(IDS)
    rows = {"ids": IDS, "attention_mask": MASK}
    handle = tfserve_nb.deploy(model, "masked", check=rows, warmup=rows)

    expected = model(IDS, attention_mask=MASK)

    np.testing.assert_allclose(handle.predict(rows), expected, rtol=1e-5)


@pytest.mark.parametrize("make", [Joined, Holding])
def test_a_model_that_needs_its_optional_tensor_is_written_with_its_tables(make: Any) -> None:
    model = make()
    rows = {"word": np.array([["a"], ["b"], ["z"]]), "meta": np.ones((3, 2), np.float32)}
    model(tf.constant(rows["word"]), meta=rows["meta"])
    own = keras.Model._default_save_signature  # noqa: SLF001 - is put back

    handle = tfserve_nb.deploy(model, "joined", check=rows)

    assert handle.predict(rows).tolist() == [[1, 1, 1], [2, 1, 1], [0, 1, 1]]
    assert keras.Model._default_save_signature is own  # noqa: SLF001


@pytest.mark.parametrize("kind", [NeverMade, keras.Sequential, layers.Dense, tf.Module])
def test_a_class_is_refused_with_what_makes_a_model_of_it(kind: type) -> None:
    with pytest.raises(ModelNotServable, match=f"{kind.__name__}'> is no model that can be served") as caught:
        tfserve_nb.deploy(kind, "kind")

    assert caught.value.hint == f"that is a class; make a model of it: {kind.__name__}(...)"


def test_an_optional_tensor_that_is_needed_is_named() -> None:
    model = Described()
    model(IMAGE, META)

    with pytest.raises(ExportFailed, match="Described 'described' cannot be traced") as caught:
        tfserve_nb.deploy(model, "described")

    assert "left out of call(): meta; to serve it, pass --check rows {'image': ..., 'meta': ...}" in caught.value.hint


def test_parts_of_a_dict_may_be_lists_and_numbers() -> None:
    class Tempered(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs["x"] * inputs["scale"]

    model = Tempered()
    model({"x": np.ones((2, 3), np.float32), "scale": np.float32(2.0)})

    handle = tfserve_nb.deploy(model, "tempered", check={"x": [[1.0, 2.0, 3.0]], "scale": 2.0})

    assert handle.predict({"x": [[1.0, 2.0, 3.0]], "scale": 0.5}).tolist() == [[0.5, 1.0, 1.5]]


# ---------------------------------------------------------------- a fixed batch


def stateful() -> Any:
    x = keras.Input(batch_shape=(8, 3, 2), name="x")
    return keras.Model(x, layers.LSTM(2, stateful=True)(x))


def reshaped() -> Any:
    x = keras.Input(batch_shape=(8, 3, 2), name="x")
    return keras.Model(x, keras.ops.reshape(x, (8, 6)))


@pytest.mark.parametrize("make", [stateful, reshaped])
def test_a_model_of_a_fixed_batch_keeps_it(make: Any) -> None:
    assert inputs_of(make()) == {"x": "float32[8, 3, 2]"}


def test_a_fixed_batch_is_compared_and_answered() -> None:
    model, rows = reshaped(), np.arange(48, dtype=np.float32).reshape(8, 3, 2)
    events: list[ProgressEvent] = []

    handle = tfserve_nb.deploy(model, "fixed", progress=events.append)

    assert "8 rows agree" in [event.detail for event in events]
    np.testing.assert_array_equal(handle.predict(rows), rows.reshape(8, 6))
    with pytest.raises(InvalidRequest, match=r"shape \[3, 3, 2\], expected float32\[8, 3, 2\]"):
        handle.predict(rows[:3])
    assert tfserve_nb.deploy(model, "fixed", check=np.ones((20, 3, 2)), warmup=rows).version == 2


# ---------------------------------------------------------------- rows are read alike


class Two(tf.Module):
    """A column and a number for all rows."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.float32, name="x"),
            tf.TensorSpec([None, 1], tf.int64, name="n"),
            tf.TensorSpec([], tf.float32, name="scale"),
        ]
    )
    def __call__(self, x: Any, n: Any, scale: Any) -> Any:
        """Combine them."""
        return (x + tf.cast(n, tf.float32)) * scale


def test_rows_of_every_form_are_read_alike_by_check_warm_up_predict_and_remotely() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [7.0, 8.0], "x": [True, False]})
    named = [{"x": [1, 0], "n": np.array([7, 8]), "scale": 0.5}, {**frame, "scale": np.float64(0.5)}]
    handle = tfserve_nb.deploy(Two(name="two"), "two", check=named[0], warmup=named[1])
    remote = tfserve_nb.connect(handle.rest_url, token=handle.token)

    for rows in named:
        for each in (handle, remote):
            assert each.predict(rows).tolist() == [[4.0], [4.0]]

    both = tfserve_nb.deploy(both_of(), "both", warmup=frame)
    assert both.predict(frame).tolist() == [8.0, 8.0]
    assert both.predict({"x": 1, "n": 2}).tolist() == [3.0]
    with pytest.raises(InvalidRequest, match="the model has no input 'age'"):
        both.predict(frame.assign(age=3))
    with pytest.raises(InvalidOption, match="check: input 'x' is missing; given are n"):
        tfserve_nb.deploy(both_of(), "both", check=frame[["n"]])
    assert both.diff(1, 1, rows=frame).rows_from == "given rows"


def both_of() -> Any:
    x, n = keras.Input((1,), name="x"), keras.Input((), name="n", dtype="int32")
    return keras.Model([x, n], x[:, 0] + keras.ops.cast(n, "float32"))


def test_rows_for_a_model_without_the_default_signature() -> None:
    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
        def twice(self, x: Any) -> Any:
            return {"y": 2 * x}

    module = Other()
    tf.saved_model.save(module, "saved", signatures={"twice": module.twice})

    handle = tfserve_nb.deploy("saved", "other", check=[1, 2], warmup=[1, 2])

    assert handle.predict([1, 2], signature="twice").tolist() == [[2.0], [4.0]]
    assert handle.diff(1, 1).rows_from == "stored warm-up rows"
    with pytest.raises(InvalidRequest, match="serving_default") as caught:
        handle.predict([1, 2])
    assert "signature='twice'" in caught.value.hint
