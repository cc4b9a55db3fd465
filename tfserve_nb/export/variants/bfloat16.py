"""A Keras model that computes in bfloat16 where that loses little: Keras' mixed precision, on a copy of the model.

Thread: the one that owns the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any  # Keras' models

from ...errors import InvalidOption
from ..endpoint import ExportSource
from ..keras_source import is_keras_object, keras_source
from ..reasons import innermost

POLICY = "mixed_bfloat16"
_FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux calls the instructions of processors that multiply bfloat16 faster than float32."""


def missing() -> str:
    """What this machine lacks for bfloat16 to be faster than float32, in words; "" for nothing."""
    flags = _processor_flags()
    if any(flag in flags for flag in _FLAGS) or _has_gpu():
        return ""
    return f"bfloat16 is slower than float32 here: the processor has none of {', '.join(_FLAGS)}, and there is no GPU"


def mixed(source: ExportSource) -> ExportSource:
    """The same Keras model with mixed precision: a copy, which has its weights.

    Raises:
        InvalidOption: if it is no Keras model, or cannot be copied.
    """
    model: Any = source.tracked[0] if len(source.tracked) == 1 else None
    if model is None or not is_keras_object(model) or source.backend != "tensorflow":
        raise InvalidOption(
            f"optimize='bfloat16' is for Keras models of TensorFlow in memory, and that is {source.description}",
            hint="--optimize float16",
        )
    return keras_source(_copy(model))


def _copy(model: Any) -> Any:
    """The model made anew from its configuration, each layer with the policy.

    Raises:
        InvalidOption: if it cannot be made from that.
    """
    import keras

    def with_policy(layer: Any) -> Any:
        config = layer.get_config()
        plain = getattr(layer.dtype_policy, "name", "float32") == "float32"
        return layer.__class__.from_config({**config, "dtype": POLICY} if plain and "dtype" in config else config)

    try:
        copy = keras.models.clone_model(model, clone_function=with_policy)
        copy.set_weights(model.get_weights())
    except Exception as error:
        raise InvalidOption(
            f"optimize='bfloat16': {type(model).__name__} {model.name!r} cannot be copied: {innermost(error)}",
            hint="keras.mixed_precision.set_global_policy('mixed_bfloat16') before the model is made",
        ) from error
    return copy


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
