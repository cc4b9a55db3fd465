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

COLUMNS = (
    "age", "workclass_id", "education_num", "hours_per_week", "capital_gain", "capital_loss", "relationship", "race",
    "sex", "native_country",
)  # fmt: skip
"""The inputs of the models on tabular data."""

NUM_TOKENS = 8000
"""Different tokens that the transformer knows."""


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
    def onnx(self) -> Path:
        """Where `make_onnx` writes the same graph for ONNX Runtime."""
        return self.base.with_suffix(".onnx")

    @property
    def rows(self) -> np.ndarray:
        """Example rows, float32 or int32 `(MAX_ROWS, ...)`; of several inputs the columns of one array."""
        loaded: np.ndarray = np.load(self.base.with_suffix(".x.npy"))
        return loaded

    def inputs(self, num_rows: int = MAX_ROWS) -> dict[str, np.ndarray]:
        """The first example rows by the names of the model's inputs."""
        return inputs_of(self.name, self.rows[:num_rows])

    @property
    def answers(self) -> np.ndarray:
        """The model's predictions for them, float32 `(MAX_ROWS, k)`."""
        loaded: np.ndarray = np.load(self.base.with_suffix(".y.npy"))
        return loaded


MODELS: dict[str, str] = {
    "identity": "identity on 8 floats",
    "mlp": "MLP 784→128→10",
    "cnn": "small CNN, 28×28×1",
    "lstm": "LSTM, 64 steps of 16",
    "transformer": "transformer block, 64 tokens",
    "mobilenet": "MobileNetV2, 224×224×3",
    "image": "small network on 224×224×3",
    "tabular": "tabular, ten inputs",
    "tabular_scalars": "tabular, ten inputs without a dimension of their own",
    "tabular_one": "tabular, the ten numbers as one input",
}
"""Name -> what tables call it."""


def inputs_of(name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a model by the names of its inputs."""
    if name == "tabular":
        return {column: rows[:, place : place + 1] for place, column in enumerate(COLUMNS)}
    if name == "tabular_scalars":
        return {column: rows[:, place] for place, column in enumerate(COLUMNS)}
    return {"x": rows}


def make_all(folder: Path, names: Iterable[str] = MODELS) -> dict[str, BenchModel]:
    """Make every model that is not there yet."""
    models = {name: BenchModel(name, folder / name) for name in names}
    missing = [name for name, model in models.items() if not model.base.with_suffix(".y.npy").exists()]
    if missing:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        subprocess.run([sys.executable, __file__, str(folder), *missing], check=True, env=environment)
    return models


def make_onnx(model: BenchModel) -> str:
    """Convert a model for ONNX Runtime as tf2onnx's documentation shows; why it cannot be, or "" when it is there."""
    if model.onnx.exists():
        return ""
    command = ["-m", "tf2onnx.convert", "--saved-model", model.version, "--output", model.onnx, "--opset", "18"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, env=environment
    )
    return "" if model.onnx.exists() else f"tf2onnx: {(done.stderr.strip().splitlines() or ['no file'])[-1]}"


def write(model: BenchModel) -> None:
    """Make one model with its rows and predictions, in this process."""
    import tensorflow as tf

    if model.name == "identity":
        shape: tuple[int, ...] = (8,)
        _write_identity(model.version)
    else:
        network = keras_model(model.name)
        shape = (len(COLUMNS),) if len(network.inputs) > 1 else network.input_shape[1:]
        network.export(str(model.version), verbose=False)
    rng = np.random.default_rng(7)
    if model.name == "transformer":
        rows = rng.integers(0, NUM_TOKENS, (MAX_ROWS, *shape), np.int32)
    else:
        # Six digits, as people round what they send; JSON and binary bodies then carry the same numbers.
        rows = rng.random((MAX_ROWS, *shape)).round(6).astype(np.float32)
    function = tf.saved_model.load(str(model.version)).signatures["serving_default"]
    inputs = {name: tf.constant(values) for name, values in inputs_of(model.name, rows).items()}
    (answers,) = function(**inputs).values()
    np.save(model.base.with_suffix(".x.npy"), rows)
    np.save(model.base.with_suffix(".y.npy"), answers.numpy())


def keras_model(name: str) -> Any:
    """One of the networks, untrained; on one machine its weights are the same every time."""
    import keras

    keras.utils.set_random_seed(7)
    makers: dict[str, Callable[[], Any]] = {
        "mlp": mlp,
        "cnn": cnn,
        "lstm": lstm,
        "transformer": transformer,
        "mobilenet": mobilenet,
        "image": _image,
        "tabular": lambda: tabular((1,)),
        "tabular_scalars": lambda: tabular(()),
        "tabular_one": lambda: tabular(None),
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


def lstm() -> Any:
    """64 steps of 16 numbers, 64 units."""
    from keras import Input, Sequential, layers

    return Sequential([Input((64, 16), name="x"), layers.LSTM(64), layers.Dense(10, activation="softmax")])


def transformer() -> Any:
    """One block on 64 tokens of 8 000, 128 wide."""
    from keras import Input, Model, layers

    tokens = Input((64,), dtype="int32", name="x")
    x = layers.Embedding(NUM_TOKENS, 128)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(128)(layers.Dense(512, activation="relu")(x)))
    return Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def tabular(shape: tuple[int, ...] | None) -> Any:
    """A small network on ten numbers: ten inputs of a shape, or one input of all (None)."""
    import keras
    from keras import layers

    inputs: Any
    if shape is None:
        inputs = features = keras.Input((len(COLUMNS),), name="x")
    else:
        inputs = [keras.Input(shape, name=name) for name in COLUMNS]
        features = layers.Concatenate()(inputs) if shape else keras.ops.stack(inputs, axis=1)
    hidden = layers.Dense(32, activation="relu")(features)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))


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
