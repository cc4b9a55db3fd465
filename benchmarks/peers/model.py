"""The model that all servers of the comparison answer with: a SavedModel's signature, numpy in and numpy out.

Each peer imports this in its own virtual environment; only numpy and TensorFlow are needed.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

MAX_BATCH_SIZE = 64


class Model:
    """A loaded SavedModel.

    Args:
        path: the version folder; that of the environment variable `BENCH_MODEL` unless told.
    """

    def __init__(self, path: str = "") -> None:
        self._loaded = tf.saved_model.load(path or os.environ["BENCH_MODEL"])
        self._function = self._loaded.signatures["serving_default"]
        (self.input_name,) = self._function.structured_input_signature[1]
        (self.output_name,) = self._function.structured_outputs
        self.shape = tuple(self._function.structured_input_signature[1][self.input_name].shape[1:])
        for size in (1, 2, 4, 8, 16, 32, 64):
            self(np.zeros((size, *self.shape), np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Run a batch: float32 `(b, ...)` in, float32 `(b, k)` out."""
        given = {self.input_name: tf.constant(np.ascontiguousarray(rows, np.float32))}
        return self._function(**given)[self.output_name].numpy()
