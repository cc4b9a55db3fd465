"""GPU memory: make TensorFlow take it as it is needed, warn users when it is too late for that, and how much it took.

By default TensorFlow reserves nearly all memory of every GPU when it first uses one, and never gives it back. Growth on
demand can only be set before that.

Thread: any; TensorFlow's configuration has its own lock.

Reference: https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth
"""

from __future__ import annotations

from typing import Any  # TensorFlow's devices

from ....protos.postponed import loaded


def grow_on_demand() -> bool:
    """Let TensorFlow take GPU memory as it is needed, if it has not started a GPU yet.

    Returns:
        Whether memory grows on demand now; True without a GPU.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):  # it runs already, or another GPU was set differently
            return all(_grows(tf, gpu) for gpu in gpus)
    return True


def is_processor(device: str | None) -> bool:
    """Whether a version runs on the processor alone.

    Args:
        device: the TensorFlow device asked for, or None for the GPU where there is one.
    """
    if device is not None:
        return "CPU" in device.upper()
    tf = loaded()
    return tf is None or not tf.config.list_physical_devices("GPU")


def isolation_problem(device: str | None) -> str:
    """Why a second process may find no GPU memory beside this one; "" when it will find some.

    Args:
        device: the TensorFlow device asked for, or None.
    """
    tf = loaded()
    if tf is None or (device is not None and "CPU" in device.upper()):
        return ""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or all(_grows(tf, gpu) for gpu in gpus) or not _has_started(tf):
        return ""
    return (
        "TensorFlow of this kernel has reserved nearly all memory of the GPU and keeps it, so the server process may "
        "find too little: restart the kernel with TF_FORCE_GPU_ALLOW_GROWTH=true, or deploy with --device /CPU:0"
    )


def allocated_bytes(index: int) -> tuple[int | None, int | None]:
    """What TensorFlow's allocator has given out on a GPU now, and at most; (None, None) before TensorFlow uses it.

    Never the reason why TensorFlow is imported, or starts a GPU whose memory does not grow: the question starts it.
    """
    tf = loaded()
    if tf is None:
        return None, None
    try:
        gpus = tf.config.list_physical_devices("GPU")
        if not all(_grows(tf, gpu) for gpu in gpus) and not _has_started(tf):
            return None, None
        info = tf.config.experimental.get_memory_info(f"GPU:{index}")
    except Exception:  # noqa: BLE001 - no such device for TensorFlow
        return None, None
    return int(info["current"]), int(info["peak"])


def _grows(tf: Any, gpu: Any) -> bool:
    """Whether a GPU's memory is left to others until it is needed, or beyond a limit."""
    try:
        return bool(tf.config.experimental.get_memory_growth(gpu))
    except ValueError:  # a GPU that is divided into virtual devices
        parts = tf.config.get_logical_device_configuration(gpu) or []
        return bool(parts) and all(part.memory_limit is not None for part in parts)


def _has_started(tf: Any) -> bool:
    """Whether TensorFlow has started its devices: then their configuration can no longer change."""
    gpu = tf.config.list_physical_devices("GPU")[0]
    try:
        tf.config.experimental.set_memory_growth(gpu, _grows(tf, gpu))
    except (RuntimeError, ValueError):
        return True
    return False
