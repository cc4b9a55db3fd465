"""Keras on other backends than TensorFlow.

JAX runs in a process of its own. Torch is too large to be installed for tests: in its place Keras computes with
TensorFlow and says that it is torch, so all is run but what torch itself would do inside of Keras' export to ONNX.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import tfserve_nb
from tfserve_nb.errors import ExportFailed, InvalidOption

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `helpers.on_jax` saw: one process for all tests."""
    folder = tmp_path_factory.mktemp("jax")
    places = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "helpers.on_jax", "results.json"],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize("name", ["usual", "named", "recurrent", "noisy", "own"])
def test_a_model_on_jax_is_served_by_tensorflow_with_its_own_answers(on_jax: dict[str, Any], name: str) -> None:
    seen = on_jax[name]

    assert seen["difference"] < 1e-5
    assert seen["is_left_alone"]
    assert seen["alone"] == {}
    assert seen["changes"] == ""


def test_weights_of_jax_are_stored_once_and_layers_are_known(on_jax: dict[str, Any]) -> None:
    seen = on_jax["usual"]

    assert seen["layers"] == ["dense", "batch_normalization", "dense_1"]
    assert seen["weights_bytes"] < 2 * 4 * seen["num_weights"] + 2000


def test_a_graph_of_jax_is_one_operation_that_onnx_does_not_have(on_jax: dict[str, Any]) -> None:
    assert on_jax["usual"]["reasons"]["onnx"].startswith("ONNX has no operation for XlaCallModule")
    assert "optimize='xla' is for models of TensorFlow" in on_jax["refused"]


X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)


@pytest.fixture
def _as_on_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    yield
    tfserve_nb.shutdown()


def usual() -> tuple[Any, Any]:
    inner = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3, "softmax")]
    return keras.Sequential([keras.Input((4,), name="x"), *inner]), X


def named() -> tuple[Any, Any]:
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    both, one = layers.Dense(2)(layers.concatenate([left, right])), layers.Dense(1)(left)
    return keras.Model({"right": right, "left": left}, {"sum": both, "one": one}), {"left": X[:, :3], "right": X[:, :2]}


class Own(keras.Model):
    """Two arguments, and a tuple as what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x: Any, scale: Any) -> Any:
        return self.inner(x) * scale, x


def own() -> tuple[Any, Any]:
    model, rows = Own(), {"x": X, "scale": X[:, :1]}
    model(**rows)
    return model, rows


@pytest.mark.usefixtures("_as_on_torch")
@pytest.mark.parametrize("made", [usual, named, own], ids=lambda one: one.__name__)
def test_a_model_that_only_keras_can_export_is_served_as_onnx(made: Callable[[], tuple[Any, Any]]) -> None:
    model, rows = made()
    expected = model(**rows) if made is own else model(rows)

    handle = tfserve_nb.deploy(model, "model", check=rows, code=None)

    assert handle.engine == "onnx"
    found = handle.predict(rows)
    if made is own:
        expected = {"output_0": expected[0], "output_1": expected[1]}
    for key in expected if isinstance(expected, dict) else [None]:
        a, b = (found, expected) if key is None else (found[key], expected[key])
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert "Dense" in [one.class_name for one in handle.provenance(1).layers]
    assert any("TensorFlow Serving cannot load" in note for note in handle.status().versions[0].notes)


@pytest.mark.usefixtures("_as_on_torch")
def test_what_such_an_export_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = usual()
    with pytest.raises(InvalidOption, match="is run by onnx alone, not litert"):
        tfserve_nb.deploy(model, "model", engine="litert")

    def export(path: str, **options: Any) -> None:
        """As torch without the packages that it needs."""
        raise ModuleNotFoundError("No module named 'onnxscript'")

    monkeypatch.setattr(model, "export", export)
    with pytest.raises(ExportFailed, match="cannot be written as ONNX by Keras: .*onnxscript") as caught:
        tfserve_nb.deploy(model, "model")
    assert "onnxscript" in caught.value.hint
    wrong = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    monkeypatch.setattr(model, "export", lambda path, **_: Path(path).write_bytes(wrong.SerializeToString()))
    with pytest.raises(ExportFailed, match="with other inputs or outputs"):
        tfserve_nb.deploy(model, "model")
