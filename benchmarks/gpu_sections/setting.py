"""What all sections are told, what they find, and how they deploy and compare."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from saved_models import BenchModel

MIB = 2**20
CALLERS = 8
READING_S = 1.0


@dataclass(frozen=True)
class Setting:
    """What all sections are told.

    Attributes:
        device: the TensorFlow device that is measured.
        folder: where the models are.
        names: which of them.
        sizes: rows of a request.
        seconds: length of one measurement.
    """

    device: str
    folder: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    seconds: float

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return "GPU" in self.device.upper()

    @property
    def number(self) -> int:
        """The number of the device."""
        return int(self.device.rpartition(":")[2])

    @property
    def models(self) -> list[BenchModel]:
        """The models on disk, the small ones first."""
        return [BenchModel(name, Path(self.folder) / name) for name in self.names]


@dataclass(frozen=True)
class Found:
    """What was found of one case: numbers by what they measure, facts of the whole run, or why there are none."""

    case: str
    values: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def attempt(case: str, measure: Callable[[], Mapping[str, float]]) -> Found:
    """Measure one case; one that fails takes no other with it."""
    try:
        return Found(case, measure())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what there is to report
        return Found(case, problem=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def deployed(model: Any, name: str = "bench", *, is_kept: bool = False, **options: Any) -> Iterator[Any]:
    """A deployed model, undeployed at the end unless somebody else does that."""
    import tfserve_nb

    deployment = tfserve_nb.deploy(str(model) if isinstance(model, Path) else model, name, **options)
    try:
        yield deployment
    finally:
        if not is_kept:
            deployment.undeploy()


def memory(deployment: Any, setting: Setting) -> dict[str, float]:
    """The memory of a server's process, and of the GPU where `nvidia-ml-py` can ask the driver."""
    import tensorflow as tf

    time.sleep(READING_S)
    resources = deployment.resources()
    found = {"RAM of the server, MiB": resources.rss_bytes / MIB}
    if not setting.is_gpu:
        return found
    for gpu in resources.gpus:
        if gpu.index == setting.number:
            found["GPU in use, all processes, MiB"] = gpu.used_bytes / MIB
            found["of the GPU's memory, %"] = 100 * gpu.used_bytes / gpu.total_bytes
            found["GPU in use by the server, MiB"] = gpu.own_bytes / MIB
            found["TensorFlow's allocator, MiB"] = (gpu.tensorflow_bytes or 0) / MIB
            return found
    if resources.pid == os.getpid():
        used = tf.config.experimental.get_memory_info(setting.device.lstrip("/"))["current"]
        found["TensorFlow's allocator, MiB"] = used / MIB
    return found


def difference(found: np.ndarray, expected: np.ndarray, computed_in: str = "float32") -> float:
    """The largest difference between two arrays of outputs.

    Raises:
        ExportFailed: if it is beyond the tolerance of the export check.
    """
    from tfserve_nb.export.check import compare_outputs

    return compare_outputs({"y": expected}, {"y": found.astype(expected.dtype)}, computed_in=computed_in)


def rows_text(number: int) -> str:
    """Such as `1 row`."""
    return f"{number} row{'s' if number > 1 else ''}"


def batching(setting: Setting) -> dict[str, Any]:
    """The options of a deploy whose batches have the sizes that are measured."""
    return {"max_batch_size": setting.sizes[-1], "allowed_batch_sizes": setting.sizes}
