"""Processes that get a part of the GPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from saved_models import BenchModel
from server_process import free_port

from .setting import Found, Setting, attempt, deployed, difference, memory
from .training import Training

KERNEL_MIB = 2048
SERVE_SHARE = 0.1


def limits(setting: Setting) -> Iterator[Found]:
    """Processes that get a part of the GPU: a kernel with a fixed limit, and `tfserve-nb serve` with a share."""
    model = setting.models[0]
    share = f"serve --per_process_gpu_memory_fraction={SERVE_SHARE:g}"
    yield attempt(share, partial(_serve_with_share, setting, model))
    if not setting.is_gpu:
        yield Found(f"isolated, beside a kernel with {KERNEL_MIB} MiB", problem="no GPU: there is no memory to divide")
        return
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[setting.number]
    tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=KERNEL_MIB)])
    with Training(setting.device):
        time.sleep(setting.seconds)
        with deployed(model.version, isolate=True, device=setting.device) as deployment:
            deployment.predict(model.rows[:1])
            measure = partial(memory, deployment, setting)
            yield attempt(f"isolated, beside a kernel with {KERNEL_MIB} MiB", measure)


def _serve_with_share(setting: Setting, model: BenchModel) -> dict[str, float]:
    import httpx

    import tfserve_nb

    port, grpc_port, token = free_port(), free_port(), "benchmark"
    Path("token").write_text(token)
    command = [
        sys.executable, "-m", "tfserve_nb", "serve", f"--rest_api_port={port}", f"--port={grpc_port}",
        "--model_name=bench", f"--model_base_path={model.base}", f"--device={setting.device}",
        f"--per_process_gpu_memory_fraction={SERVE_SHARE}", "--auth_token_file=token",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "TF_FORCE_GPU_ALLOW_GROWTH"}
    url = f"http://127.0.0.1:{port}"
    with Path("serve.log").open("w") as log, subprocess.Popen(
        command, stdout=log, stderr=log, env=environment
    ) as process:  # fmt: skip
        try:
            while True:
                if process.poll() is not None:
                    raise RuntimeError(f"serve ended: {Path('serve.log').read_text()[-300:]}")
                with contextlib.suppress(httpx.TransportError):
                    status = httpx.get(f"{url}/v1/models/bench", headers={"Authorization": f"Bearer {token}"})
                    if '"AVAILABLE"' in status.text:
                        break
                time.sleep(0.1)
            deployment = tfserve_nb.connect(url, token)
            found = difference(deployment.predict(model.rows), model.answers)
            return {"largest difference": found, **memory(deployment, setting)}
        finally:
            process.terminate()
