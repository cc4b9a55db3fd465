"""The same bits through every door of every home: each dtype, by each protocol, in the kernel, isolated and remote."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.converting import convert_here

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidRequest


class Home(NamedTuple):
    """A handle, and where its server takes gRPC; a handle of a remote server does not know that."""

    handle: Deployment
    grpc_address: str | None


HOMES = ("kernel", "isolated", "remote", "onnx", "litert")
"""The last two are the kernel's, where engines run the dtypes that they have."""

MOST_ROWS = 4
"""Of a request here: each of twenty signatures is run, compared and measured for every batch size up to that."""

BYTES = [b"", b"a\0", b"\0\0", b"\xff\xfe\x00", 'ä\n"'.encode(), b"x" * 300]


def _floats(name: str) -> list[float]:
    info = np.finfo(name)
    return [0.1, -0.0, float("nan"), float("inf"), float("-inf"), float(info.max), float(info.tiny), 3.0]


def _rows(dtype: str) -> np.ndarray:
    """`(n, 2)`, with what is special about a dtype."""
    if dtype == "string":
        return np.array(BYTES, dtype=object).reshape(-1, 2)
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if dtype == "bfloat16":
        import ml_dtypes

        return np.array([[0.1, float("nan")], [float("inf"), 3.0]], ml_dtypes.bfloat16)
    if dtype.startswith("complex"):
        return np.array([[1 + 2j, complex(0.1, float("inf"))], [complex(float("nan"), -0.0), 3]], dtype)
    if dtype.startswith("float"):
        return np.array(_floats(dtype), dtype).reshape(-1, 2)
    info = np.iinfo(dtype)
    return np.array([[info.min, info.max], [0, info.max - 1]], dtype)


DTYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex64", "complex128", "string",
)  # fmt: skip


def write_echo(path: Path) -> Path:
    """A SavedModel that gives back what it gets: a signature for each dtype, and texts without dimensions."""
    import tensorflow as tf

    model = tf.Module()
    signatures = {}

    def add(name: str, shape: list[int | None], dtype: str, *outputs: str) -> None:
        function = tf.function(lambda x: dict.fromkeys(outputs, tf.identity(x)), autograph=False)
        setattr(model, f"echo_{name}", function)
        signatures[name] = function.get_concrete_function(x=tf.TensorSpec(shape, dtype))

    for dtype in DTYPES:
        add(dtype, [None, 2], dtype, "y")
    add("scalar_text", [], "string", "y")
    add("scalar_bytes", [], "string", "y_bytes")
    add("empty", [None, 0], "float32", "y")
    add("text_bytes", [None, 2], "string", "y_bytes")
    tf.saved_model.save(model, str(path), signatures=signatures)
    return path


@pytest.fixture(autouse=True)
def _no_kept_connections(homes: dict[str, Home]) -> Iterator[None]:
    """The clients' connections stay open between requests; each test has its own."""
    yield
    for home in ("isolated", "remote"):
        homes[home].handle._server.models.connection.close()  # type: ignore[attr-defined]  # noqa: SLF001 - a client's


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Home]]:
    """One handle for each home; the isolated one answers through a worker, remote is the kernel's server over HTTP."""
    folder = tmp_path_factory.mktemp("parity")
    model = write_echo(folder / "echo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        convert_here(patch)
        kernel = tfserve_nb.deploy(model, "echo", grpc_port=0, max_batch_size=MOST_ROWS)
        isolated = tfserve_nb.deploy(model, "alone", isolate=True, grpc_port=0, workers=1, max_batch_size=MOST_ROWS)
        remote = tfserve_nb.connect(kernel.rest_url, kernel.token)
        yield {
            "kernel": Home(kernel, kernel.grpc_address),
            "isolated": Home(isolated, isolated.grpc_address),
            "remote": Home(remote, kernel.grpc_address),
            **{engine: Home(_with_engine(model, engine), kernel.grpc_address) for engine in ("onnx", "litert")},
        }
        tfserve_nb.shutdown()


def _with_engine(model: Path, engine: str) -> Deployment:
    handle = tfserve_nb.deploy(model, f"by_{engine}", engine=engine, max_batch_size=MOST_ROWS)
    run = {row.signature for row in handle.status().versions[0].engines if row.engine == engine and row.is_chosen}
    assert {"float32", "float64", "int32", "int64", "bool"} <= run
    return handle


def post(url: str, token: str | None, body: bytes, fields: dict[str, str] | None = None) -> tuple[bytes, Any]:
    """A response's body and header fields.

    Raises:
        InvalidRequest: with the text of the error response.
    """
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token}", **(fields or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read(), response.headers
    except urllib.error.HTTPError as error:
        raise InvalidRequest(json.loads(error.read())["error"]) from None


def _plain(array: np.ndarray) -> Any:
    """JSON values."""
    if array.dtype == object:
        return [[{"b64": base64.b64encode(item).decode()} for item in row] for row in array.tolist()]
    return [[str(item) for item in row] for row in array] if array.dtype.kind in "cV" else array.tolist()


def _from_json(value: Any, like: np.ndarray) -> np.ndarray:
    if like.dtype != object:
        return np.array(value, like.dtype)
    texts = [
        base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode() for row in value for item in row
    ]
    return np.array(texts, dtype=object).reshape(like.shape)


def by_rest(home: Home, signature: str, rows: np.ndarray, key: str, answer: str) -> np.ndarray:
    body = json.dumps({"signature_name": signature, key: _plain(rows)}).encode()
    text, _ = post(f"{home.handle.rest_url}:predict", home.handle.token, body)
    return _from_json(json.loads(text)[answer], rows)


def by_row(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    return by_rest(home, signature, rows, "instances", "predictions")


def by_column(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    return by_rest(home, signature, rows, "inputs", "outputs")


def by_v2(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    """Raw tensors, written and read by Triton's own client where it knows the dtype."""
    import tritonclient.http as triton
    from tritonclient.utils import np_to_triton_dtype

    url, _, name = home.handle.rest_url.partition("/v1/models/")
    names = {"bfloat16": "BF16", "complex64": "COMPLEX64", "complex128": "COMPLEX128"}
    given = triton.InferInput("x", list(rows.shape), names.get(rows.dtype.name) or np_to_triton_dtype(rows.dtype))
    if rows.dtype.name in names:
        given._raw_data = rows.tobytes()  # noqa: SLF001 - it has no way to give them
        given._parameters["binary_data_size"] = rows.nbytes  # noqa: SLF001
    else:
        given.set_data_from_numpy(rows)
    client = triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60.0)
    try:
        result = client.infer(
            name,
            [given],
            parameters={"signature_name": signature},
            headers={"Authorization": f"Bearer {home.handle.token}"},
        )
    except Exception as error:
        raise InvalidRequest(str(error)) from error
    finally:
        client.close()
    (output,) = result.get_response()["outputs"]
    if rows.dtype.name in names:
        raw = result._buffer  # noqa: SLF001
        return np.frombuffer(raw, rows.dtype).reshape(output["shape"])
    return result.as_numpy(output["name"])


def by_grpc(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = home.handle.name, signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(rows, dtype=tf.string if rows.dtype == object else None))
    with grpc.insecure_channel(home.grpc_address) as channel:
        metadata = [("authorization", f"Bearer {home.handle.token}")]
        try:
            answer = PredictionServiceStub(channel).Predict(request, timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            raise InvalidRequest(error.details()) from None
    (output,) = answer.outputs.values()
    return tf.make_ndarray(output)


def by_handle(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    return home.handle.predict(rows, signature=signature)


def by_v2_json(home: Home, signature: str, rows: np.ndarray) -> np.ndarray:
    url, _, name = home.handle.rest_url.partition("/v1/models/")
    datatype = {"float": "FP", "uint": "UINT", "int": "INT", "bool": "BOOL"}[rows.dtype.name.rstrip("0123456789")]
    datatype += str(8 * rows.itemsize) if datatype != "BOOL" else ""
    given = {"name": "x", "shape": list(rows.shape), "datatype": datatype, "data": rows.tolist()}
    body = json.dumps({"inputs": [given], "parameters": {"signature_name": signature}}).encode()
    (output,) = json.loads(post(f"{url}/v2/models/{name}/infer", home.handle.token, body)[0])["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(rows.shape))
    return np.array(output["data"], rows.dtype).reshape(rows.shape)


DOORS = {"row": by_row, "column": by_column, "v2": by_v2, "grpc": by_grpc, "predict": by_handle}
NOT_IN_JSON = ("float16", "bfloat16", "uint16", "complex64", "complex128")
"""TensorFlow Serving refuses them in JSON."""


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.tobytes() == expected.tobytes(), (found, expected)


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_comes_back_is_what_was_sent(homes: dict[str, Home], dtype: str, door: str, home: str) -> None:
    rows = _rows(dtype)
    ask: Callable[..., np.ndarray] = DOORS[door]
    if door in ("row", "column") and dtype in NOT_IN_JSON:
        with pytest.raises(InvalidRequest, match="Conversion of JSON Value"):
            ask(homes[home], dtype, rows)
        return
    assert_same_bits(ask(homes[home], dtype, rows), rows)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in (*NOT_IN_JSON, "string")] + ["uint16"])
def test_numbers_in_the_json_of_v2(homes: dict[str, Home], dtype: str) -> None:
    assert_same_bits(by_v2_json(homes["kernel"], dtype, _rows(dtype)), _rows(dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_v2_names_what_its_json_cannot_carry(homes: dict[str, Home], dtype: str) -> None:
    kernel = homes["kernel"].handle
    url, _, name = kernel.rest_url.partition("/v1/models/")
    datatype = {"float16": "FP16", "bfloat16": "BF16", "complex64": "COMPLEX64"}[dtype]
    given = {"name": "x", "shape": [1, 2], "datatype": datatype, "data": [1, 2]}
    body = json.dumps({"inputs": [given], "parameters": {"signature_name": dtype}}).encode()
    with pytest.raises(InvalidRequest, match=f"is {datatype}, which JSON cannot carry: (send|ask for) binary data"):
        post(f"{url}/v2/models/{name}/infer", kernel.token, body)


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("text", [*BYTES, "a\0", "ä"])
def test_text_without_dimensions(homes: dict[str, Home], home: str, text: bytes | str) -> None:
    expected = text.encode() if isinstance(text, str) else text
    handle = homes[home].handle
    for given in (text, np.array(text, dtype=object)):
        found = handle.predict(given, signature="scalar_text")
        assert (found.dtype, found.shape, found.item()) == (np.dtype(object), (), expected)
    value = {"b64": base64.b64encode(expected).decode()}
    for signature in ("scalar_text", "scalar_bytes"):
        body = json.dumps({"signature_name": signature, "inputs": value}).encode()
        answered = json.loads(post(f"{handle.rest_url}:predict", handle.token, body)[0])["outputs"]
        is_text = signature == "scalar_text" and b"\xff" not in expected
        assert answered == (expected.decode() if is_text else value)
    found = by_grpc(homes[home], "scalar_text", np.array(expected, dtype=object))
    assert (found.shape, found.item()) == ((), expected)
    found = by_v2(homes[home], "scalar_bytes", np.array(expected, dtype=object).reshape(())) if expected else found
    assert (found.shape, found.item()) == ((), expected)


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("door", ["v2", "grpc", "predict"])
@pytest.mark.parametrize(
    ("signature", "rows"),
    [
        *((dtype, _rows(dtype)[:0]) for dtype in ("float32", "float16", "complex64", "bool", "int64", "string")),
        ("empty", np.zeros((3, 0), np.float32)),
        ("empty", np.zeros((0, 0), np.float32)),
    ],
)
def test_nothing_is_something_too(
    homes: dict[str, Home], signature: str, rows: np.ndarray, door: str, home: str
) -> None:
    assert_same_bits(DOORS[door](homes[home], signature, rows), rows)


def test_rest_gives_text_that_is_no_utf_8_as_base64(homes: dict[str, Home]) -> None:
    kernel = homes["kernel"].handle
    for signature in ("string", "text_bytes"):
        body = json.dumps({"signature_name": signature, "instances": _plain(_rows("string"))}).encode()
        rows = json.loads(post(f"{kernel.rest_url}:predict", kernel.token, body)[0])["predictions"]
        kinds = {type(item) for row in rows for item in row}
        assert kinds == ({str, dict} if signature == "string" else {dict})
        assert_same_bits(_from_json(rows, _rows("string")), _rows("string"))
