"""The Open Inference Protocol: the real tritonclient, and raw requests that are wrong in every way."""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from helpers.eventually import eventually
from helpers.fake_serving import SIGNATURES
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.server.rest.metadata_json import SIGNATURES_FIELD, signatures_mark
from tfserve_nb.server.rest.v2_tensors import to_array, to_output
from tfserve_nb.types import numpy_dtype

INFER = "/v2/models/double/infer"
ROWS = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
AUTH = {"Authorization": "Bearer right-token"}


@pytest.fixture
def client(server) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{server.thread.port}")
    yield made
    made.close()


def tensor(name: str, array: np.ndarray, datatype: str, *, is_binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=is_binary)
    return made


def test_server_and_model_describe_themselves(server, client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double", headers=dict(AUTH))
    assert not client.is_model_ready("none", headers=dict(AUTH))
    assert client.get_server_metadata(headers=dict(AUTH))["extensions"] == ["binary_tensor_data"]

    described = client.get_model_metadata("double", headers=dict(AUTH))
    assert described == {
        "name": "double",
        "versions": ["1", "2"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }


@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("wants_binary", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_tritonclient_infers(server, client, is_binary: bool, wants_binary: bool, compression: str | None) -> None:
    rows = np.array([[1.5, 2], [3, -4]], np.float32)

    answer = client.infer(
        "double",
        [tensor("x", rows, "FP32", is_binary=is_binary)],
        model_version="1",
        outputs=[triton.InferRequestedOutput("y", binary_data=wants_binary)],
        request_id="mine",
        headers=dict(AUTH),  # the client writes into it
        request_compression_algorithm=compression,
    )

    np.testing.assert_array_equal(answer.as_numpy("y"), rows * 2 + 1)
    assert (answer.get_response()["id"], answer.get_response()["model_version"]) == ("mine", "1")
    record = server.serving.wait_for_records(1)[0]
    assert (record.api, record.version, record.code, record.num_rows) == ("infer", 1, "OK", 2)
    assert server.serving.num_held == 0


@pytest.mark.parametrize("is_binary", [False, True])
def test_text_and_several_tensors(server, client, is_binary: bool) -> None:
    text = np.array([b"a", "ä\n".encode(), b""], dtype=object)
    answer = client.infer(
        "double",
        [tensor("s", text, "BYTES", is_binary=is_binary)],
        outputs=[triton.InferRequestedOutput("t", binary_data=is_binary)],
        parameters={"signature_name": "text"},
        headers=dict(AUTH),  # the client writes into it
    )
    got = answer.as_numpy("t").tolist()
    assert [one if isinstance(one, bytes) else one.encode() for one in got] == text.tolist()

    a, b = np.array([1, 2], np.int32), np.array([[1, 2], [3, 4]], np.float32)
    answer = client.infer(
        "double",
        [tensor("a", a, "INT32", is_binary=is_binary), tensor("b", b, "FP32", is_binary=is_binary)],
        parameters={"signature_name": "pair"},
        headers=dict(AUTH),  # the client writes into it
    )
    np.testing.assert_array_equal(answer.as_numpy("sum"), [4, 9])
    np.testing.assert_array_equal(answer.as_numpy("product"), a[:, None] * b)


def test_tritonclient_is_told_what_is_wrong(server, client) -> None:
    x = tensor("x", np.zeros((1, 3), np.float32), "FP32", is_binary=True)

    with pytest.raises(InferenceServerException, match=r"x has shape \[1, 3\], expected"):
        client.infer("double", [x], headers=dict(AUTH))
    with pytest.raises(InferenceServerException, match="Servable not found"):
        client.infer("none", [x], headers=dict(AUTH))
    with pytest.raises(InferenceServerException, match="token"):
        client.infer("double", [x])


def asks(**changes: Any) -> dict[str, Any]:
    """A request whose only input is changed."""
    return {"inputs": [{**ROWS["inputs"][0], **changes}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON parse error"),
        (b'{"inputs": [}', "JSON parse error: unexpected character, expected a JSON value: line 1 column 13"),
        (b'{"inputs": "\xff"}', "JSON parse error: "),
        (b"[]", "must be a JSON object"),
        (b"{}", "'inputs' must be a list"),
        ({"inputs": []}, "'inputs' must be a list"),
        ({"inputs": [5]}, "'inputs' must be a list"),
        (asks(datatype="FP8"), "has datatype 'FP8'; known: BOOL"),
        (asks(shape="2"), "has shape '2'"),
        (asks(shape=[1, -2]), "has shape [1, -2]"),
        (asks(shape=[1, True]), "has shape [1, True]"),
        (asks(shape=[10**12, 10**12]), "is not FP32 of shape"),
        (asks(data=[1]), "cannot reshape"),
        (asks(data=[1, "2"]), "it holds"),
        (asks(data=[1, [2]]), "is not FP32"),
        (asks(datatype="INT8", data=[1, 300]), "does not fit"),
        (asks(datatype="INT32", data=[1.5, 2]), "it holds float64"),
        (asks(datatype="BOOL", data=[0, 1]), "it holds int64"),
        (asks(datatype="BYTES", data=[1, 2]), "is not text"),
        (asks(datatype="FP64"), "x has dtype float64, expected"),
        (asks(name="z"), "Sent extra: {z}. Missing but required: {x}."),
        ({"inputs": [*ROWS["inputs"], *ROWS["inputs"]]}, "is given twice"),
        ({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]}, "neither data nor binary_data_size"),
        (asks(parameters={"binary_data_size": 8}), "binary_data_size 8, and 0 bytes are left"),
        (asks(parameters={"binary_data_size": -8}), "binary_data_size -8"),
        (asks(parameters={"binary_data_size": "8"}), "binary_data_size '8'"),
        ({**ROWS, "outputs": [{"name": "z"}]}, "output 'z' is none of y"),
        ({**ROWS, "outputs": "y"}, "'outputs' must be a list"),
        ({**ROWS, "parameters": 5}, "'parameters' must be an object"),
        ({**ROWS, "parameters": {"signature_name": "other"}}, 'Serving signature name: "other" not found'),
    ],
)
def test_wrong_requests_are_told_why(common, body: object, text: str) -> None:
    answer = common.predict(body, INFER)

    assert answer.status == 400
    assert text in answer.json["error"]
    eventually(lambda: common.serving.num_held == 0)


@pytest.mark.parametrize(
    ("header_length", "data", "text"),
    [
        ("9999", b"", "the body has"),
        ("-1", b"", "Inference-Header-Content-Length: '-1'"),
        ("1_0", b"", "Inference-Header-Content-Length"),
        (None, b"\0" * 7, "7 bytes are left"),
        (None, b"\0" * 9, "1 bytes are left behind the last tensor"),
    ],
)
def test_wrong_sizes_of_raw_tensors_are_told(common, header_length: str | None, data: bytes, text: str) -> None:
    head = json.dumps(asks(parameters={"binary_data_size": 8})).encode()
    headers = {"Inference-Header-Content-Length": header_length or str(len(head))}

    answer = common.predict(head + data, INFER, headers=headers)

    assert answer.status == 400
    assert text in answer.json["error"]


def test_nested_lists_numbers_without_fractions_and_gzip_are_taken(server) -> None:
    nested = json.dumps(asks(data=[[1, 2]])).encode()

    answer = server.predict(gzip.compress(nested), INFER, headers={"Content-Encoding": "gzip"})

    assert answer.json["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [4.0, 6.0]}]


def test_a_label_names_the_version(server) -> None:
    answer = server.predict(ROWS, "/v2/models/double/labels/stable/infer")
    assert (answer.json["model_version"], answer.json["outputs"][0]["data"]) == ("1", [3.0, 5.0])
    record = server.serving.wait_for_records(1)[0]
    assert (record.label, record.version) == ("stable", 1)

    answer = server.predict(ROWS, "/v2/models/double/labels/none/infer")
    assert "Unrecognized servable version label: none" in answer.json["error"]


def test_a_request_for_other_signatures_is_not_run(server) -> None:
    mark = signatures_mark(SIGNATURES)

    assert server.predict(ROWS, INFER, headers={SIGNATURES_FIELD: mark}).status == 200
    assert server.predict(ROWS, INFER, headers={SIGNATURES_FIELD: "other"}).status == 412
    assert server.serving.num_held == 0


def test_json_may_hold_nan_and_infinity_both_ways(server) -> None:
    answer = server.predict(asks(shape=[2, 2], data=[float("nan"), float("inf"), -float("inf"), 1.0]), INFER)

    np.testing.assert_array_equal(answer.json["outputs"][0]["data"], [np.nan, np.inf, -np.inf, 4.0])


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "bfloat16"])
def test_what_json_cannot_carry_travels_raw(dtype: str) -> None:
    array = np.array([[1.5, -2], [0, np.inf]]).astype(numpy_dtype(dtype))
    described, data = to_output("x", array, is_binary=True)
    found, _ = to_array(described, data, 0)

    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    with pytest.raises(InvalidRequest, match=r"output 'x' is \w+, which JSON cannot carry: ask for binary data"):
        to_output("x", array, is_binary=False)
    with pytest.raises(InvalidRequest, match=r"input 'x' is \w+, which JSON cannot carry: send binary data"):
        to_array({**asks(datatype=described["datatype"])["inputs"][0]}, b"", 0)


def test_unsigned_integers_of_64_bits_in_json() -> None:
    given_input = {"name": "x", "datatype": "UINT64", "shape": [2], "data": [0, 2**64 - 1]}

    assert to_array(given_input, b"", 0)[0].tolist() == [0, 2**64 - 1]
    with pytest.raises(InvalidRequest, match="out of bounds for uint64|does not fit"):
        to_array({**given_input, "data": [-1, 2**64 - 1]}, b"", 0)


def test_methods_and_paths(server) -> None:
    assert server.call("GET", "/v2").json["name"] == "tfserve_nb"
    assert server.call("GET", "/v2/health/live", token=None).status == 200
    assert server.call("GET", "/v2/models/double", token=None).status == 401
    for method, path in (("POST", "/v2"), ("GET", INFER), ("POST", "/v2/models/double"), ("GET", "/v2/other")):
        assert server.call(method, path).status == 400
    assert server.call("GET", "/v2x").status == 404


arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).astype(dtype).reshape(shape),
    st.sampled_from(["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16"]),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)


@given(arrays, st.integers(0, 3))
def test_raw_tensors_come_back_as_they_were(array: np.ndarray, offset: int) -> None:
    described, data = to_output("x", array, is_binary=True)
    body = b"?" * offset + data

    got, position = to_array(described, body, offset)

    assert (got.dtype, got.shape, position) == (array.dtype, array.shape, len(body))
    np.testing.assert_array_equal(got, array)
    assert got.flags.aligned


@given(st.binary(max_size=40), st.integers(0, 5))
def test_damaged_text_never_raises_anything_else(data: bytes, count: int) -> None:
    given_input = {"name": "s", "datatype": "BYTES", "shape": [count], "parameters": {"binary_data_size": len(data)}}
    with contextlib.suppress(InvalidRequest):
        array, _ = to_array(given_input, data, 0)
        assert b"".join(struct.pack("<I", len(one)) + one for one in array) == data
