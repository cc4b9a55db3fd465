"""Values as JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tfserve_nb.errors import ServingError
from tfserve_nb.serialization import HighEnd, LowEnd, Sparse, TextFloat, check_format, from_json, to_json
from tfserve_nb.types import Tensors, VersionState


class Interval(NamedTuple):
    """A value with its ends."""

    value: float
    low: LowEnd
    high: HighEnd
    note: str = ""


@dataclass(frozen=True, slots=True)
class Everything:
    """A field of every kind."""

    interval: Interval | None
    flips: Mapping[tuple[int, int], int]
    shares: Mapping[int, float]
    series: NDArray[np.float64]
    by_phase: Mapping[str, NDArray[np.float64]]
    tensors: Tensors
    counts: Annotated[np.ndarray, Sparse(6)]
    staged: frozenset[int]
    path: Path
    state: VersionState
    data: bytes
    exact: Mapping[str, TextFloat]
    windows: tuple[bool | None, ...]
    _: KW_ONLY
    maybe: float | None = None


def there_and_back(value: Any) -> Any:
    return from_json(json.loads(json.dumps(to_json(value), allow_nan=False)), type(value))


def everything(**other: Any) -> Everything:
    plain: dict[str, Any] = {
        "interval": Interval(1.0, -math.inf, math.inf),
        "flips": {(1, 2): 3},
        "shares": {2: 50.0},
        "series": np.array([[1.0, np.nan], [2.5, 0.0]]),
        "by_phase": {"run": np.array([np.nan])},
        "tensors": {"x": np.arange(6, dtype=np.int16).reshape(2, 3), "t": np.array([b"\xff", "ä"], dtype=object)},
        "counts": np.array([0, 0, 7, 0, 1, 0]),
        "staged": frozenset({3, 1}),
        "path": Path("/a/b"),
        "state": VersionState.LOADING,
        "data": b"\x00\xff",
        "exact": {"loss": math.inf, "nan": math.nan},
        "windows": (True, None, False),
    }
    return Everything(**{**plain, **other})


def test_every_kind_of_value_comes_back() -> None:
    value = everything(maybe=0.5)

    back = there_and_back(value)

    for name in ("interval", "flips", "shares", "staged", "path", "state", "data", "windows", "maybe"):
        assert getattr(back, name) == getattr(value, name)
    np.testing.assert_array_equal(back.series, value.series)
    np.testing.assert_array_equal(back.by_phase["run"], value.by_phase["run"])
    np.testing.assert_array_equal(back.counts, value.counts)
    assert (back.counts.dtype, back.series.dtype) == (np.int64, np.float64)
    assert back.tensors["x"].dtype == np.int16
    np.testing.assert_array_equal(back.tensors["x"], value.tensors["x"])
    assert back.tensors["t"].tolist() == [b"\xff", "ä".encode()]
    assert back.exact["loss"] == math.inf
    assert math.isnan(back.exact["nan"])


def test_what_stands_in_the_json() -> None:
    written = json.loads(json.dumps(to_json(everything())))

    assert written["interval"] == [1.0, None, None, ""]
    assert written["flips"] == [[1, 2, 3]]
    assert written["shares"] == {"2": 50.0}
    assert written["series"] == [[1.0, None], [2.5, 0.0]]
    assert written["tensors"]["x"] == {"dtype": "int16", "shape": [2, 3], "data": "AAABAAIAAwAEAAUA"}
    assert written["counts"] == {"2": 7, "4": 1}
    assert (written["staged"], written["path"], written["state"]) == ([1, 3], "/a/b", "LOADING")
    assert written["exact"] == {"loss": "inf", "nan": "nan"}


@given(value=st.floats(), low=st.floats(), high=st.floats())
def test_an_interval_keeps_its_infinite_ends(value: float, low: float, high: float) -> None:
    back = there_and_back(Interval(value, low, high))

    assert back.value == value if math.isfinite(value) else math.isnan(back.value)
    assert back.low == (low if math.isfinite(low) else -math.inf)
    assert back.high == (high if math.isfinite(high) else math.inf)


def test_what_is_new_at_the_end_has_its_default() -> None:
    assert from_json([1.0, None, 2.0], Interval) == Interval(1.0, -math.inf, 2.0)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"shares": {"x": 1}}, ValueError, "'x'"),
        ({"shares": {"1": True}}, TypeError, "True is no number"),
        ({"flips": None}, TypeError, "not iterable"),
        ({"staged": [1.5]}, ValueError, "1.5 is no integer"),
        ({"staged": [True]}, ValueError, "True is no integer"),
        ({"windows": ["yes"]}, TypeError, "'yes' is neither true nor false"),
        ({"state": "ASLEEP"}, KeyError, "ASLEEP"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], error: type[Exception], text: str) -> None:
    value = {**to_json(everything()), **change}
    with pytest.raises(error, match=text):
        from_json(value, Everything)


def test_names_that_are_missing_or_not_known() -> None:
    value = to_json(everything())
    del value["path"]
    with pytest.raises(KeyError, match="path"):
        from_json(value, Everything)

    value = {**to_json(everything()), "colour": "red"}
    assert from_json(value, Everything).path == Path("/a/b")
    with pytest.raises(TypeError, match="Everything has no colour"):
        from_json(value, Everything, is_strict=True)


@pytest.mark.parametrize("found", [3, "new", None])
def test_a_newer_format_is_refused_by_name(found: object) -> None:
    with pytest.raises(ServingError, match="a.file has the format .* reads formats up to 2") as caught:
        check_format(found, 2, "a.file")
    assert "upgrade" in caught.value.hint
    check_format(2, 2, "a.file")
