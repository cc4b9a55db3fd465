"""The models of the benchmarks as SavedModels, each with example rows and the model's own predictions for them.

Usage: python benchmarks/saved_models.py FOLDER

They are made in a process of their own, so that the process that measures never imports TensorFlow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_ROWS = 64
"""Rows of the stored example."""


@dataclass(frozen=True)
class BenchModel:
    """A model on disk.

    Attributes:
        name: its name here.
        base: the folder of its versions, as servers expect it.
    """

    name: str
    base: Path

    @property
    def version(self) -> Path:
        """The folder of its only version."""
        return self.base / "1"

    @property
    def rows(self) -> np.ndarray:
        """Example rows, float32 `(MAX_ROWS, ...)`."""
        loaded: np.ndarray = np.load(self.base.with_suffix(".x.npy"))
        return loaded

    @property
    def answers(self) -> np.ndarray:
        """The model's predictions for them, float32 `(MAX_ROWS, k)`."""
        loaded: np.ndarray = np.load(self.base.with_suffix(".y.npy"))
        return loaded


MODELS: dict[str, str] = {
    "identity": "identity on 8 floats",
    "mlp": "MLP 784→128→10",
    "cnn": "small CNN, 28×28×1",
    "image": "small network on 224×224×3",
    "mobilenet": "MobileNetV2, 224×224×3",
}
"""Name -> what tables call it."""


def make_all(folder: Path, names: Iterable[str] = MODELS) -> dict[str, BenchModel]:
    """Make every model that is not there yet."""
    models = {name: BenchModel(name, folder / name) for name in names}
    missing = [name for name, model in models.items() if not model.base.with_suffix(".y.npy").exists()]
    if missing:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        subprocess.run([sys.executable, __file__, str(folder), *missing], check=True, env=environment)
    return models


def write(model: BenchModel) -> None:
    """Make one model with its rows and predictions, in this process."""
    import tensorflow as tf

    if model.name == "identity":
        shape: tuple[int, ...] = (8,)
        _write_identity(model.version)
    else:
        network = keras_model(model.name)
        shape = network.input_shape[1:]
        network.export(str(model.version), verbose=False)
    # Six digits, as people round what they send; JSON and binary bodies then carry the same numbers.
    rows = np.random.default_rng(7).random((MAX_ROWS, *shape)).round(6).astype(np.float32)
    function = tf.saved_model.load(str(model.version)).signatures["serving_default"]
    (answers,) = function(x=tf.constant(rows)).values()
    np.save(model.base.with_suffix(".x.npy"), rows)
    np.save(model.base.with_suffix(".y.npy"), answers.numpy())


def keras_model(name: str) -> Any:
    """One of the networks, untrained; on one machine its weights are the same every time."""
    import keras

    keras.utils.set_random_seed(7)
    makers: dict[str, Callable[[], Any]] = {
        "mlp": mlp,
        "cnn": cnn,
        "image": _image,
        "mobilenet": mobilenet,
    }
    return makers[name]()


def _write_identity(path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.same = tf.function(lambda x: {"y": tf.identity(x)}, [tf.TensorSpec((None, 8), tf.float32, "x")])
    tf.saved_model.save(module, str(path), signatures=module.same)


def mlp() -> Any:
    """784→128→10."""
    from keras import Input, Sequential, layers

    return Sequential(
        [Input((784,), name="x"), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")]
    )


def cnn() -> Any:
    """Two convolutions on 28×28×1."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((28, 28, 1), name="x"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def mobilenet() -> Any:
    """MobileNetV2 with random weights."""
    import keras

    return keras.applications.MobileNetV2(input_tensor=keras.Input((224, 224, 3), name="x"), weights=None)


def _image() -> Any:
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((224, 224, 3), name="x"),
            layers.Conv2D(8, 7, strides=4, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


if __name__ == "__main__":
    for chosen in sys.argv[2:]:
        write(BenchModel(chosen, Path(sys.argv[1]) / chosen))
