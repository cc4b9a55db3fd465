"""Latency and throughput by rows of a request, against the bare call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from bare_model import call_ms
from in_process import closed_loop

from .setting import CALLERS, Found, Setting, attempt, batching, deployed, rows_text


def speed(setting: Setting) -> Iterator[Found]:
    """Latency and throughput by rows of a request, against the bare call of the same SavedModel."""
    import tensorflow as tf

    for model in setting.models:
        with deployed(model.version, device=setting.device, **batching(setting)) as deployment:
            with tf.device(setting.device):
                loaded = tf.saved_model.load(str(model.version))
            function = loaded.signatures["serving_default"]
            for size in setting.sizes:
                rows = np.resize(model.rows, (size, *model.rows.shape[1:]))
                yield attempt(f"{model.name}, {rows_text(size)}", partial(_speed, setting, deployment, function, rows))


def _speed(setting: Setting, deployment: Any, function: Any, rows: np.ndarray) -> dict[str, float]:
    import tensorflow as tf

    with tf.device(setting.device):
        call_ms(function, rows, 0.1)  # the first call compiles
        bare_ms = call_ms(function, rows, setting.seconds)
    closed_loop(deployment, rows, 1, 0.1)
    alone = closed_loop(deployment, rows, 1, setting.seconds)
    together = closed_loop(deployment, rows, CALLERS, setting.seconds)
    rows_per_s = len(rows) * together[f"rate@{CALLERS}"]
    return {
        "bare call, p50, ms": bare_ms,
        "d.predict, p50, ms": alone["p50@1"],
        "p99, ms": alone["p99@1"],
        "bare call, rows/s": 1e3 * len(rows) / bare_ms,
        f"d.predict, {CALLERS} callers, rows/s": rows_per_s,
        "over the bare call": rows_per_s / (1e3 * len(rows) / bare_ms),
    }
