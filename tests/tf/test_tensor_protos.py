"""Our reading and writing of TensorProto against TensorFlow's own, for every dtype and way to write one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.protos.tensors import fill, to_array

NUMERIC = [
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
    "complex64", "complex128",
]  # fmt: skip
ARRAYS = st.sampled_from(NUMERIC).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=200)
@given(ARRAYS, st.booleans())
def test_tensorflow_reads_what_we_write(array: np.ndarray, as_content: bool) -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    proto = TensorProto()
    fill(proto, array, as_content=as_content)

    same(tf.make_ndarray(proto), array)
    same(to_array(proto, "x"), array)


@settings(deadline=None, max_examples=200)
@given(ARRAYS)
def test_we_read_what_tensorflow_writes(array: np.ndarray) -> None:
    import tensorflow as tf

    same(to_array(tf.make_tensor_proto(array), "x"), array)


def test_bfloat16_and_text() -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    half = np.array([1.5, -2.0], dtype=tf.bfloat16.as_numpy_dtype)
    same(to_array(tf.make_tensor_proto(half), "x"), half)
    words = np.array([[b"a", b"\x00\xff"]], dtype=object)
    proto = TensorProto()
    fill(proto, words)
    assert tf.make_ndarray(proto).tolist() == words.tolist()
    same(to_array(proto, "x"), words)


@pytest.mark.parametrize(("dtype", "field", "values", "expected"), [
    (1, "float_val", [2.0], [2.0, 2.0, 2.0]),
    (1, "float_val", [1.0, 2.0], [1.0, 2.0, 2.0]),
    (1, "float_val", [], [0.0, 0.0, 0.0]),
    (9, "int64_val", [7], [7, 7, 7]),
    (7, "string_val", [b"a"], [b"a", b"a", b"a"]),
    (10, "bool_val", [True], [True, True, True]),
])  # fmt: skip
def test_short_lists_repeat_their_last_value(dtype: int, field: str, values: Any, expected: Any) -> None:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    proto = TensorProto(dtype=dtype, **{field: values})
    proto.tensor_shape.dim.add(size=3)

    assert to_array(proto, "x").tolist() == expected


def test_what_does_not_fit_is_refused() -> None:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    odd = TensorProto(dtype=1, tensor_content=b"123")
    negative = TensorProto(dtype=1)
    negative.tensor_shape.dim.add(size=-1)
    huge = TensorProto(dtype=1)
    huge.tensor_shape.dim.add(size=2**62)
    bomb = TensorProto(dtype=1, float_val=[1])
    bomb.tensor_shape.dim.add(size=2**31)
    resource = TensorProto(dtype=20)
    for proto in (odd, negative, huge, bomb, resource, TensorProto()):
        with pytest.raises(InvalidRequest, match="tensor parsing error: x"):
            to_array(proto, "x")


@pytest.mark.parametrize("shape", [(), (0,), (2,)])
def test_values_that_the_shape_has_no_room_for_are_left_out(shape: tuple[int, ...]) -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    for proto in (
        TensorProto(dtype=1, float_val=[1, 2, 3]),
        TensorProto(dtype=9, int64_val=[1, 2, 3]),
        TensorProto(dtype=7, string_val=[b"a", b"b", b"c"]),
    ):
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        wanted = tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype)).numpy()
        np.testing.assert_array_equal(to_array(proto, "x"), wanted)


def test_text_travels_as_content_as_tensorflow_writes_it() -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    texts = np.array([[b"a" * 300, b""], [b"\xff\x00", b"b"]], dtype=object)
    proto = TensorProto()
    fill(proto, texts, as_content=True)

    assert not proto.string_val
    read = tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy()
    assert read.tolist() == texts.tolist()
    assert to_array(proto, "x").tolist() == texts.tolist()
    for content in (b"\x05ab", b"\xff", b"\x80\x80\x80\x80\x80\x01", b"\x00\x00\x00\x00x"):
        with pytest.raises(InvalidRequest):
            to_array(TensorProto(dtype=7, tensor_shape=proto.tensor_shape, tensor_content=content), "x")
