"""Named inputs that are read together give what each gives by itself, or the careful path's error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserve_nb.errors import ServingError
from tfserve_nb.server.rest import json_columns, json_tensors, predict_json
from tfserve_nb.server.rest.json_numbers import NumbersReader
from tfserve_nb.server.rest.predict_json import parse_predict, to_tensors
from tfserve_nb.types import SignatureSpec, TensorSpec

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "float16", "bool", "string"]
READER = NumbersReader()
NAMES = ["a", "b", "inputs", "b64", "instances"]


def signature_of(dtypes: dict[str, str]) -> SignatureSpec:
    return SignatureSpec("serving_default", {name: TensorSpec(name, dtype, None) for name, dtype in dtypes.items()}, {})


def outcome(text: bytes, signature: SignatureSpec) -> object:
    """What the server makes of a request, in a form that can be compared."""
    try:
        found = to_tensors(parse_predict(text), signature)
    except ServingError as error:
        return type(error).__name__, error.message
    assert all(array.flags.c_contiguous for array in found.values())
    return described(found)


def described(found: dict[str, np.ndarray]) -> object:
    """Arrays in a form that can be compared."""
    # Bytes, for NaN equals nothing; text has none that could be compared.
    return [
        (name, array.dtype.name, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in found.items()
    ]


def careful_outcome(text: bytes, signature: SignatureSpec) -> object:
    """The same, value by value."""

    def by_name(columns: Any, specs: Any) -> Any:
        return {name: json_tensors._careful(columns[name], spec) for name, spec in specs.items()}  # noqa: SLF001

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_columns, "from_rows", lambda *_: None)
        patch.setattr(json_columns, "from_columns", by_name)
        patch.setattr(predict_json, "to_array", json_tensors._careful)  # noqa: SLF001
        return outcome(text, signature)


def check(text: bytes, signature: SignatureSpec) -> None:
    wanted = careful_outcome(text, signature)
    assert outcome(text, signature) == wanted
    short = READER.read(text, {signature.name: signature})
    assert short is None or described(short.tensors) == wanted


numbers = st.one_of(
    st.integers(-300, 300),
    st.floats(),
    st.floats(width=32),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, -0.0, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 1e39, 1e-320, 255, 256, -1, 0.1]),
)
odd = st.one_of(
    st.booleans(), st.none(), st.text(max_size=2), st.just({"b64": "YQ=="}), st.just({"x": 1}), st.just([]), st.just({})
)
leaves = {"numbers": numbers, "integers": st.integers(-3, 130), "text": st.text(max_size=2), "odd": odd}


@st.composite
def values(draw: st.DrawFn, shape: list[int], kind: str) -> object:
    """A value of one shape; now and then of another one."""
    if draw(st.integers(0, 40)) == 0:
        return draw(st.one_of(odd, numbers, st.lists(st.one_of(numbers, odd), max_size=3)))
    if not shape:
        return draw(leaves[kind])
    return [draw(values(shape[1:], kind)) for _ in range(shape[0])]


class Twice(dict[str, Any]):
    """An object that is written with one of its keys a second time."""

    def items(self) -> Any:
        found = list(super().items())
        return [*found, (found[0][0], 7)] if found else found


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, str], object]:
    """The types of some inputs, and a request that nearly fits."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    dtypes = {name: draw(st.sampled_from(DTYPES)) for name in names}
    same = draw(st.booleans())
    if same:
        dtypes = dict.fromkeys(names, dtypes[names[0]])
    kinds = {
        name: draw(st.sampled_from(["numbers", "integers"] if dtype != "string" else ["text"]))
        for name, dtype in dtypes.items()
    }
    shapes = {name: draw(st.sampled_from([[], [1], [2], [2, 2], [1, 1, 1]])) for name in names}
    if same and draw(st.booleans()):
        shapes = dict.fromkeys(names, shapes[names[0]])
    is_rows = draw(st.booleans())
    num_rows = draw(st.integers(0, 4))

    def named(shape_of: Any) -> dict[str, Any]:
        order = draw(st.permutations(names)) if draw(st.integers(0, 3)) == 0 else names
        found = {name: draw(values(shape_of(name), kinds[name])) for name in order}
        change = draw(st.integers(0, 60))
        if change == 0:
            found.pop(next(iter(found)))
        if change in (0, 1):
            found["extra"] = 1
        return Twice(found) if change == 2 else found

    if is_rows:
        rows: list[Any] = [named(shapes.__getitem__) for _ in range(num_rows)]
        if draw(st.integers(0, 40)) == 0:
            rows.append(draw(st.one_of(odd, numbers)))
        return dtypes, {"instances": rows}
    return dtypes, {"inputs": named(lambda name: [num_rows, *shapes[name]])}


def write(value: Any) -> str:
    """JSON, with the pairs that `items` gives."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}: {write(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value)


@given(requests())
@example(({"a": "float32", "b": "float32"}, {"instances": [{"a": 1, "b": 2.5}, {"b": 1e39, "a": 2**53 + 1}]}))
@example(({"a": "float32", "b": "float32"}, {"instances": [{"a": 1, "b": True}]}))
@example(({"a": "string", "b": "string"}, {"instances": [{"a": ["x", "y"], "b": ["x", "y"]}, {"a": "zz", "b": "ab"}]}))
@example(({"a": "float32", "b": "float32"}, {"instances": [{"a": [1, 2], "b": [3]}, {"a": [1], "b": [2, 3]}]}))
@example(({"a": "float32", "b": "float32"}, {"instances": [{"a": [1], "b": [2]}, {"a": {"x": 1}, "b": [2]}]}))
@example(({"b64": "string"}, {"instances": [{"b64": ["x"]}, {"b64": "x"}]}))
@example(({"a": "int32", "b": "int32"}, {"instances": [{"a": 2**31, "b": 0}, {"a": 1, "b": 1}]}))
@example(({"a": "int32", "b": "int32"}, {"instances": [{"a": 1.0, "b": 0}]}))
@example(({"a": "float16", "b": "int32"}, {"instances": [{"a": 1, "b": "x"}]}))
@example(({"a": "float32", "b": "float32"}, {"inputs": {"a": [1, 2], "b": [1, 2], "extra": "x"}}))
@example(({"a": "float32", "b": "float32"}, {"inputs": {"a": 1, "b": 2}}))
@example(({"a": "float32", "b": "float32"}, {"inputs": {"a": [], "b": []}}))
@example(({"a": "float32", "b": "float32"}, {"instances": [Twice(a=1, b=2)]}))
def test_inputs_read_together_are_as_if_read_one_by_one(request_: tuple[dict[str, str], object]) -> None:
    dtypes, value = request_
    check(write(value).encode("utf-8", "surrogatepass"), signature_of(dtypes))


@given(requests(), st.data())
def test_damaged_requests_are_never_read_differently(
    request_: tuple[dict[str, str], object], data: st.DataObject
) -> None:
    dtypes, value = request_
    text = write(value)
    position, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 2))
    put = data.draw(st.sampled_from(["", "[", "]", ",", "1", "-", ".", "e", '"', " ", "true", "{", "}", ":", "\x00"]))
    damaged = (text[:position] + put + text[position + cut :]).encode("utf-8", "surrogatepass")
    signature = signature_of(dtypes)

    check(damaged, signature)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "string"]
)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
def test_plain_inputs_are_read_without_walking_over_their_values(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = np.arange(int(np.prod(shape))).reshape(shape).tolist()
    value = json.loads(json.dumps(one), parse_int=str) if dtype == "string" else one
    rows = [{"a": value, "b": value, "c": value} for _ in range(3)]
    signature = signature_of(dict.fromkeys("abc", dtype))
    monkeypatch.setattr(json_tensors, "_careful", None)

    by_row = to_tensors(parse_predict(json.dumps({"instances": rows}).encode()), signature)
    columns = {name: [row[name] for row in rows] for name in "abc"}
    by_column = to_tensors(parse_predict(json.dumps({"inputs": columns}).encode()), signature)

    for found in (by_row, by_column):
        for array in found.values():
            assert array.shape == (3, *shape)
            assert array[1:2].tolist() == [to_bytes(value)]


def to_bytes(value: Any) -> Any:
    """Text as arrays hold it."""
    if isinstance(value, list):
        return [to_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value
