"""Keras layers that several rings try."""

from __future__ import annotations

from typing import Any

import keras


class Noise(keras.layers.Layer):  # type: ignore[misc]
    """Draws from a generator whose state is a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)
