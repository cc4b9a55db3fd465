"""Deploys models of Keras on JAX, in a process of its own: a process has one backend of Keras.

`python -m helpers.on_jax RESULTS`, in an empty folder; to RESULTS what was seen is written, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .converting import convert_here

X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
IDS = np.arange(12).reshape(3, 4)


def main(results: Path) -> None:
    """Write name -> what was seen of each model."""
    import tfserve_nb

    with pytest.MonkeyPatch.context() as patch:
        convert_here(patch)
        found: dict[str, Any] = {name: _seen(name, model, rows) for name, (model, rows) in _models().items()}
        found["refused"] = _refused()
    tfserve_nb.shutdown()
    results.write_text(json.dumps(found))


def _models() -> dict[str, tuple[Any, Any]]:
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    usual = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            layers.Dense(8, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, "softmax"),
        ]
    )
    usual.compile("adam", "sparse_categorical_crossentropy")
    usual.fit(np.random.default_rng(1).random((64, 4)), np.arange(64) % 3, epochs=2, verbose=0)
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    named = keras.Model(
        {"left": left, "right": right},
        {"both": layers.Dense(2)(layers.concatenate([left, right])), "one": layers.Dense(1)(left)},
    )
    ids = keras.Input((None,), dtype="int32", name="ids")
    recurrent = keras.Model(ids, layers.Dense(1)(layers.LSTM(4)(layers.Embedding(20, 3)(ids))))
    noisy = keras.Sequential([keras.Input((4,)), layers.GaussianNoise(1.0), layers.Dense(1)])

    class Own(keras.Model):  # type: ignore[misc]  # Keras is untyped
        def __init__(self) -> None:
            super().__init__()
            self.inner = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.inner(x)

    own = Own()
    own(X)
    two = {"left": X[:, :3], "right": X[:, :2]}
    return {
        "usual": (usual, X),
        "named": (named, two),
        "recurrent": (recurrent, IDS),
        "noisy": (noisy, X),
        "own": (own, X),
    }


def _seen(name: str, model: Any, rows: Any) -> dict[str, Any]:
    import keras

    import tfserve_nb

    engine = "auto" if name == "usual" else "tensorflow"
    before = [np.asarray(one.value) for one in model.variables]
    # XLA compiles the graph once for each batch size.
    handle = tfserve_nb.deploy(model, name, check=rows, engine=engine, max_batch_size=8)
    answer, expected = handle.predict(rows), model(rows, training=False)
    pairs = [(answer[key], expected[key]) for key in expected] if isinstance(expected, dict) else [(answer, expected)]
    status, folder = handle.status().versions[0], Path("tfserve_models", name, "1")
    return {
        "difference": max(float(np.abs(a - keras.ops.convert_to_numpy(b)).max()) for a, b in pairs),
        "is_left_alone": all(np.array_equal(a, b.value) for a, b in zip(before, model.variables, strict=True)),
        "alone": status.alone,
        "changes": status.changes,
        "reasons": {row.engine: row.reason for row in status.engines},
        "layers": [layer.name for layer in handle.provenance(1).layers if layer.variables],
        "weights_bytes": sum(file.stat().st_size for file in (folder / "variables").iterdir()),
        "num_weights": sum(int(np.prod(one.shape)) for one in model.weights),
    }


def _refused() -> str:
    import keras

    import tfserve_nb

    try:
        tfserve_nb.deploy(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), "xla", optimize="xla")
    except tfserve_nb.InvalidOption as error:
        return error.message
    return ""


if __name__ == "__main__":
    assert os.environ["KERAS_BACKEND"] == "jax"
    main(Path(sys.argv[1]))
