"""What users pass as a batch, normalised; batches made from a signature; comparing outputs. No TensorFlow needed."""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import ExportFailed, InvalidOption, InvalidRequest, ModelNotServable
from tfserve_nb.export.arrays import MAX_CHECKED_ROWS, as_array, given_as, named_batch, read_rows, specs_of
from tfserve_nb.export.check import compare_outputs, example_batch
from tfserve_nb.export.endpoint import (
    is_made_up_layer_name,
    leaves,
    name_inputs,
    name_outputs,
    pack,
    unique,
)
from tfserve_nb.export.reasons import cause_in_graph, disk_reason, innermost, shorten
from tfserve_nb.types import SignatureSpec, TensorSpec

X = TensorSpec("x", "float32", (None, 3))
Y = TensorSpec("y", "int32", (None,))
TEXT = TensorSpec("text", "string", (None, 1))
Pair = namedtuple("Pair", ["left", "right"])


class Frame:
    """As much of a data frame as is needed here."""

    def __init__(self, **columns: list[Any]) -> None:
        self.data = columns

    @property
    def columns(self) -> list[str]:
        """The labels."""
        return list(self.data)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.array(self.data[name])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(list(self.data.values()), dtype=dtype).T

    @property
    def dtypes(self) -> list[np.dtype]:
        """The type of each column."""
        return [np.asarray(values).dtype for values in self.data.values()]


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1.5, 2]], "float32"),
        ([1, 2], "int32"),
        ([1, 2**40], "int64"),
        (np.array([1, 2.5], object), "float64"),
        ([True], "bool"),
        (["a"], "string"),
        ([b"a"], "string"),
        (np.zeros(2), "float64"),
        (np.zeros(2, np.uint8), "uint8"),
        (np.array(["a", "b"]), "string"),
        (np.zeros(1, np.complex64), "complex64"),
    ],
)
def test_types_are_tensorflows(value: object, dtype: str) -> None:
    assert as_array(value)[1] == dtype


def test_text_becomes_bytes() -> None:
    array, _ = as_array([["é"], [b"\x00\xff\x00"]])

    assert array.tolist() == [["é".encode()], [b"\x00\xff\x00"]]
    assert array.dtype == object


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2], [3]], "the value is no regular array: list [[1, 2], [3]]: its rows have different shapes"),
        ([[[1], [2]], [[3]]], "list [[[1], [2]], [[3]]]: its rows have different shapes"),
        ([np.zeros(2), np.zeros(3)], "array([0., 0., 0.])]: its rows have different shapes"),
        (["a", None], "the value has no value in row 1: None"),
        ([b"a", 1.5], "the value holds 1.5 in row 1, which is neither text nor a number"),
        ("\ud800", "the value holds text that UTF-8 cannot have"),
        ([{}], "the value holds {} in row 0, which is neither text nor a number"),
        ([2**70], "the value holds numbers beyond 64 bits"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "has the type datetime64[D], which TensorFlow does not have"),
    ],
)
def test_what_is_no_array_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        as_array(value)
    with pytest.raises(InvalidOption, match="check: the value "), given_as("check"):
        raise caught.value


def test_one_input_takes_anything_array_like() -> None:
    for value in ([[1, 2, 3]], np.array([[1, 2, 3]]), ([1, 2, 3],), {"x": [[1, 2, 3]]}, Frame(a=[1], b=[2], c=[3])):
        batch = named_batch(value, signature(X))
        assert batch["x"].dtype == np.float32
        assert batch["x"].tolist() == [[1.0, 2.0, 3.0]]


def test_several_inputs_come_by_name_or_in_order() -> None:
    by_name = named_batch({"y": [7], "x": [[1, 2, 3]]}, signature(X, Y))
    in_order = named_batch(([7], [[1, 2, 3]]), signature(X, Y, order=("y", "x")))

    assert list(by_name) == ["x", "y"]
    for name in by_name:
        np.testing.assert_array_equal(by_name[name], in_order[name])


def test_columns_of_a_frame_fit_inputs_by_name() -> None:
    batch = named_batch(Frame(text=["a", "b"], y=[1, 2]), signature(TEXT, Y))

    assert batch["text"].tolist() == [[b"a"], [b"b"]]
    assert batch["y"].tolist() == [1, 2]


def test_nested_structures_are_found_by_their_paths() -> None:
    specs = [TensorSpec("a_0", "float32", (None,)), TensorSpec("a_1", "float32", (None,))]

    assert named_batch({"a": [np.ones(2), np.zeros(2)]}, signature(*specs))["a_1"].tolist() == [0, 0]


def test_one_row_is_a_batch_of_one() -> None:
    assert named_batch([1, 2, 3], signature(X))["x"].shape == (1, 3)


def test_long_batches_are_cut() -> None:
    assert len(named_batch(np.zeros((10_000, 3)), signature(X))["x"]) == MAX_CHECKED_ROWS


@pytest.mark.parametrize(
    ("value", "specs", "message"),
    [
        ({"x": [[1, 2, 3]]}, [X, Y], "input 'y' is missing; given are x"),
        ({"x": [[1, 2, 3]], "y": [1], "z": 1}, [X, Y], "the model has no input 'z'"),
        ({"a": [[1, 2, 3]]}, [X], "input 'x' is missing; given are a"),
        (np.zeros((2, 3)), [X, Y], "the array does not fit a model with 2 inputs"),
        (5, [X, Y], "int 5 does not fit a model with 2 inputs"),
        (np.zeros((2, 4)), [X], "Input x has shape [2, 4], expected float32[?, 3]"),
        ({"x": np.zeros((2, 3)), "y": [1]}, [X, Y], "the inputs have different numbers of rows: x has 2, y has 1"),
        (np.zeros((0, 3)), [X], "the batch has no rows"),
        (["a", "b", "c"], [X], "Input x holds string values, expected float32[?, 3]"),
        ([1.5], [Y], "Input y holds float values, expected int32[?]"),
        ([[1.5]], [TEXT], "Input text holds float values, expected string[?, 1]"),
        (np.array([2**40]), [Y], "Input y holds 1099511627776 to 1099511627776, expected int32[?]"),
        ([np.inf], [Y], "Input y holds inf to inf, expected int32[?]"),
        ([2.0**63], [TensorSpec("y", "int64", (None,))], "expected int64[?]"),
        ([1], [TensorSpec("y", "bool", (None,))], "Input y holds integer values, expected bool[?]"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(value: object, specs: list[TensorSpec], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        named_batch(value, signature(*specs))

    assert message in caught.value.message
    assert caught.value.hint


def test_whole_floats_may_become_integers() -> None:
    assert named_batch([1.0, 2.0], signature(Y))["y"].dtype == np.int32


IMAGE = TensorSpec("image", "float32", (None, 2, 2, 1))
SERIES = TensorSpec("series", "float32", (None, None, 1))
FIXED = TensorSpec("fixed", "float32", (8, 2))
SCALAR = TensorSpec("scalar", "float32", ())
COLUMN = TensorSpec("column", "float32", (None, 1))
LABELS = TensorSpec("labels", "int64", (None,))
ANYTHING = TensorSpec("anything", "float32", None)


@pytest.mark.parametrize(
    ("value", "spec", "shape"),
    [
        ([1, 2, 3], COLUMN, (3, 1)),
        (np.ones(3, bool), COLUMN, (3, 1)),
        (7, COLUMN, (1, 1)),
        ([], COLUMN, (0, 1)),
        (np.ones((3, 1)), LABELS, (3,)),
        (7, LABELS, (1,)),
        ("yes", TEXT, (1, 1)),
        (np.ones((5, 2, 2)), IMAGE, (5, 2, 2, 1)),
        (np.ones((2, 2, 1), np.uint8), IMAGE, (1, 2, 2, 1)),
        (np.ones((5, 7)), SERIES, (5, 7, 1)),
        (np.ones((8, 2)), FIXED, (8, 2)),
        (0.5, SCALAR, ()),
        (np.float64(0.5), SCALAR, ()),
        (np.float32(0.5), ANYTHING, ()),
        (np.ones((2, 3)).T, ANYTHING, (3, 2)),
    ],
)
def test_a_served_model_takes_rows_in_the_shapes_that_keras_takes(
    value: object, spec: TensorSpec, shape: tuple[int, ...]
) -> None:
    array = read_rows(signature(spec), value)[spec.name]

    assert array.shape == shape
    assert array.dtype == spec.numpy_dtype
    assert array.flags.c_contiguous


A = TensorSpec("a", "float32", (None, 1))
B = TensorSpec("b", "float32", (None, 1))


@pytest.mark.parametrize("read", [read_rows, named_batch])
def test_a_list_of_arrays_is_in_the_order_of_the_call(read: Any) -> None:
    wanted = signature(A, B, order=("b", "a"))

    for value in ([np.array([1, 2]), np.array([3, 4])], (np.array([[1], [2]]), [3, 4]), ([1, 2, 5], [3, 4, 6])):
        rows = read(wanted, value) if read is read_rows else read(value, wanted)
        assert list(rows) == ["a", "b"]
        assert rows["b"][:2].tolist() == [[1], [2]]
        assert rows["a"][:2].tolist() == [[3], [4]]


@pytest.mark.parametrize(
    ("value", "order", "message"),
    [
        ([np.ones((2, 1)), np.ones((2, 1))], (), "list does not fit a model with 2 inputs, of which no order is known"),
        ([[1, 2], [3, 4]], ("b", "a"), "list [[1, 2], [3, 4]] may be 2 inputs or 2 rows"),
        ([np.ones((2, 1))] * 3, ("b", "a"), "does not fit a model with 2 inputs"),
        (np.ones((2, 1)), ("b", "a"), "the array does not fit a model with 2 inputs"),
        (
            [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
            ("b", "a"),
            "Input a holds {'a': 3, 'b': 4}, which is neither text nor a number",
        ),
    ],
)
def test_a_list_that_may_be_something_else_is_no_order(value: object, order: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        read_rows(signature(A, B, order=order), value)
    assert "a dict" in caught.value.hint


def test_what_is_not_one_array_for_each_input_is_answered_with_their_order() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rows(signature(A, B, order=("b", "a")), [np.ones((2, 1))])

    assert caught.value.hint == "give a list of b, a, or a dict: {'a': ..., 'b': ...}"


def test_several_inputs_of_a_served_model_need_names() -> None:
    rows = read_rows(signature(X, SCALAR), {"x": np.ones((2, 3)), "scalar": 0.5})

    assert rows["scalar"].shape == ()
    with pytest.raises(InvalidRequest, match="does not fit a model with 2 inputs") as caught:
        read_rows(signature(X, Y), ([[1, 2, 3]], [7]))
    assert caught.value.hint == "give a dict: {'x': ..., 'y': ...}"


def test_whole_numbers_keep_all_their_digits() -> None:
    ids = [2**24 + 1, 2**53 + 1, 2**63 - 1]

    assert read_rows(signature(LABELS), ids)["labels"].tolist() == ids


UNSIGNED = TensorSpec("unsigned", "uint64", (None,))


@pytest.mark.parametrize("make", [list, lambda ids: np.array(ids, object)], ids=["list", "objects"])
def test_whole_numbers_of_both_halves_of_64_bits_keep_their_digits(make: Any) -> None:
    ids = [2**63 + 5, 1]  # numpy makes floats of them

    assert read_rows(signature(UNSIGNED), make(ids))["unsigned"].tolist() == ids
    with pytest.raises(InvalidRequest, match="beyond 64 bits"):
        read_rows(signature(UNSIGNED), make([2**63 + 5, -1]))


@pytest.mark.parametrize("value", [np.float32(2**24 + 2), np.float16(2050), np.float64(2**53 + 2)])
def test_floats_that_may_have_lost_digits_do_not_become_whole_numbers(value: Any) -> None:
    kept = np.asarray([-value / 2])
    assert read_rows(signature(LABELS), kept)["labels"].tolist() == kept.tolist()
    with pytest.raises(InvalidRequest, match=r"Input labels holds .*, which float\d\d rounds"):
        read_rows(signature(LABELS), np.asarray([value]))


def test_a_named_tuple_is_rows_by_name() -> None:
    rows = read_rows(signature(X, Y), namedtuple("Rows", ["x", "y"])([[1, 2, 3]], [7]))

    assert rows["y"].tolist() == [7]
    assert specs_of(Pair([1.5], ["a"])) == Pair(TensorSpec("", "float32", (None,)), TensorSpec("", "string", (None,)))


def test_a_single_value_is_asked_for_as_such() -> None:
    with pytest.raises(InvalidRequest, match=re.escape("Input scalar has shape [1], expected float32[]")) as caught:
        read_rows(signature(SCALAR), [0.5])
    assert caught.value.hint == "give one value for all rows, not a list of them"


def test_a_check_takes_as_many_rows_as_a_fixed_batch_has() -> None:
    assert named_batch(np.zeros((20, 2)), signature(FIXED))["fixed"].shape == (8, 2)
    with pytest.raises(InvalidRequest, match=re.escape("Input fixed has shape [20, 2], expected float32[8, 2]")):
        read_rows(signature(FIXED), np.zeros((20, 2)))


def frames() -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    return {
        "mixed": pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]}),
        "nullable": pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [1, 0]}).convert_dtypes(),
        "objects": pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [1, 0]}, dtype=object),
        "categories": pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [1, 0]}).astype({"a": "category"}),
        "twice": pandas.DataFrame([[1, 0.5, 1], [2, 1.5, 0]], columns=["a", "b", "a"]),
    }


@pytest.mark.parametrize("kind", ["mixed", "nullable", "objects", "categories", "twice"])
def test_a_data_frame_is_a_matrix_of_its_columns(kind: str) -> None:
    batch = read_rows(signature(X), frames()[kind])

    assert batch["x"].tolist() == [[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]]


def test_columns_of_data_frames_are_inputs_by_name_in_any_order() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "column": [True, False], "labels": [7.0, 2.0]})
    frame["text"] = frame["text"].astype("category")
    wanted = signature(COLUMN, LABELS, TEXT)

    rows = read_rows(wanted, frame)
    row = read_rows(wanted, frame.iloc[1])

    assert rows["text"].tolist() == [[b"a"], [b"b"]]
    assert rows["column"].tolist() == [[1.0], [0.0]]
    assert rows["labels"].tolist() == [7, 2]
    assert {name: array.tolist() for name, array in row.items()} == {
        "column": [[0.0]], "labels": [2], "text": [[b"b"]]
    }  # fmt: skip
    for changed, message in (
        (frame.drop(columns="labels"), "input 'labels' is missing; given are text, column"),
        (frame.assign(age=3), "the model has no input 'age'"),
        (frame.assign(text=["a", None]), "Input text has no value in row 1"),
        (frame.assign(labels=pandas.array([1, None], dtype="Int64")), "Input labels has no value in row 1"),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(message)):
            read_rows(wanted, changed)
    with pytest.raises(InvalidRequest, match="Input x mixes numbers with text, in column 'text'"):
        read_rows(signature(X), frame)


def test_record_arrays_have_names_too() -> None:
    records = np.array([(1.5, 2)], dtype=[("column", "f8"), ("labels", "i2")])

    assert read_rows(signature(COLUMN, LABELS), records)["labels"].tolist() == [2]


class RaggedTensor:
    """As much of TensorFlow's as is needed here."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def nested_row_lengths(self) -> list[np.ndarray]:
        """How many values each row has."""
        return [np.array(self.lengths)]

    def to_tensor(self) -> np.ndarray:
        """Padded."""
        return np.ones((len(self.lengths), max(self.lengths)))


def test_ragged_rows_are_taken_when_none_would_be_padded() -> None:
    assert read_rows(signature(X), RaggedTensor([3, 3]))["x"].shape == (2, 3)
    with pytest.raises(InvalidRequest, match="Input x is a RaggedTensor; requests carry dense tensors"):
        read_rows(signature(X), RaggedTensor([3, 2]))


# ---------------------------------------------------------------- made-up batches


def signature(*specs: TensorSpec, order: tuple[str, ...] = ()) -> SignatureSpec:
    return SignatureSpec("serving_default", {spec.name: spec for spec in specs}, {}, order=order)


def test_examples_have_the_types_and_shapes_of_the_signature() -> None:
    specs = [
        TensorSpec("f", "float32", (None, 3)),
        TensorSpec("h", "float16", (None, None)),
        TensorSpec("i", "int64", (None,)),
        TensorSpec("u", "uint8", (None, 2, 2, 1)),
        TensorSpec("b", "bool", (None,)),
        TensorSpec("s", "string", (None, 1)),
        TensorSpec("c", "complex64", (None,)),
        TensorSpec("fixed", "float32", (8, 2)),
        TensorSpec("scalar", "float32", ()),
        TensorSpec("anything", "float32", None),
    ]

    batch = example_batch(signature(*specs), 5, free_size=7)

    assert {name: array.shape for name, array in batch.items()} == {
        "f": (5, 3),
        "h": (5, 7),
        "i": (5,),
        "u": (5, 2, 2, 1),
        "b": (5,),
        "s": (5, 1),
        "c": (5,),
        "fixed": (8, 2),
        "scalar": (),
        "anything": (5, 1),
    }
    for spec in specs:
        assert batch[spec.name].dtype == spec.numpy_dtype
    assert all(isinstance(word, bytes) for word in batch["s"].ravel())
    assert 0 <= batch["i"].min() <= batch["i"].max() < 10


def test_examples_are_the_same_every_time() -> None:
    np.testing.assert_array_equal(example_batch(signature(X))["x"], example_batch(signature(X))["x"])


def test_plain_examples_are_zeros() -> None:
    batch = example_batch(signature(X, TEXT), is_plain=True)

    assert not batch["x"].any()
    assert set(batch["text"].ravel()) == {b"0"}


# ---------------------------------------------------------------- comparing


def test_equal_outputs_have_no_difference() -> None:
    outputs = {"a": np.array([[1.0, np.nan, np.inf, -np.inf]], np.float32), "s": np.array([b"x"], object)}

    assert compare_outputs(outputs, {name: array.copy() for name, array in outputs.items()}) == 0.0


def test_rounding_is_allowed_and_reported() -> None:
    live = np.array([[0.1], [0.9]], np.float32)

    assert compare_outputs({"a": live}, {"a": live + np.float32(1e-6)}) == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_each_type_has_its_own_tolerance(dtype: type) -> None:
    live = np.linspace(-3, 3, 20, dtype=dtype)
    step = float(np.finfo(dtype).eps)
    close, far = live + dtype(5 * step), live * dtype(1 + max(0.05, 5e5 * step))

    compare_outputs({"a": live}, {"a": close}, computed_in="float64")
    with pytest.raises(ExportFailed):
        compare_outputs({"a": live}, {"a": far}, computed_in="float64")


def test_a_model_that_computes_in_half_precision_gets_its_tolerance() -> None:
    live, served = np.array([1.0], np.float32), np.array([1.004], np.float32)

    compare_outputs({"a": live}, {"a": served}, computed_in="float16")
    with pytest.raises(ExportFailed):
        compare_outputs({"a": live}, {"a": served})


def test_given_tolerances_are_taken_literally() -> None:
    live, served = np.array([1.0, 0.0]), np.array([1.1, 0.01])

    compare_outputs({"a": live}, {"a": served}, rtol=0.2, atol=0.02)
    with pytest.raises(ExportFailed, match=r"allowed 0 \+ 0.2 of the value"):
        compare_outputs({"a": live}, {"a": served}, rtol=0.2, atol=0.0)


def test_a_difference_names_output_row_size_and_tolerance() -> None:
    live = np.zeros((3, 2), np.float32)
    served = live.copy()
    served[2, 1] = 0.5

    with pytest.raises(ExportFailed) as caught:
        compare_outputs({"scores": live}, {"scores": served})

    assert caught.value.message == (
        "output 'scores' of the SavedModel differs from the live model in row 2: 0.5 instead of 0 (largest difference "
        "0.5, allowed 1e-06 + 0.0001 of the value)"
    )
    assert caught.value.hint


@pytest.mark.parametrize(
    ("live", "served", "message"),
    [
        (np.array([1.0]), np.array([np.nan]), "in row 0: nan instead of 1"),
        (np.array([np.nan]), np.array([1.0]), "in row 0: 1 instead of nan"),
        (np.array([np.inf]), np.array([-np.inf]), "in row 0: -inf instead of inf"),
        (np.array(1.0), np.array(2.0), "live model: 2 instead of 1"),
        (np.array([1, 2]), np.array([1, 3]), "in row 1: np.int64(3) instead of np.int64(2) (1 of 2 values differ"),
        (np.array([True]), np.array([False]), "in row 0: np.False_ instead of np.True_"),
        (np.array([b"a"], object), np.array([b"b"], object), "in row 0: b'b' instead of b'a'"),
        (np.zeros((2, 3)), np.zeros((2, 4)), "is float64[2, 4], of the live model float64[2, 3]"),
        (np.zeros(2), np.zeros(2, int), "is int64[2], of the live model float64[2]"),
    ],
)
def test_real_differences_are_found(live: np.ndarray, served: np.ndarray, message: str) -> None:
    with pytest.raises(ExportFailed, match=re.escape(message)):
        compare_outputs({"a": live}, {"a": served})


def test_missing_outputs_are_found() -> None:
    with pytest.raises(ExportFailed, match="the SavedModel has the outputs a, the live model b"):
        compare_outputs({"b": np.zeros(1)}, {"a": np.zeros(1)})


def test_outputs_without_rows_are_equal() -> None:
    assert compare_outputs({"a": np.zeros((0, 2))}, {"a": np.zeros((0, 2))}) == 0.0


# ---------------------------------------------------------------- structures and names


STRUCTURES = st.recursive(
    st.integers(),
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=3),
        st.lists(children, min_size=1, max_size=3).map(tuple),
        st.tuples(children, children).map(lambda pair: Pair(*pair)),
        st.dictionaries(st.text("abc", min_size=1, max_size=2), children, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@given(STRUCTURES)
def test_packing_the_leaves_gives_the_structure_again(structure: object) -> None:
    assert pack(structure, [leaf for _, leaf in leaves(structure)]) == structure


@given(STRUCTURES)
def test_leaves_have_different_paths(structure: object) -> None:
    paths = [path for path, _ in leaves(structure)]

    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("structure", "own_names", "names"),
    [
        (0, ["pixels"], ("pixels",)),
        (0, ["keras_tensor_17"], ("inputs",)),
        (0, ["input_layer"], ("inputs",)),
        ([0], [""], ("inputs",)),
        ([0, 0], ["keras_tensor", "b"], ("inputs_0", "b")),
        ({"a": 0, "b": 0}, ["keras_tensor_1", "keras_tensor_2"], ("a", "b")),
        ({"a": [0, 0]}, ["", ""], ("a_0", "a_1")),
        ([0, {"2nd": 0}], ["", ""], ("inputs_0", "inputs_1_2nd")),
        ({"2nd": 0}, [""], ("2nd",)),
        ([0, 0], ["x", "x"], ("x", "x_1")),
    ],
)
def test_inputs_keep_the_names_that_users_gave(structure: object, own_names: list[str], names: tuple[str, ...]) -> None:
    assert name_inputs(structure, own_names, "inputs") == names


def test_outputs_keep_keys_fields_and_layer_names() -> None:
    a, b = np.zeros(1), np.ones(1)

    assert list(name_outputs(a)) == ["output_0"]
    assert list(name_outputs([a, b])) == ["output_0", "output_1"]
    assert list(name_outputs((a, b), ("price", ""))) == ["price", "output_1"]
    assert list(name_outputs({"y": a, "x": b}, ("p", "q"))) == ["y", "x"]
    assert list(name_outputs(Pair(a, b))) == ["left", "right"]
    assert list(name_outputs({"y": [a, b]})) == ["y_0", "y_1"]
    assert list(name_outputs([a, b], ("same", "same"))) == ["same", "same_1"]


@pytest.mark.parametrize(("outputs", "message"), [({"a": None}, "output 'a' is a NoneType"), ([], "returns nothing")])
def test_outputs_that_are_no_tensors_are_refused(outputs: object, message: str) -> None:
    with pytest.raises(ModelNotServable, match=message):
        name_outputs(outputs)


@pytest.mark.parametrize(
    ("name", "class_name", "is_made_up"),
    [
        ("dense", "Dense", True),
        ("dense_4", "Dense", True),
        ("global_average_pooling2d_1", "GlobalAveragePooling2D", True),
        ("price", "Dense", False),
        ("dense_out", "Dense", False),
        ("dense", "Conv2D", False),
    ],
)
def test_names_that_keras_made_up_are_recognised(name: str, class_name: str, *, is_made_up: bool) -> None:
    assert is_made_up_layer_name(name, class_name) is is_made_up


def test_names_are_made_unique() -> None:
    assert unique(["a", "a", "a_1", "a"]) == ("a", "a_1", "a_1_1", "a_2")


# ---------------------------------------------------------------- reasons


def test_the_cause_is_dug_out_of_what_keras_wraps_around_it() -> None:
    text = (
        "Exception encountered when calling Num.call().\n\n\x1b[1mbad thing\x1b[0m\n\n"
        "Arguments received by Num.call():\n"
        "  • x=tf.Tensor(shape=(None, 4), dtype=float32)"
    )

    assert innermost(ValueError(text)) == "ValueError: bad thing"


def test_the_cause_is_dug_out_of_autographs_traceback() -> None:
    text = 'in user code:\n\n    File "a.py", line 3, in f  *\n        x + 1\n\n    TypeError: unsupported operand\n'

    assert innermost(TypeError(text)) == "TypeError: unsupported operand"


GRAPH_ERROR = """Graph execution error:

Detected at node 'embedding/GatherV2' defined at (most recent call last):
<stack traces unavailable>
indices[0,1] = 99 is not in [0, 3)
\t [[{{node embedding/GatherV2}}]] [Op:__inference_call_123]"""

GRAPH_ERROR_WITH_PLACES = """Graph execution error:

Detected at node embedding/GatherV2 defined at (most recent call last):
  File "/usr/lib/python3.11/runpy.py", line 196, in _run_module_as_main

  File "/usr/lib/python3.11/runpy.py", line 86, in _run_code

indices[0,1] = 99 is not in [0, 3)
\t [[{{node embedding/GatherV2}}]] [Op:__inference_call_123]"""

GRAPH_ERROR_WITH_CODE = """Graph execution error:

Detected at node embedding/GatherV2 defined at (most recent call last):
  File "/tmp/cell.py", line 3, in call
    return self.embedding(ids)
Node: 'embedding/GatherV2'
2 root error(s) found.
  (0) INVALID_ARGUMENT:  indices[0,1] = 99 is not in [0, 3)
\t [[{{node embedding/GatherV2}}]]
0 successful operations."""


@pytest.mark.parametrize(
    "text",
    [
        GRAPH_ERROR,
        GRAPH_ERROR_WITH_PLACES,
        GRAPH_ERROR_WITH_CODE,
        GRAPH_ERROR_WITH_CODE.replace("Node: ", "[[{{node "),
        "indices[0,1] = 99 is not in [0, 3)",
    ],
)
def test_the_cause_of_an_error_in_a_graph_is_found(text: str) -> None:
    assert innermost(ValueError(text)) == "ValueError: indices[0,1] = 99 is not in [0, 3)"
    assert cause_in_graph(text) == "indices[0,1] = 99 is not in [0, 3)"


def test_an_error_in_a_graph_without_a_cause_is_named_by_its_type() -> None:
    assert innermost(ValueError("Graph execution error:\n")) == "ValueError"


def test_the_type_of_an_error_of_tensorflow_is_no_reason() -> None:
    runtime_error = type(
        "InvalidArgumentError", (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"}
    )

    assert innermost(runtime_error("Unknown image file format")) == "Unknown image file format"


def test_the_innermost_of_chained_errors_counts() -> None:
    error = RuntimeError("outer")
    error.__cause__ = KeyError("inner")

    assert innermost(error) == "KeyError: 'inner'"
    assert innermost(ValueError()) == "ValueError"


def test_reasons_are_one_short_line() -> None:
    assert shorten("a\n  b {{node x}} c [Op:Y]") == "a b c"
    assert len(shorten("x" * 1000)) == 300


def test_what_the_disk_said_is_found() -> None:
    assert disk_reason(OSError(28, "whatever")) == "No space left on device"
    assert disk_reason(RuntimeError("save failed; File too large [Op:SaveV2]")) == "File too large"
    assert disk_reason(ValueError("shape")) is None
