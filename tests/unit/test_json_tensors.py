"""JSON to tensors: the fast path is exactly as strict as the careful one, and what is written can be read."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserve_nb.errors import InvalidRequest, ServingError
from tfserve_nb.server.rest.json_tensors import UnsupportedDtype, _careful, to_array
from tfserve_nb.server.rest.json_text import debug_text, parse_object
from tfserve_nb.server.rest.predict_json import parse_predict, to_body, to_tensors
from tfserve_nb.types import SignatureSpec, TensorSpec

NUMERIC = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]

LEAF = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**31, 2**31 - 1, -(2**31), 2**63, 2**63 - 1, 2**64 - 1, 2**64, -1, 255, 256, 127, 128]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([1e39, 1.5, 0.1, -0.0, 1e-50]),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.just({"b64": "AA=="}),
)
SAME_KIND = st.one_of(st.integers(-5, 300), st.floats(width=32))
VALUES = st.one_of(
    st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=12),
    st.lists(st.lists(SAME_KIND, min_size=2, max_size=2), max_size=4),
    st.lists(st.lists(st.integers(-300, 300), min_size=1, max_size=3), max_size=4),
)


def outcome(convert, value: object, spec: TensorSpec) -> tuple[object, ...]:
    """What a conversion gives, in a form that can be compared."""
    try:
        array = convert(value, spec)
    except ServingError as error:
        return type(error).__name__, error.message
    return array.dtype.name, array.shape, array.tobytes()


@given(VALUES, st.sampled_from(NUMERIC))
@example([[1, 2], [3, True]], "float32")
@example([[1, 2], [3, "4"]], "float32")
@example([True, False], "int32")
@example([1, 2**63], "uint64")
@example([-1, 2**63], "int64")
@example([[], []], "int32")
@example([9007199254740993], "float32")
@example([[1, 2], [3]], "float32")
@example([1, [2]], "float64")
def test_fast_path_gives_what_the_careful_one_gives(value: object, dtype: str) -> None:
    spec = TensorSpec("x", dtype, None)

    fast = outcome(to_array, value, spec)

    assert outcome(_careful, value, spec) == fast


@pytest.mark.parametrize("dtype", NUMERIC)
def test_arrays_are_contiguous_and_of_the_exact_dtype(dtype: str) -> None:
    array = to_array([[1, 2], [3, 4]], TensorSpec("x", dtype, None))

    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        ([1.0], "int32", "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ([2**31], "int32", "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ([-1], "uint8", "JSON Value: -1 Type: Number is not of expected type: uint8"),
        ([256], "uint8", "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ([None], "float32", "JSON Value: null Type: Null is not of expected type: float"),
        ([1], "bool", "JSON Value: 1 Type: Number is not of expected type: bool"),
        ([1], "string", "JSON Value: 1 Type: Number is not of expected type: string"),
        ([{"b64": "?"}], "string", "Unable to base64 decode"),
        ([{"b65": ""}], "string", "not formatted correctly for base64 data"),
        ([[1], 2], "float64", "JSON Value: 2 found at incorrect level: 1 in the JSON DOM. Expected at level: 2"),
        ([1, [2]], "float64", "Encountered list at unexpected level: 1 expected < 1"),
    ],
)
def test_values_of_the_wrong_type_are_named(value: object, dtype: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_array(value, TensorSpec("x", dtype, None))

    assert text in caught.value.message


def test_half_floats_cannot_come_as_json() -> None:
    with pytest.raises(UnsupportedDtype, match="Conversion of JSON Value: 1 to type: half") as caught:
        to_array([1], TensorSpec("x", "float16", None))

    assert caught.value.http_status == 501


def test_base64_tolerates_white_space_and_missing_padding() -> None:
    array = to_array([{"b64": " aGk\n"}, "hi"], TensorSpec("x", "string", None))

    assert array.tolist() == [b"hi", b"hi"]


OUTPUTS = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)),
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4)),
    hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=4)),
    hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=4)),
    hnp.arrays(np.bool_, hnp.array_shapes(max_dims=3, max_side=4)),
)


@given(OUTPUTS, st.booleans())
def test_what_is_written_reads_back_exactly(array: np.ndarray, is_row_format: bool) -> None:
    body = json.loads(to_body({"y": array}, is_row_format=is_row_format))

    read = np.array(body["predictions" if is_row_format else "outputs"], dtype=array.dtype)
    np.testing.assert_array_equal(array, read)


@given(OUTPUTS)
def test_several_outputs_are_written_row_by_row(array: np.ndarray) -> None:
    body = json.loads(to_body({"a": array, "b": array[:, ...]}, is_row_format=True))

    assert len(body["predictions"]) == len(array)
    for row, item in zip(array, body["predictions"], strict=True):
        np.testing.assert_array_equal(row, np.array(item["a"], dtype=array.dtype))


def test_outputs_without_common_rows_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="has no shape information"):
        to_body({"y": np.float32(1.5)[()].reshape(())}, is_row_format=True)
    with pytest.raises(InvalidRequest, match="inconsistent batch size: 1 expecting: 2"):
        to_body({"a": np.zeros(2), "b": np.zeros(1)}, is_row_format=True)
    with pytest.raises(InvalidRequest, match="tensor type: half"):
        to_body({"a": np.zeros(2, np.float16)}, is_row_format=True)
    assert to_body({"a": np.zeros((0, 2))}, is_row_format=True) == b'{"predictions":[]}'
    assert to_body({"a": np.asarray(np.float32(0.1))}, is_row_format=False) == b'{"outputs":0.1}'


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused_and_never_break(data: bytes) -> None:
    try:
        value = parse_object(data)
    except InvalidRequest:
        return
    assert isinstance(value, dict)


@given(
    st.recursive(
        LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    )
)
def test_objects_parse_as_they_were_written(value: object) -> None:
    text = json.dumps({"v": value})

    parsed = parse_object(text.encode())["v"]

    assert json.dumps(parsed) == json.dumps(json.loads(text)["v"]) or _holds_large_integers(value)


def _holds_large_integers(value: object) -> bool:
    """Orjson reads integers beyond 64 bits as floats, as rapidjson does."""
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return True
    return False


def test_deep_nesting_is_refused_politely() -> None:
    request = parse_predict(b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")

    with pytest.raises(InvalidRequest, match="Too many dimensions: 99999, a tensor has at most 64"):
        to_tensors(request, SignatureSpec("s", {"x": TensorSpec("x", "float32", None)}, {}))


def test_numbers_beyond_double_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="Number too big to be stored in double"):
        parse_object(b'{"instances": [1e400]}')


def test_debug_text_has_tensorflow_servings_layout() -> None:
    assert debug_text([1, 2.5, "a", None, [True]]) == '[1, 2.5, "a", null, [true]]'
    assert debug_text({"instances": 1, "b": []}) == '{\n    "instances": 1,\n    "b": []\n}'
    assert debug_text({"a": [{"x": 1}]}) == '{\n    "a": [{\n            "x": 1\n        }]\n}'
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert debug_text(deep).startswith("[[[[")


def test_debug_text_is_short_for_large_values() -> None:
    assert len(debug_text({"instances": [[0.5] * 1000] * 1000})) <= 256
    assert math.isnan(json.loads(debug_text(float("nan"))))


@pytest.mark.parametrize("is_row_format", [True, False])
def test_text_is_written_exactly(is_row_format: bool) -> None:
    texts = np.array([b"a\0", "ä".encode(), b"\xff"], dtype=object)
    coded = [{"b64": base64.b64encode(text).decode()} for text in texts]
    key = "predictions" if is_row_format else "outputs"

    plain = json.loads(to_body({"y": texts}, is_row_format=is_row_format))
    named = json.loads(to_body({"y_bytes": texts}, is_row_format=is_row_format))

    assert plain == {key: ["a\0", "ä", coded[2]]}  # JSON has no other way for bytes that are no UTF-8
    assert named == {key: coded}


def test_text_without_dimensions_is_written_exactly() -> None:
    assert json.loads(to_body({"y": np.array(b"a\0", dtype=object)}, is_row_format=False)) == {"outputs": "a\0"}
    assert json.loads(to_body({"y_bytes": np.array(b"\xff", dtype=object)}, is_row_format=False)) == {
        "outputs": {"b64": "/w=="}
    }
