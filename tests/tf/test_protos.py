"""TensorFlow's messages and files without TensorFlow, against its own reading and writing of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.protos.records import DamagedRecord, read_records, write_record
from tfserve_nb.protos.tensors import dtype_name, dtype_number, fill, to_array

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


def test_types_have_tensorflows_numbers_and_names() -> None:
    import tensorflow as tf
    from tensorflow.core.framework.types_pb2 import DataType

    numbers = [number for number in DataType.values() if number]
    known = {}
    for number in numbers:
        try:
            known[number] = tf.as_dtype(number).name
        except TypeError:  # a number without a type
            continue

    assert len(known) > 40
    assert {number: dtype_name(number) for number in known} == known
    own = {number: name for number, name in known.items() if not name.endswith("_ref")}
    assert {dtype_number(name): name for name in own.values()} == own


RECORDS = st.lists(st.binary(max_size=300), max_size=5)


@settings(deadline=None, max_examples=50)
@given(RECORDS)
def test_tensorflow_reads_our_records_and_we_its(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    import tensorflow as tf

    ours, theirs = (tmp_path_factory.mktemp("records") / name for name in ("ours", "theirs"))
    with ours.open("wb") as stream:
        for record in records:
            write_record(stream, record)
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)

    assert ours.read_bytes() == theirs.read_bytes()
    assert list(read_records(theirs)) == records


def test_a_record_that_is_damaged_or_cut_short_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "records"
    with path.open("wb") as stream:
        write_record(stream, b"first")
        write_record(stream, b"second")
    whole = path.read_bytes()

    for place in range(21, len(whole)):
        for damaged in (whole[:place], bytes([*whole[:place], whole[place] ^ 1, *whole[place + 1 :]])):
            path.write_bytes(damaged)
            if damaged == whole[:21]:
                assert list(read_records(path)) == [b"first"]
                continue
            found = read_records(path)
            assert next(found) == b"first"
            with pytest.raises(DamagedRecord):
                next(found)


@pytest.mark.parametrize(
    ("look", "later"),
    [
        ("import tensorflow as tf; assert tf.constant(1).numpy() == 1", "tf.keras.ops.add(1.0, 2.0)"),
        ("from tensorflow import as_dtype; assert as_dtype(1).name == 'float32'", "tf.constant(3.0)"),
        ("import keras; assert keras.backend.backend() == 'tensorflow'", "tf.keras.ops.add(1.0, 2.0)"),
    ],
)
def test_tensorflow_comes_with_the_first_look_at_more_than_its_messages(look: str, later: str) -> None:
    program = f"""
import inspect, sys, threading
from tfserve_nb.protos import postponed
postponed.postpone()
postponed.postpone()
from tensorflow.core.framework.tensor_pb2 import TensorProto
message = TensorProto(dtype=1, float_val=[2.0])
inspect.getmodule(inspect.currentframe())  # looks at the files of all modules
assert not hasattr(sys.modules["tensorflow"], "__wrapped__")
assert postponed.loaded() is None
assert "tensorflow.python" not in sys.modules

def look():
    try:
        exec({look!r}, {{}})
    except BaseException as error:
        failed.append(error)

failed = []
threads = [threading.Thread(target=look) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert failed == [], failed
import tensorflow as tf
assert postponed.loaded() is tf and type(tf) is type(sys)
assert tf.make_ndarray(message) == 2.0
print("with Keras" if "keras.src" in sys.modules else "without Keras")
assert {later}.numpy() == 3.0
try:
    tf.nothing_of_that_name
except AttributeError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip

    assert found.returncode == 0, found.stderr
    assert "nothing_of_that_name" in found.stdout
    assert ("with Keras" in found.stdout) == ("keras" in look)
