"""The device that a version is loaded on, and that memory grows with what is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .setting import MIB, Found, Setting, attempt, deployed, memory


def device(setting: Setting) -> Iterator[Found]:
    """The device that a version is loaded on, and that memory grows with what is loaded."""
    import tensorflow as tf

    from tfserve_nb.serving.telemetry.resources import GpuReader

    model = setting.models[0]
    before = GpuReader().read(0)  # TensorFlow has not touched the GPU yet
    if before:
        used = before[setting.number].used_bytes / MIB
        yield Found("before TensorFlow uses it", {"GPU in use, all processes, MiB": used})
    for chosen in (None, setting.device):  # the first one starts the GPU, and nothing but the product sets growth
        case = "deployed, device left to TensorFlow" if chosen is None else f"deployed with device={chosen!r}"
        with deployed(model.version, device=chosen) as deployment:
            deployment.predict(model.rows[:1])
            yield attempt(case, partial(memory, deployment, setting))
    if setting.is_gpu:
        with deployed(model.version, device="/CPU:0") as deployment:
            yield attempt("deployed with device='/CPU:0'", partial(memory, deployment, setting))
        gpu = tf.config.list_physical_devices("GPU")[setting.number]
        facts = tf.config.experimental.get_device_details(gpu)
        build = tf.sysconfig.get_build_info()
        yield Found(
            "facts",
            about={
                "device for TensorFlow": f"{facts.get('device_name')}, compute capability "
                f"{'.'.join(map(str, facts.get('compute_capability', ())))}",
                "CUDA and cuDNN that TensorFlow was built for": f"{build.get('cuda_version')}, "
                f"{build.get('cudnn_version')}",
                "memory grows on demand": "yes" if tf.config.experimental.get_memory_growth(gpu) else "NO",
            },
        )
