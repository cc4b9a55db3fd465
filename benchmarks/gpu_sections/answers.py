"""Whether the device answers what the CPU answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from saved_models import BenchModel

from .setting import Found, Setting, attempt, deployed, difference, rows_text


def answers(setting: Setting) -> Iterator[Found]:
    """Whether the device answers what the CPU answers, by the tolerance of the export check."""
    import tensorflow as tf

    tf32 = tf.config.experimental
    modes = [True, False] if setting.is_gpu else [tf32.tensor_float_32_execution_enabled()]
    for mode in modes:
        tf32.enable_tensor_float_32_execution(mode)
        for model in setting.models:
            case = f"{model.name}, TF32 {'on' if mode else 'off'}" if setting.is_gpu else model.name
            yield attempt(case, partial(_agrees, setting, model))


def _agrees(setting: Setting, model: BenchModel) -> dict[str, float]:
    sizes = (1, len(model.rows))
    options = {"device": setting.device, "max_batch_size": sizes[-1], "allowed_batch_sizes": sizes}
    with deployed(model.version, **options) as deployment:
        return {
            f"largest difference, {rows_text(size)}": difference(
                deployment.predict(model.rows[:size]), model.answers[:size]
            )
            for size in sizes
        }
