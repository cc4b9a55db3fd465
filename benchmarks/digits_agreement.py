"""Whether the engine that `auto` chooses answers what TensorFlow answers, on real rows.

Usage: python benchmarks/digits_agreement.py

Each network is trained for a short while on scikit-learn's 1 797 digits, which become pictures, sequences or tokens,
and deployed as a user deploys it; its predictions for all digits are compared with those of the same SavedModel in
TensorFlow. MobileNetV2 is not among them: it would have to be trained first, and random weights agree with anything.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import saved_models

import tfserve_nb
from tfserve_nb.export.check import compare_outputs

EPOCHS = 3
CLASSES = 10


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Intensities from 0 to 16, int `(n, 64)`, and the digits, `(n,)`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data.astype(np.int32), found.target


def pictures(pixels: np.ndarray) -> np.ndarray:
    """As 28×28 pictures between 0 and 1, float32 `(n, 28, 28, 1)`."""
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    return np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))[..., np.newaxis]


ROWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mlp": lambda pixels: pictures(pixels).reshape(-1, 784),
    "cnn": pictures,
    "lstm": lambda pixels: np.eye(17, 16, dtype=np.float32)[pixels],
    "transformer": lambda pixels: pixels,
}
"""Model -> digits as its rows."""


def trained(name: str, rows: np.ndarray, labels: np.ndarray) -> Any:
    """One of the networks; the transformer gets an output for each digit."""
    import keras

    model = saved_models.keras_model(name)
    if name == "transformer":
        model = keras.Model(model.input, keras.layers.Dense(CLASSES, activation="softmax")(model.layers[-2].output))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rows, labels, epochs=EPOCHS, batch_size=64, verbose=0)
    return model


def main() -> int:
    """Train, deploy, compare, print."""
    import tensorflow as tf

    pixels, labels = digits()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, to_rows in ROWS.items():
            rows = to_rows(pixels)
            model = trained(name, rows, labels)
            deployment = tfserve_nb.deploy(model, name, engine="auto", check=rows[:256], base_path=folder)
            loaded = tf.saved_model.load(f"{folder}/{name}/1")
            (wanted,) = loaded.signatures["serving_default"](tf.constant(rows)).values()
            answers = deployment.predict(rows)
            found[name] = {
                "engine": deployment.engine,
                "agreement": float(np.mean(answers.argmax(1) == wanted.numpy().argmax(1))),
                "difference": compare_outputs({"y": wanted.numpy()}, {"y": answers}),
                "accuracy": float(np.mean(answers.argmax(1) == labels)),
            }
            tfserve_nb.shutdown()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
