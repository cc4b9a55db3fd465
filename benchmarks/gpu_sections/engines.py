"""Engines: what the product measures and chooses, and ONNX Runtime called barely on the device."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bare_model import median_ms
from saved_models import BenchModel

from .setting import Found, Setting, attempt, batching, deployed, difference, rows_text

CONVERSION_S = 40


def engines(setting: Setting) -> Iterator[Found]:
    """What `deploy(engine="auto")` measures and chooses, and ONNX Runtime on the device."""
    for model in setting.models:
        yield from _chosen_engine(setting, model)
    missing = [name for name in ("onnxruntime", "tf2onnx") if importlib.util.find_spec(name) is None]
    if missing:
        yield Found("ONNX Runtime", problem=f"{' and '.join(missing)} is not installed")
        return
    import onnxruntime
    import tf2onnx

    yield Found("versions", about={"ONNX Runtime, tf2onnx": f"{onnxruntime.__version__}, {tf2onnx.__version__}"})
    for model in setting.models:
        yield from _onnx_runtime(setting, model)


def _chosen_engine(setting: Setting, model: BenchModel) -> Iterator[Found]:
    try:
        options = {"check": model.rows, "device": setting.device, **batching(setting)}
        with deployed(model.version, engine="auto", **options) as deployment:
            for one in deployment.measure_engines():
                if one.agrees and one.ms is not None:
                    case = f"{model.name}, engine {one.engine}, {rows_text(one.batch_size)}"
                    yield Found(case, {"p50, ms": one.ms, "answers by default": float(one.is_chosen)})
                else:
                    yield Found(f"{model.name}, engine {one.engine}", problem=one.reason)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime is measured all the same
        yield Found(f"{model.name}, engine='auto'", problem=f"{type(error).__name__}: {error}")


def _onnx_runtime(setting: Setting, model: BenchModel) -> Iterator[Found]:
    provider = "CUDAExecutionProvider" if setting.is_gpu else "CPUExecutionProvider"
    case = f"{model.name}, ONNX Runtime, {provider}"
    try:
        session = _onnx_session(model, provider)
    except Exception as error:  # noqa: BLE001 - the next model may convert
        yield Found(case, problem=f"{type(error).__name__}: {error}")
        return
    (name,) = (one.name for one in session.get_inputs())

    def measure(size: int) -> dict[str, float]:
        run = partial(session.run, None, {name: np.resize(model.rows, (size, *model.rows.shape[1:]))})
        expected = np.resize(model.answers, (size, *model.answers.shape[1:]))
        found = difference(run()[0], expected)
        return {"p50, ms": median_ms(run, setting.seconds), "largest difference": found}

    for size in setting.sizes:
        yield attempt(f"{case}, {rows_text(size)}", partial(measure, size))


def _onnx_session(model: BenchModel, provider: str) -> Any:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu in its place")
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries from the packages that TensorFlow brought
    path = Path(f"{model.name}.onnx").absolute()
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model.version), "--opset", "18",
               "--output", str(path)]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=CONVERSION_S)
    session = onnxruntime.InferenceSession(path, providers=[provider])
    if provider not in session.get_providers():  # it goes on with the CPU, without an error
        raise RuntimeError(f"{provider} could not be started; ONNX Runtime would use {session.get_providers()}")
    return session
