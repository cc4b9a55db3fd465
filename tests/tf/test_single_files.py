"""Models that are one file of another runtime: ONNX and TensorFlow Lite, through every door."""

from __future__ import annotations

import importlib.util
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.black_box import servers
from helpers.onnx_models import counting_loop, echo, linear, linear_scores, node, onnx_model, recurrent

import tfserve_nb
from tfserve_nb.api import engine_check
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import (
    DeadlineExceeded,
    ExportFailed,
    InvalidOption,
    ModelNotServable,
    NotAvailable,
    RunRejected,
    ServingError,
)
from tfserve_nb.export.single_file.source import ONNX_FILE
from tfserve_nb.serving.engines import conversion
from tfserve_nb.serving.engines.accelerated import SavedModelLoader

X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    # A process for each deploy takes longer than all else; `tried_first` gives it back.
    monkeypatch.setattr(engine_check, "try_out", lambda _: "")
    yield
    tfserve_nb.shutdown()


@pytest.fixture
def tried_first(_own_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are run in a process of their own first, as users have it."""
    monkeypatch.setattr(engine_check, "try_out", conversion.try_out)


def saved(model: Any, path: str = "digits.onnx") -> Path:
    onnx.save(model, path)
    return Path(path)


def version_of(model: Any, folder: Path = Path("version")) -> Path:
    folder.mkdir()
    onnx.save(model, folder / ONNX_FILE)
    return folder


def by_rest(url: str, token: str | None, name: str, x: np.ndarray) -> Any:
    body = {"instances": x.tolist()}
    return posted(f"{url}/v1/models/{name}:predict", token, body)["predictions"]


def by_v2(url: str, token: str | None, name: str, x: np.ndarray) -> Any:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
    (output,) = posted(f"{url}/v2/models/{name}/infer", token, {"inputs": [tensor]})["outputs"]
    return np.reshape(output["data"], output["shape"])


def posted(url: str, token: str | None, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def by_grpc(address: str | None, token: str | None, name: str, x: np.ndarray) -> Any:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    with grpc.insecure_channel(address) as channel:
        metadata = [("authorization", f"Bearer {token}")]
        (output,) = PredictionServiceStub(channel).Predict(request, timeout=60, metadata=metadata).outputs.values()
    return tf.make_ndarray(output)


def assert_answers(handle: Deployment, expected: np.ndarray) -> None:
    """The same rows by each protocol that a handle's server speaks."""
    url = handle.rest_url.partition("/v1/")[0]
    for answer in (
        handle.predict(X),
        by_rest(url, handle.token, handle.name, X),
        by_v2(url, handle.token, handle.name, X),
        by_grpc(handle.grpc_address, handle.token, handle.name, X),
    ):
        np.testing.assert_allclose(answer, expected, rtol=1e-5)


def servable_of(model: Any) -> Any:
    return SavedModelLoader()(version_of(model), None)


@pytest.mark.usefixtures("tried_first")
def test_a_file_is_served_in_the_kernel_with_versions_and_rollback() -> None:
    handle = tfserve_nb.deploy(saved(linear()), grpc_port=0)
    assert (handle.name, handle.engine) == ("digits", "onnx")
    assert_answers(handle, linear_scores(X))
    status = handle.status().versions[0]
    assert status.alone == {}
    assert any("TensorFlow Serving cannot load" in note for note in status.notes)

    tfserve_nb.deploy(linear(offset=1.0), "digits", label="canary")
    assert_answers(handle, linear_scores(X, 1.0))
    handle.rollback()
    assert_answers(handle, linear_scores(X))
    assert handle.labels == {"canary": 2}
    handle.shadow(2, percent=100)
    handle.set_traffic({1: 50, 2: 50})

    tfserve_nb.shutdown()
    (handle,) = tfserve_nb.resume()
    assert handle.engine == "onnx"
    assert handle.predict(X).shape == (5, 3)


def test_a_file_is_served_in_a_process_of_its_own_and_by_the_command_line(tmp_path: Path) -> None:
    handle = tfserve_nb.deploy(saved(linear()), "digits", isolate=True, grpc_port=0, workers=1)
    assert handle.engine == "onnx"
    assert_answers(handle, linear_scores(X))
    tfserve_nb.shutdown()

    with servers(lambda: tmp_path) as start:
        base = tmp_path / "tfserve_models" / "digits"
        served = start("--model_name=digits", f"--model_base_path={base}")
        url = f"http://127.0.0.1:{served.rest_port}"
        np.testing.assert_allclose(by_rest(url, None, "digits", X), linear_scores(X), rtol=1e-5)
        np.testing.assert_allclose(by_v2(url, None, "digits", X), linear_scores(X), rtol=1e-5)
        address = f"127.0.0.1:{served.grpc_port}"
        np.testing.assert_allclose(by_grpc(address, None, "digits", X), linear_scores(X), rtol=1e-5)
        assert "/site-packages/tensorflow/" not in Path(f"/proc/{served.process.pid}/maps").read_text(encoding="utf-8")
        assert served.rest("GET", "/v2/models/digits")[1]["platform"] == "onnxruntime_onnx"
        _, metadata, _ = served.rest("GET", "/v1/models/digits/metadata")
        (signature,) = metadata["metadata"]["signature_def"]["signature_def"].values()
        assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_a_tensorflow_lite_file_is_served_by_path() -> None:
    import tensorflow as tf

    function = tf.function(lambda x: 2.0 * x).get_concrete_function(tf.TensorSpec([None, 4], tf.float32, name="x"))
    Path("twice.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())

    handle = tfserve_nb.deploy("twice.tflite")

    assert (handle.name, handle.engine) == ("twice", "litert")
    np.testing.assert_allclose(handle.predict(X), 2 * X)
    assert any("--prefer_tflite_model" in note for note in handle.status().versions[0].notes)
    Path("bad.tflite").write_bytes(b"no model")
    with pytest.raises(ModelNotServable, match="bad.tflite is no TensorFlow Lite model"):
        tfserve_nb.deploy("bad.tflite")


def test_versions_of_both_kinds_answer_beside_each_other() -> None:
    import tensorflow as tf

    module = tf.Module()
    module.one = tf.Variable(1.0)
    module.run = tf.function(
        lambda x: {"y": x + module.one}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")]
    )
    handle = tfserve_nb.deploy(module, "both")
    tfserve_nb.deploy(echo("float32"), "both")
    x = np.ones((3, 2), np.float32)

    assert handle.predict(x).tolist() == x.tolist()
    difference = handle.diff(1, 2, rows=x)
    assert (difference.rows_from, difference.agreement.outputs["y"].largest_difference) == ("given rows", 1.0)
    assert difference.layers == ()
    assert "layers were not compared: version 2 is a file, model.onnx" in difference.notes
    handle.rollback()
    assert handle.predict(x).tolist() == (x + 1).tolist()
    assert handle.engine == "tensorflow"


def test_a_version_folder_and_a_variable_are_deployed_too() -> None:
    first = tfserve_nb.deploy(saved(linear()), "digits")
    again = tfserve_nb.deploy(first.base_path / "digits" / "1", "again")
    assert again.predict(X).shape == (5, 3)
    assert again.provenance(1).model.startswith("ONNX model ")
    with pytest.raises(InvalidOption, match="a name is needed to serve a ModelProto"):
        tfserve_nb.deploy(linear())


def test_several_named_inputs_are_taken_by_name_and_in_the_order_of_the_file() -> None:
    nodes = [node("Sub", "zebra ant", "difference"), node("Not", "flag", "opposite")]
    columns = {"zebra": ("float32", [None, 1]), "ant": ("float32", [None, 1]), "flag": ("bool", [None])}
    handle = tfserve_nb.deploy(
        onnx_model(nodes, columns, {"difference": ("float32", [None, 1]), "opposite": ("bool", [None])}), "table"
    )
    zebra, ant, flag = np.float32([[5], [6]]), np.float32([[1], [2]]), np.array([True, False])

    for rows in ({"zebra": zebra, "ant": ant, "flag": flag}, [zebra, ant, flag]):
        found = handle.predict(rows)
        assert found["difference"].tolist() == [[4.0], [4.0]]
        assert found["opposite"].tolist() == [False, True]
    assert handle.status().versions[0].alone == {}


DTYPES = {
    "float16": [[1.5, -0.5]], "float64": [[0.1, 1e300]], "int8": [[-128, 127]], "int64": [[2**62, -1]],
    "uint8": [[0, 255]], "bool": [[True, False]], "string": [["ä\0b".encode(), b""]],
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_type_comes_back_as_it_was_sent(dtype: str) -> None:
    servable = servable_of(echo(dtype))
    x = np.array(DTYPES[dtype], object if dtype == "string" else dtype)

    assert servable.signatures["serving_default"].inputs["x"].dtype == dtype
    for rows in (x, np.concatenate([x, x]), x[:0]):
        found = servable.run("serving_default", {"x": rows})["y"]
        assert (found.dtype, found.shape, found.tolist()) == (rows.dtype, rows.shape, rows.tolist())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RunRejected, match="input x holds bytes that are no UTF-8"):
        servable_of(echo("string")).run("serving_default", {"x": np.array([[b"\xff", b""]], object)})


@pytest.mark.parametrize(
    ("shape", "served", "is_alone"),
    [
        (["rows", 2], "float32[?, 2]", False),
        ([None, 2], "float32[?, 2]", False),
        ([1, 2], "float32[?, 2]", False),
        ([3, 2], "float32[3, 2]", True),
        ([], "float32[]", True),
        ([2, "free"], "float32[2, ?]", True),
        (None, "float32[...]", False),
    ],
    ids=str,
)
def test_only_a_free_first_dimension_counts_rows(shape: Any, served: str, is_alone: bool) -> None:
    handle = tfserve_nb.deploy(echo("float32", shape), "echo")

    status = handle.status().versions[0]
    assert (bool(status.alone), status.problem) == (is_alone, "")
    sizes = [3 if size is None or isinstance(size, str) else size for size in ((3, 2) if shape is None else shape)]
    x = np.ones([3, *sizes[1:]] if shape == [1, 2] else sizes, np.float32)
    assert handle.predict(x).tolist() == x.tolist()
    assert (
        str(SavedModelLoader()(handle.base_path / "echo" / "1", None).signatures["serving_default"].inputs["x"])
        == served
    )


def test_rows_that_depend_on_each_other_do_not_share_runs() -> None:
    nodes = [node("ReduceSum", "x", "total", keepdims=1), node("Div", "x total", "y")]
    share = onnx_model(nodes, {"x": ("float32", ["n", 2])}, {"y": ("float32", ["n", 2])})

    handle = tfserve_nb.deploy(share, "share")

    (why,) = handle.status().versions[0].alone.values()
    assert "the outputs for a row depend on the rows beside it" in why


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_no_rows_do_not_end_the_process(kind: str) -> None:
    servable = servable_of(recurrent(kind))

    assert servable.run("serving_default", {"x": np.zeros((0, 4, 2), np.float32)})["y"].shape == (0, 3)
    assert servable.run("serving_default", {"x": np.zeros((2, 4, 2), np.float32)})["y"].shape == (2, 3)
    with pytest.raises(RunRejected, match=r"input x has the shape \[2, 0, 2\]"):
        servable.run("serving_default", {"x": np.zeros((2, 0, 2), np.float32)})


def test_a_loop_is_stopped_at_its_deadline() -> None:
    servable = servable_of(counting_loop())
    x = np.float32([1, 2])

    assert servable.is_stoppable
    assert servable.run("serving_default", {"x": x, "n": np.array([3, 3])})["y"].tolist() == [4.0, 5.0]
    with pytest.raises(DeadlineExceeded):
        servable.run_within("serving_default", {"x": x, "n": np.array([2**40, 2**40])}, 0.2)
    assert servable.run("serving_default", {"x": x, "n": np.array([1, 1])})["y"].tolist() == [2.0, 3.0]


def test_random_numbers_are_named() -> None:
    draws = [node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "y")]
    servable = servable_of(onnx_model(draws, {"x": ("float32", ["n"])}, {"y": ("float32", ["n"])}))

    assert servable.effects.randomness == "a run draws random numbers (RandomNormalLike)"
    assert not servable.effects.lasting


def unknown_operation(domain: str = "") -> Any:
    return onnx_model(
        [node("Frobnicate", "x", "y", domain=domain)],
        {"x": ("float32", ["n"])},
        {"y": ("float32", ["n"])},
        domains={domain: 1} if domain else {},
    )


def zipmap() -> Any:
    model = onnx_model([node("Identity", "x", "y")], {"x": ("float32", ["n"])}, {"y": ("float32", ["n"])})
    model.graph.output[0].type.sequence_type.elem_type.map_type.key_type = onnx.TensorProto.INT64
    return model


def of_type(kind: int) -> Any:
    model = echo("float32")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


def of_opset(opset: int = 18, ir_version: int = 9) -> Any:
    model = echo("float32")
    model.opset_import[0].version, model.ir_version = opset, ir_version
    return model


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (
            unknown_operation("com.acme"),
            "by tests) uses the operation Frobnicate of com.acme",
            "without custom operations",
        ),
        (unknown_operation(), "uses the operation Frobnicate, which ONNX Runtime does not have", "without custom"),
        (of_opset(99), "is of opset 99, and this ONNX Runtime knows up to", "pip install --upgrade onnxruntime"),
        (of_opset(ir_version=99), "is of IR version 99, and this ONNX Runtime knows up to", "--upgrade onnxruntime"),
        (zipmap(), "output 'y' of ONNX model 'made_by_hand' is a sequence of maps", "{'zipmap': False}"),
        (of_type(onnx.TensorProto.BFLOAT16), "input 'x' of ONNX model 'made_by_hand' is bfloat16", "float32"),
        (onnx.ModelProto(), "is no ONNX model, or is damaged", "export it again"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_served_says_why_and_leaves_nothing_behind(model: Any, message: str, hint: str) -> None:
    with pytest.raises(ServingError) as caught:
        tfserve_nb.deploy(model, "bad")

    assert message in caught.value.message
    assert hint in caught.value.hint
    assert not Path("tfserve_models", "bad").exists()


def test_a_damaged_file_is_named_wherever_it_is_loaded() -> None:
    Path("damaged.onnx").write_bytes(linear().SerializeToString()[:-40])
    with pytest.raises(ModelNotServable, match="damaged.onnx is no ONNX model, or is damaged"):
        tfserve_nb.deploy("damaged.onnx")
    folder = version_of(linear())
    (folder / ONNX_FILE).write_bytes(b"no model")
    with pytest.raises(NotAvailable, match="model.onnx could not be loaded"):
        SavedModelLoader()(folder, None)


def with_weights_elsewhere(location: str) -> None:
    onnx.save(linear(), "big.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    model = onnx.load("big.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    Path("big.onnx").write_bytes(model.SerializeToString())


def test_weights_in_another_file_come_along() -> None:
    with_weights_elsewhere("weights.bin")

    handle = tfserve_nb.deploy("big.onnx")

    np.testing.assert_allclose(handle.predict(X), linear_scores(X), rtol=1e-5)
    assert (Path("tfserve_models") / "big" / "1" / "weights.bin").is_file()
    with pytest.raises(ModelNotServable, match="has its weights in another file: weights.bin"):
        tfserve_nb.deploy(onnx.load("big.onnx", load_external_data=False), "loaded")
    Path("weights.bin").unlink()
    with pytest.raises(ModelNotServable, match="has weights in the file 'weights.bin', which is not beside it"):
        tfserve_nb.deploy("big.onnx")


@pytest.mark.parametrize(
    "location", ["../../../../etc/passwd", "/etc/passwd", "a/../../b", "", "saved_model.pb", "assets.extra/x", "..\\b"]
)
def test_weights_are_not_read_from_elsewhere(location: str) -> None:
    with_weights_elsewhere(location)

    with pytest.raises(ModelNotServable, match="which is no file below its folder"):
        tfserve_nb.deploy("big.onnx")
    folder = Path("version")
    folder.mkdir()
    Path("big.onnx").rename(folder / ONNX_FILE)
    with pytest.raises(NotAvailable, match="which is no file below its folder"):
        SavedModelLoader()(folder, None)


@pytest.mark.usefixtures("tried_first")
def test_a_file_that_ends_the_process_does_not_end_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment reaches the process that tries the file, as a fault of its runtime would."""
    Path("sitecustomize.py").write_text(
        "import os\nif 'tfserve_nb.serving.engines.convert' in ' '.join(__import__('sys').orig_argv): os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))

    with pytest.raises(
        ExportFailed, match="digits.onnx .* cannot be run: the process that ran it was ended by signal 6"
    ):
        tfserve_nb.deploy(saved(linear()))

    assert not Path("tfserve_models", "digits").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "litert"}, "is run by onnx alone, not litert"),
        ({"device": "/GPU:0"}, "runs on the processor"),
        ({"optimize": "xla"}, "variants are made of SavedModels, and .* is served as it is"),
        ({"check": np.ones((2, 7), np.float32)}, "check: "),
    ],
    ids=str,
)
def test_options_that_do_not_suit_a_file_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        tfserve_nb.deploy(saved(linear()), **options)


def test_another_engine_is_refused_while_it_goes_on_answering() -> None:
    handle = tfserve_nb.deploy(saved(linear()), engine="auto", check=X)
    handle.set_engine("onnx")
    for change in (lambda: handle.set_engine("tensorflow"), handle.measure_engines):
        with pytest.raises(InvalidOption, match="is run by onnx alone"):
            change()
    with pytest.raises(InvalidOption, match="variants are made of SavedModels"):
        handle.variants()
    assert handle.predict(X).shape == (5, 3)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    with pytest.raises(NotAvailable) as caught:
        tfserve_nb.deploy(saved(linear()))
    assert caught.value.hint == "pip install 'tfserve_nb[onnx]'"
