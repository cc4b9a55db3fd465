"""Fingerprints of training data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfserve_nb.errors import InvalidOption
from tfserve_nb.export.provenance import fingerprint as module
from tfserve_nb.export.provenance.fingerprint import fingerprint


@given(arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(max_dims=3, max_side=5)))
def test_a_copy_has_the_same_fingerprint_whatever_its_layout(array: np.ndarray) -> None:
    assert fingerprint(np.asfortranarray(array)) == fingerprint(array.copy())


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.data())
def test_one_other_value_is_another_fingerprint(array: np.ndarray, data: st.DataObject) -> None:
    other = array.copy()
    place = data.draw(st.integers(0, array.size - 1))
    other.flat[place] ^= 1

    assert fingerprint(other).sha256 != fingerprint(array).sha256


def test_byte_order_does_not_count_and_type_and_shape_do() -> None:
    array = np.arange(6, dtype="<i4")

    assert fingerprint(array.astype(">i4")).sha256 == fingerprint(array).sha256
    different = [array, array.astype("i8"), array.reshape(2, 3), array.astype("f4"), array.view("u4")]
    assert len({fingerprint(one).sha256 for one in different}) == len(different)


def test_frames_dicts_lists_and_text_have_one_too() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    values: list[Any] = [
        frame, frame.rename(columns={"b": "c"}), frame.assign(b=["x", "z"]), {"a": np.ones(2)}, {"b": np.ones(2)},
        (np.ones(2), np.zeros(2)), (np.zeros(2), np.ones(2)), [[1, 2], [3, 4]], np.array([b"a", "ä"], object),
        ["ab", "c"], ["a", "bc"], 3,
    ]  # fmt: skip

    found = [fingerprint(value) for value in values]

    assert len({one.sha256 for one in found}) == len(values)
    assert (found[0].kind, found[0].shape) == ("DataFrame", (2, 2))
    assert found[0].dtype.startswith("a: int64, b: ")
    assert (found[3].kind, found[3].dtype, found[3].shape) == ("dict", "a: float64", (2,))


def test_large_arrays_are_sampled_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HASHED_BYTES", 8 * 100)
    array = np.arange(1000.0)

    whole, sampled = fingerprint(array[:100]), fingerprint(array)

    assert (whole.is_sampled, sampled.is_sampled) == (False, True)
    assert str(sampled).endswith("(sampled)")
    assert fingerprint(array.copy()) == sampled
    other = array.copy()
    other[-1] = 0  # the last row is always among them
    assert fingerprint(other).sha256 != sampled.sha256


def test_what_would_be_used_up_or_is_no_array_is_refused() -> None:
    with pytest.raises(InvalidOption, match="generator, which cannot be hashed without using it up"):
        fingerprint(one for one in range(3))
    with pytest.raises(InvalidOption, match="object is no array"):
        fingerprint(object())
    with pytest.raises(InvalidOption, match="1001 parts"):
        fingerprint({str(number): np.ones(1) for number in range(1001)})
