"""Keras models in mixed precision, compiled by XLA, and with their weights stored in fewer bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from in_process import closed_loop
from saved_models import keras_model

from .setting import MIB, Found, Setting, attempt, deployed, difference, rows_text

STORED = ("float16", "int8")
"""Variants whose weights are rounded and unpacked to float32 when loaded: no tolerance of a computation suits them."""


def variants(setting: Setting) -> Iterator[Found]:
    """Keras models deployed from memory, in mixed precision, compiled or stored smaller, against float32 on the CPU."""
    import keras

    sizes = (1, min(32, setting.sizes[-1]))
    options = {"max_batch_size": sizes[-1], "allowed_batch_sizes": sizes}
    for model in setting.models:
        rows = model.rows[: sizes[-1]]
        network = keras_model(model.name)
        with deployed(network, device="/CPU:0", **options) as deployment:
            expected = deployment.predict(rows)
        for optimize in (None, "xla"):
            for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
                keras.config.set_dtype_policy(policy)
                try:
                    variant = keras_model(model.name)
                finally:
                    keras.config.set_dtype_policy("float32")
                variant.set_weights(network.get_weights())
                measure = partial(
                    _variant, setting, variant, rows, expected,
                    {"device": setting.device, "optimize": optimize, **options},
                )  # fmt: skip
                yield attempt(f"{model.name}, {policy}{', XLA' if optimize else ''}", measure)
        for optimize in STORED:
            options_of = {"device": setting.device, "optimize": optimize, **options}
            measure = partial(_variant, setting, network, rows, expected, options_of)
            yield attempt(f"{model.name}, weights stored as {optimize}", measure)


def _variant(
    setting: Setting, network: Any, rows: np.ndarray, expected: np.ndarray, options: Mapping[str, Any]
) -> dict[str, float]:
    started_s = time.perf_counter()
    with deployed(network, **options) as deployment:
        found = {"deploy, s": time.perf_counter() - started_s}
        found["files, MiB"] = deployment.status().versions[0].weights_bytes / MIB
        outputs = deployment.predict(rows)
        if options["optimize"] in STORED:
            found["largest difference"] = float(np.abs(outputs - expected).max())
        else:
            policy = network.dtype_policy.compute_dtype
            found["largest difference"] = difference(outputs, expected, computed_in=policy)
        for batch in (rows[:1], rows):
            closed_loop(deployment, batch, 1, 0.1)
            found[f"{rows_text(len(batch))}, p50, ms"] = closed_loop(deployment, batch, 1, setting.seconds / 2)["p50@1"]
    return found
