"""TensorFlow Lite models through LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import NotAvailable, RunRejected
from tfserve_nb.serving.versions.servable import SessionOptions, saved_model_loader
from tfserve_nb.serving.versions.tflite import MODEL_FILE, TfliteServable


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
    (folder / MODEL_FILE).write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return folder


def test_any_number_of_rows_gives_the_models_answers(version: Path, keras_model: Any, rng: Any) -> None:
    servable = saved_model_loader(SessionOptions(prefers_tflite=True))(version, None)
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
    servable = saved_model_loader(SessionOptions())(version, None)
    assert not isinstance(servable, TfliteServable)
    servable.close()


def test_a_model_without_signatures_gets_one(keras_model: Any, tmp_path: Path, rng: Any) -> None:
    import tensorflow as tf

    inference = tf.function(lambda x: 2.0 * x).get_concrete_function(tf.TensorSpec([None, 2], tf.float32, name="x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([inference])
    (tmp_path / MODEL_FILE).write_bytes(converter.convert())

    servable = TfliteServable(tmp_path)

    (name,) = servable.signatures["serving_default"].inputs
    x = rng.random((3, 2), np.float32)
    (answer,) = servable.run("serving_default", {name: x}).values()
    np.testing.assert_allclose(answer, 2 * x)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(b"no model")

    with pytest.raises(NotAvailable, match=f"{tmp_path / MODEL_FILE} could not be loaded"):
        TfliteServable(tmp_path)
