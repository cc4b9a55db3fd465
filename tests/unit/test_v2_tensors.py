"""V2: plain lists of numbers become arrays at once, and everything else gets the same answer as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.server.rest import v2_tensors
from tfserve_nb.server.rest.v2_tensors import to_array

DATATYPES = ["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL", "BYTES"]

numbers = st.one_of(
    st.integers(-300, 300),
    st.floats(),
    st.sampled_from([0, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 1e39, 255, 256, True, False, None, "x", 1.0]),
)


def outcome(data: Any, datatype: str) -> object:
    size = len(data) if isinstance(data, list) else 1
    given_ = {"name": "x", "shape": [size], "datatype": datatype, "data": data}
    try:
        array, _ = to_array(given_, b"", 0)
    except InvalidRequest as error:
        return error.message
    return array.dtype.name, array.shape, array.tolist() if array.dtype == object else array.tobytes()


@given(st.lists(st.one_of(numbers, st.lists(numbers, max_size=2)), max_size=4), st.sampled_from(DATATYPES))
@example([True, False], "INT32")
@example([1, True], "FP32")
@example([1.0], "INT32")
@example([2**64 - 1, 1], "UINT64")
@example([1e39], "FP32")
@example([-1], "UINT8")
def test_plain_numbers_are_read_as_all_others(data: list[Any], datatype: str) -> None:
    plain = outcome(data, datatype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2_tensors, "plain_array", lambda *_: None)

        assert plain == outcome(data, datatype)


def test_integers_go_through_double_as_in_the_other_protocol() -> None:
    between = 2**24 * 2**29 + 2**28 + 1  # float32's next-but-one, unless double has rounded it before
    array, _ = to_array({"name": "x", "shape": [1], "datatype": "FP32", "data": [between]}, b"", 0)

    assert array[0] == np.float32(float(between))
