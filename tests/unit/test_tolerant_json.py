"""The tolerant parser: agrees with the strict one where that one parses, and knows rapidjson's words elsewhere."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.server.rest.json_text import TOLERANT_BYTES, parse_object
from tfserve_nb.server.rest.tolerant_json import SyntaxProblem, parse

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_infinity=False, allow_nan=False)
) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_it_reads_whatever_json_writes(value: object, indent: int | None, ensure_ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)

    assert parse(text.encode("utf-8", "surrogatepass")) == json.loads(text)


@given(st.binary(max_size=30) | st.text(alphabet='[]{},:"\\u01eE.-+NaInftrulse \n', max_size=30).map(str.encode))
def test_whatever_comes_it_answers_or_says_what_is_wrong(text: bytes) -> None:
    with contextlib.suppress(SyntaxProblem):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"  ", "The document is empty. at offset: 2"),
        (b"]", "The document is empty. at offset: 0"),
        (b"[1,]", "Invalid value. at offset: 3"),
        (b"[,1]", "Invalid value. at offset: 1"),
        (b"[1 2]", "Missing a comma or ']' after an array element. at offset: 3"),
        (b"[1", "Missing a comma or ']' after an array element. at offset: 2"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":1 "b"}', "Missing a comma or '}' after an object member. at offset: 7"),
        (b"{a:1}", "Missing a name for object member. at offset: 1"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a":}', "Invalid value. at offset: 5"),
        (b'{"a', "Missing a closing quotation mark in string. at offset: 3"),
        (rb'["\x"]', "Invalid escape character in string. at offset: 2"),
        (rb'["\u12g4"]', r"Incorrect hex digit after \u escape in string. at offset: 2"),
        (rb'["\ud800x"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
        (b"[5.]", "Miss fraction part in number. at offset: 3"),
        (b"[5e]", "Miss exponent in number. at offset: 3"),
        (b"[.5]", "Invalid value. at offset: 1"),
        (b"[+1]", "Invalid value. at offset: 1"),
        (b"[trux]", "Invalid value. at offset: 4"),
        (b"['a']", "Invalid value. at offset: 1"),
    ],
)
def test_errors_have_rapidjsons_words_and_places(text: bytes, message: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse(text)

    assert str(caught.value) == message


def test_numbers_that_json_has_not() -> None:
    values = parse(b"[NaN, Inf, -Inf, Infinity, -Infinity, -NaN, -0, 18446744073709551615, 18446744073709551616]")

    assert math.isnan(values[0])
    assert math.isnan(values[5])
    assert values[1:5] == [math.inf, -math.inf, math.inf, -math.inf]
    assert values[7] == 2**64 - 1
    assert isinstance(values[7], int)
    assert isinstance(values[8], float)


def test_trailing_bytes_marks_and_bad_text_are_taken() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1} and more') == {"a": 1}
    assert parse(b'["\xff"]') == ["\udcff"]


def test_the_first_of_two_members_counts() -> None:
    assert parse(b'{"a":1,"a":2}') == {"a": 1}


@pytest.mark.parametrize("rest", [b"", b', "x": 1e3', b', "x": NaN', b', "x": Inf'])
def test_the_first_of_two_members_counts_for_every_parser(rest: bytes) -> None:
    assert parse_object(b'{"inputs": 1, "inputs": 2' + rest + b"}")["inputs"] == 1


def test_nesting_has_no_limit() -> None:
    depth = 500_000

    value = parse_object(b'{"instances":' + b"[" * depth + b"]" * depth + b"}")["instances"]

    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_integers_beyond_64_bits_are_numbers_all_the_same() -> None:
    value = parse_object(b'{"instances": [36893488147419103232, NaN]}')["instances"]

    assert value[0] == 2.0**65
    assert isinstance(value[0], float)


def test_an_empty_body_is_an_empty_document() -> None:
    with pytest.raises(InvalidRequest, match="JSON Parse error: The document is empty$"):
        parse_object(b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rb'"\ud800"', "4 MiB at most may have escaped surrogates: send them as UTF-8"),
        (b"1e999", "Number too big to be stored in double. It is 1e999"),
        (b"nonsense", "Expecting value: line 1 column "),
    ],
)
def test_long_texts_say_what_is_wrong_too(text: bytes, message: str) -> None:
    body = b'{"a":"' + b"x" * TOLERANT_BYTES + b'", "instances": [' + text + b"]}"

    with pytest.raises(InvalidRequest) as caught:
        parse_object(body)

    assert caught.value.message.startswith(f"JSON Parse error: {message}")
