"""TensorFlow Lite models through LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import InvalidOption, NotAvailable, RunRejected
from tfserve_nb.export.single_file.source import TFLITE_FILE
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.engines.accelerated import SavedModelLoader
from tfserve_nb.serving.engines.saved_model.session import SessionOptions
from tfserve_nb.serving.engines.single_file.tflite import TfliteServable
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource


@pytest.fixture(scope="module")
def keras_model() -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax")])


@pytest.fixture(scope="module")
def version(keras_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder with both a SavedModel and a TensorFlow Lite model."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("lite") / "1"
    keras_model.export(str(folder), verbose=False)
    (folder / TFLITE_FILE).write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return folder


def test_any_number_of_rows_gives_the_models_answers(version: Path, keras_model: Any, rng: Any) -> None:
    servable = SavedModelLoader(SessionOptions(prefers_tflite=True))(version, None)
    assert isinstance(servable, TfliteServable)
    (name,) = servable.signatures["serving_default"].inputs

    for rows in (1, 5, 2):
        x = rng.random((rows, 4), np.float32)
        (answer,) = servable.run("serving_default", {name: x}).values()
        np.testing.assert_allclose(answer, keras_model(x), rtol=1e-5)
    assert str(servable.signatures["serving_default"].inputs[name]) == "float32[?, 4]"
    assert servable.signature_defs.json["signature_def"]["serving_default"]["inputs"][name]["dtype"] == "DT_FLOAT"
    with pytest.raises(RunRejected):
        servable.run("serving_default", {name: np.zeros((2, 3), np.float32)})
    servable.close()


def test_without_the_flag_the_saved_model_is_loaded(version: Path) -> None:
    servable = SavedModelLoader(SessionOptions())(version, None)
    assert not isinstance(servable, TfliteServable)
    servable.close()


def test_a_model_without_signatures_gets_one(keras_model: Any, tmp_path: Path, rng: Any) -> None:
    import tensorflow as tf

    inference = tf.function(lambda x: 2.0 * x).get_concrete_function(tf.TensorSpec([None, 2], tf.float32, name="x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([inference])
    (tmp_path / TFLITE_FILE).write_bytes(converter.convert())

    servable = TfliteServable(tmp_path)

    (name,) = servable.signatures["serving_default"].inputs
    x = rng.random((3, 2), np.float32)
    (answer,) = servable.run("serving_default", {name: x}).values()
    np.testing.assert_allclose(answer, 2 * x)


def converted(function: Any, shape: list[int | None], dtype: Any = "float32") -> bytes:
    """A model of one function of `x`, without signatures of its own."""
    import tensorflow as tf

    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, dtype, name="x"))
    converted: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    return converted


def with_stored_signatures(model: bytes, signatures: dict[str, tuple[dict[str, str], dict[str, str]]]) -> bytes:
    """The model with `SignatureDef`s in its metadata, as older converters wrote them; name -> (inputs, outputs)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

    builder = flexbuffers.Builder()
    with builder.Map():
        for name, (inputs, outputs) in sorted(signatures.items()):
            definition = SignatureDef(method_name="tensorflow/serving/predict")
            for key, tensor in inputs.items():
                definition.inputs[key].name = tensor
            for key, tensor in outputs.items():
                definition.outputs[key].name = tensor
            builder.Key(name)
            builder.String(definition.SerializeToString().decode())
    changed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(builder.Finish())
    entry.name, entry.buffer = "signature_defs_metadata", len(changed.buffers)
    changed.buffers.append(buffer)
    changed.metadata = [*(changed.metadata or []), entry]
    changed.signatureDefs = None
    packer = flatbuffers.Builder(0)
    packer.Finish(changed.Pack(packer), file_identifier=b"TFL3")
    return bytes(packer.Output())


def tensors_of(model: bytes) -> tuple[str, str]:
    """The names of the input and the output."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    return interpreter.get_input_details()[0]["name"], interpreter.get_output_details()[0]["name"]


@pytest.mark.parametrize("key", ["serving_default", "predict"])
def test_a_signature_in_the_metadata_names_inputs_and_outputs(tmp_path: Path, rng: Any, key: str) -> None:
    model = converted(lambda x: 2.0 * x, [None, 2])
    x_tensor, y_tensor = tensors_of(model)
    stored = with_stored_signatures(model, {key: ({"pixels": f"{x_tensor}:0"}, {"scores": f"{y_tensor}:0"})})
    (tmp_path / TFLITE_FILE).write_bytes(stored)

    servable = TfliteServable(tmp_path)

    x = rng.random((3, 2), np.float32)
    for signature in {key, "serving_default"}:
        np.testing.assert_allclose(servable.run(signature, {"pixels": x})["scores"], 2 * x)
        assert str(servable.signatures[signature].inputs["pixels"]) == "float32[?, 2]"
    servable.close()


def test_several_signatures_in_the_metadata_keep_their_names(tmp_path: Path) -> None:
    model = converted(lambda x: 2.0 * x, [None, 2])
    x_tensor, y_tensor = tensors_of(model)
    one, two = ({"a": x_tensor}, {"b": y_tensor}), ({"c": x_tensor}, {"d": y_tensor})
    (tmp_path / TFLITE_FILE).write_bytes(with_stored_signatures(model, {"one": one, "two": two}))

    servable = TfliteServable(tmp_path)

    assert list(servable.signatures) == ["one", "two"]
    assert servable.run("two", {"c": np.float32([[1, 2]])})["d"].tolist() == [[2.0, 4.0]]
    (tmp_path / TFLITE_FILE).write_bytes(
        with_stored_signatures(model, {"one": ({"a": "elsewhere:0"}, {"b": y_tensor})})
    )
    with pytest.raises(NotAvailable, match="signature 'one' names the tensor 'elsewhere'"):
        TfliteServable(tmp_path)


@pytest.mark.parametrize("has_signature", [True, False])
def test_a_batch_of_one_that_is_built_in_answers_every_row(tmp_path: Path, rng: Any, has_signature: bool) -> None:
    import tensorflow as tf

    def first_row_only(x: Any) -> Any:
        return tf.reshape(tf.reduce_sum(x, axis=1), [1, 1]) * tf.constant([[1.0, 2.0, 3.0]])

    module = tf.Module()
    module.run = tf.function(first_row_only, input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    if has_signature:
        tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.run})
        model = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    else:
        model = converted(first_row_only, [1, 4])
    (tmp_path / TFLITE_FILE).write_bytes(model)
    servable = TfliteServable(tmp_path)
    ((name, spec),) = servable.signatures["serving_default"].inputs.items()
    assert (spec.shape, spec.is_batched) == ((None, 4), True)

    for rows in (3, 1, 0):
        x = rng.random((rows, 4), np.float32)
        (answer,) = servable.run("serving_default", {name: x}).values()
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, x.sum(axis=1, keepdims=True) * [[1, 2, 3]], rtol=1e-5)
    servable.close()


def test_another_batch_that_is_built_in_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    (tmp_path / TFLITE_FILE).write_bytes(converted(lambda x: tf.reshape(x, [2, 2, 2]) * 2.0, [2, 4]))
    servable = TfliteServable(tmp_path)

    (answer,) = servable.run("serving_default", {"x": np.ones((2, 4), np.float32)}).values()
    assert answer.shape == (2, 2, 2)
    with pytest.raises(RunRejected):
        servable.run("serving_default", {"x": np.ones((3, 4), np.float32)})
    (answer,) = servable.run("serving_default", {"x": np.ones((2, 4), np.float32)}).values()
    assert answer.tolist() == [[[2.0] * 2] * 2] * 2
    servable.close()


def test_outputs_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.run = tf.function(
        lambda x: {f"output_{number}": x + number for number in range(12)},
        input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.run})
    (tmp_path / TFLITE_FILE).write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())

    servable = TfliteServable(tmp_path)

    found = servable.run("serving_default", {"x": np.zeros((1, 1), np.float32)})
    assert list(found) == list(servable.signatures["serving_default"].outputs) == [f"output_{n}" for n in range(12)]
    assert [value.item() for value in found.values()] == list(range(12))
    servable.close()


def test_text_keeps_its_zero_bytes(tmp_path: Path) -> None:
    import tensorflow as tf

    (tmp_path / TFLITE_FILE).write_bytes(converted(lambda x: tf.reshape(x, [-1, 1]), [None], tf.string))
    servable = TfliteServable(tmp_path)

    (answer,) = servable.run("serving_default", {"x": np.array([b"a\0", b"\xff", b""], dtype=object)}).values()

    assert (answer.dtype, answer.tolist()) == (np.dtype(object), [[b"a\0"], [b"\xff"], [b""]])
    servable.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / TFLITE_FILE).write_bytes(b"no model")

    with pytest.raises(NotAvailable, match=f"{tmp_path / TFLITE_FILE} could not be loaded"):
        TfliteServable(tmp_path)


def counting(folder: Path) -> Any:
    """A model that counts its runs in a variable, inside of a branch; another signature of it only reads."""
    import tensorflow as tf

    class Counter(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = tf.Variable(5.0, name="runs")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def add(self, x: Any) -> Any:
            if tf.reduce_sum(x) > -1e6:
                self.count.assign_add(1.0)
            return {"y": x * 0 + self.count}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def read(self, x: Any) -> Any:
            return {"y": x * 0 + self.count}

    module = Counter()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.add, "read": module.read})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.experimental_enable_resource_variables = True
    (folder / TFLITE_FILE).write_bytes(converter.convert())


def test_variables_that_runs_write_are_found_kept_and_put_back(tmp_path: Path) -> None:
    counting(tmp_path)
    x = {"x": np.zeros(3, np.float32)}
    servable = TfliteServable(tmp_path)

    assert servable.effects.lasting.startswith("a run changes its own state (")
    assert set(servable.effects.states) == {"serving_default"}
    assert [servable.run("serving_default", x)["y"][0] for _ in range(2)] == [6.0, 7.0]
    assert servable.run("read", x)["y"][0] == 7.0
    servable.restore()
    assert servable.run("serving_default", x)["y"].tolist() == [6.0] * 3
    servable.close()


def recurrent() -> bytes:
    """One op with a state: `y = x + y before`, for one row of one number."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph, op, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    model.buffers, graph.tensors = [schema.BufferT()], []
    for name, shape, value in (
        ("x", [1, 1], None), ("input_weights", [1, 1], 1.0), ("recurrent_weights", [1, 1], 1.0), ("bias", [1], 0.0),
        ("memory", [1, 1], None), ("y", [1, 1], None),
    ):  # fmt: skip
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.isVariable = name, shape, name == "memory"
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.full(shape, value, np.float32).tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RNN
    op.inputs, op.outputs = [0, 1, 2, 3, 4], [5]
    op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.RNNOptions, schema.RNNOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [5], [op]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_op_that_keeps_a_state_is_found(tmp_path: Path) -> None:
    (tmp_path / TFLITE_FILE).write_bytes(recurrent())
    x = {"x": np.ones((3, 1), np.float32)}
    servable = TfliteServable(tmp_path)

    assert servable.effects.lasting == "a run changes its own state (memory)"
    assert servable.run("serving_default", x)["y"].tolist() == [[1.0], [2.0], [3.0]]
    assert servable.run("serving_default", x)["y"].tolist() == [[4.0], [5.0], [6.0]]
    servable.restore()
    assert servable.run("serving_default", x)["y"].tolist() == [[1.0], [2.0], [3.0]]
    servable.close()


def test_a_version_with_state_is_served_from_the_state_of_its_file_and_gets_no_copies(tmp_path: Path) -> None:
    counting(tmp_path / "count" / "1")
    counting(tmp_path / "count" / "2")
    core = ServingCore(SavedModelLoader(SessionOptions(prefers_tflite=True)))
    core.start()
    try:
        for version in (1, 2):
            source = VersionSource(tmp_path / "count" / str(version), BatchingOptions())
            core.deploy("count", version, source, tmp_path, Placement(stage=version == 2))

        status = core.model_status("count").versions[0]
        assert status.changes.startswith("a run changes its own state")
        assert any("neither batched, copied nor replayed" in note for note in status.notes)
        with pytest.raises(InvalidOption, match="cannot get copies"):
            core.set_shadow("count", 2)
        spec = ModelSpec("count")
        answers = [core.predict(spec, "serving_default", {"x": [0.0]}, 30.0)["y"].tolist() for _ in range(2)]
        assert answers == [[6.0], [7.0]]
        assert (
            core.predict(ModelSpec("count", 2), "serving_default", {"x": [0.0, 0.0]}, 30.0)["y"].tolist() == [6.0] * 2
        )
    finally:
        core.stop()


def test_random_numbers_are_named(tmp_path: Path) -> None:
    (tmp_path / TFLITE_FILE).write_bytes(
        converted(lambda x: x + __import__("tensorflow").random.uniform([2]), [None, 2])
    )
    servable = TfliteServable(tmp_path)
    assert servable.effects.randomness == "a run draws random numbers (RANDOM_UNIFORM)"
    assert not servable.effects.lasting
    servable.close()
