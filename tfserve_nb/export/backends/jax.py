"""Keras on JAX: the model as a function that TensorFlow runs.

JAX writes its program down as one operation of TensorFlow's, `XlaCallModule`, with the weights as variables beside it.

Thread: the one that owns the model.

Reference: https://github.com/jax-ml/jax/blob/main/jax/experimental/jax2tf/README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any  # JAX's, Keras' and TensorFlow's objects

import numpy as np

from ...errors import ModelNotServable
from ...types import TensorSpec
from ..endpoint import ExportSource


def as_tensorflow(source: ExportSource) -> tuple[ExportSource, list[Any]]:
    """A model of Keras on JAX as one that TensorFlow can trace.

    Args:
        source: of the model.

    Returns:
        The same with another `call`; and its weights as TensorFlow's variables, in the order of `model.variables`.

    Raises:
        ModelNotServable: if this JAX cannot write for TensorFlow.
    """
    import keras
    import tensorflow as tf

    try:
        from jax.experimental import jax2tf
    except ImportError as error:
        raise ModelNotServable(
            f"{source.description} cannot be written for TensorFlow by this JAX: {error}", hint="pip install 'jax<0.11'"
        ) from error
    (model,), live = source.tracked, source.call
    assert live is not None  # noqa: S101 - a model in memory has one
    weights = list(getattr(model, "variables", ()))
    held = [tf.Variable(np.asarray(one.value), trainable=one.trainable, name=one.path) for one in weights]
    written: list[int] = []

    def without_state(values: Sequence[Any], *inputs: Any) -> tuple[Any, list[Any]]:
        """The outputs, and what the run makes of those variables that it writes."""
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))) as scope:
            outputs = live(*inputs)
        after = [scope.get_current_value(one) for one in weights]
        # Only what is written: assigning what is the same would make a version with state of every model.
        written[:] = [place for place, value in enumerate(after) if value is not None and value is not values[place]]
        return outputs, [after[place] for place in written]

    shapes = [_symbolic(spec, f"d{position}") for position, spec in enumerate(source.inputs)]
    converted = jax2tf.convert(without_state, polymorphic_shapes=[None, *shapes], with_gradient=False)

    def call(*inputs: Any) -> Any:
        outputs, values = converted(list(held), *inputs)
        for place, value in zip(written, values, strict=True):
            held[place].assign(value)
        return outputs

    return replace(source, call=call), held


def _symbolic(spec: TensorSpec, prefix: str) -> str:
    """A shape as JAX writes it: free sizes have names, and all inputs have as many rows."""
    sizes = [
        str(size) if size is not None else "batch" if position == 0 else f"{prefix}_{position}"
        for position, size in enumerate(spec.shape or ())
    ]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
