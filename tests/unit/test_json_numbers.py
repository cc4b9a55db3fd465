"""The short way from text to arrays gives what the careful way gives, or leaves it to it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.server.rest.json_numbers import NumbersReader
from tfserve_nb.server.rest.predict_json import parse_predict, to_tensors
from tfserve_nb.types import SignatureSpec, TensorSpec

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "float16", "bool", "string"]
READER = NumbersReader()


def signature_of(dtype: str) -> SignatureSpec:
    return SignatureSpec("serving_default", {"x": TensorSpec("x", dtype, None)}, {})


def carefully(body: bytes, signature: SignatureSpec) -> np.ndarray | None:
    """What the other way makes of a text; None when it refuses it."""
    try:
        request = parse_predict(body)
        if request.signature != signature.name:
            return None
        return to_tensors(request, signature)["x"]
    except InvalidRequest:
        return None


def check(body: bytes, dtype: str) -> bool:
    """Compare both ways; whether the short one was taken."""
    signature = signature_of(dtype)
    found = READER.read(body, {signature.name: signature})
    if found is None:
        return False
    wanted = carefully(body, signature)
    assert wanted is not None, "what the careful way refuses"
    array = found.tensors["x"]
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(array, wanted)
    assert found.is_row_format == parse_predict(body).is_row_format
    return True


numbers = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.floats(width=32),
    st.sampled_from([0, -0.0, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 1e39, 1e-320, 255, 256, -1]),
)
odd = st.one_of(st.booleans(), st.none(), st.text(max_size=3), st.just({"b64": "YQ=="}), st.just({"x": 1}), st.just([]))
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@st.composite
def regular(draw: st.DrawFn) -> object:
    """Lists of one shape."""
    shape = draw(shapes)

    def level(sizes: list[int]) -> object:
        return [level(sizes[1:]) for _ in range(sizes[0])] if sizes else draw(numbers)

    return level(shape)


anything = st.recursive(st.one_of(numbers, odd), lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(
    st.one_of(regular(), anything),
    st.sampled_from(DTYPES),
    st.sampled_from(["instances", "inputs"]),
    st.sampled_from([None, "serving_default", "other", "[", ""]),
    st.sampled_from([None, (",", ":"), (" , ", " :\n")]),
)
@example([1, [1]], "float32", "instances", None, None)
@example([[1], 2, [3, [4]]], "float32", "instances", None, None)
@example([[1, 2], [3, 4, 5]], "float32", "inputs", None, None)
@example([[[1, 2], [3, 4]], [[5], [6, 7, 8]]], "float32", "inputs", None, None)
@example([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "float32", "inputs", "[", None)
def test_both_ways_agree(
    value: object, dtype: str, key: str, name: str | None, separators: tuple[str, str] | None
) -> None:
    request = {key: value} if name is None else {"signature_name": name, key: value}
    check(json.dumps(request, separators=separators).encode(), dtype)


@given(st.one_of(regular(), anything), st.data())
def test_damaged_texts_are_never_read_differently(value: object, data: st.DataObject) -> None:
    text = json.dumps({"instances": value})
    position = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(
        st.sampled_from(["", "[", "]", ",", "1", "-", ".", "e", '"', " ", "true", "{", "}", "\x00", "\ufeff"])
    )
    check((text[:position] + put + text[position + cut :]).encode(), data.draw(st.sampled_from(DTYPES)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(1, 784), (3,), (64, 2), (2, 3, 4), (1, 8, 8, 3), (200, 3), (1, 6000)])
def test_plain_numbers_take_the_short_way(dtype: str, shape: tuple[int, ...]) -> None:
    values = (np.arange(math.prod(shape)) % 100).reshape(shape)
    rows = (values / 8).tolist() if dtype.startswith("float") else values.tolist()

    assert check(json.dumps({"instances": rows}).encode(), dtype)
    assert check(json.dumps({"inputs": rows, "signature_name": "serving_default"}).encode(), dtype)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"instances": 5}',
        b'{"instances": []}',
        b'{"instances": [[]]}',
        b'{"instances": [1], "instances": [2]}',
        b'{"instances": [1], "inputs": [2]}',
        b'{"instances": [1], "other": 2}',
        b'{"instances": [NaN]}',
        b'{"instances": [1]} trailing',
        b'\xef\xbb\xbf{"instances": [1]}',
        b'{"instances": [18446744073709551616]}',
        b'{"instances": [1e400]}',
        b'{"inputs": {"x": [1]}}',
        b'{"instances": [{"x": 1}]}',
        b'{"signature_name": 5, "instances": [1]}',
        b'{"instances": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_everything_else_is_left_to_the_careful_way(body: bytes) -> None:
    assert not check(body, "float32")


def test_lists_that_are_long_along_the_first_elements_only_take_no_memory() -> None:
    long = "[" + ",".join(["1"] * 3000) + "]"
    wide = "[" + ",".join([long, *["[1]"] * 3000]) + "]"
    deep = '{"instances": [' + ",".join([wide, *["[[1]]"] * 3000]) + "]}"

    assert not check(deep.encode(), "float32")


def test_large_texts_do_not_leave_their_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfserve_nb.server.rest.json_numbers.MAX_KEPT_BYTES", 100)

    assert check(json.dumps({"instances": [list(range(100))]}).encode(), "float32")


def test_a_part_that_somebody_holds_does_not_end_the_short_way() -> None:
    reader = NumbersReader()
    held = reader._parser.parse(b'{"instances": [1]}')  # noqa: SLF001 - what a debugger would do
    signature = signature_of("float32")

    assert reader.read(b'{"instances": [1]}', {"serving_default": signature}) is None
    assert reader.read(b'{"instances": [1]}', {"serving_default": signature}) is not None
    assert held["instances"][0] == 1
