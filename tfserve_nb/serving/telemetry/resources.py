"""Resource usage of a server's process: processor, memory, threads, GPUs.

Read when asked for, never by a thread of its own; the readings of the last quarter of an hour are kept.

Thread: any; one lock, held while the system is asked.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any  # psutil, pynvml

import numpy as np
from numpy.typing import NDArray

from ..engines.saved_model.devices import allocated_bytes

HISTORY_S = 900
EVERY_S = 0.9
"""A reading that follows sooner returns the one before."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as NVIDIA's driver reports it.

    Attributes:
        index: its number.
        name: such as `NVIDIA A10`.
        utilisation: percent of the last period in which a kernel ran.
        used_bytes: memory in use, by all processes.
        total_bytes: memory that it has.
        own_bytes: memory that this process has; 0 when the driver does not report it.
        tensorflow_bytes: what TensorFlow's allocator has given out; None before TensorFlow runs there.
        tensorflow_peak_bytes: the most that it had given out.
    """

    index: int
    name: str
    utilisation: float
    used_bytes: int
    total_bytes: int
    own_bytes: int = 0
    tensorflow_bytes: int | None = None
    tensorflow_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Resource usage of a process: now, and at each earlier reading.

    Attributes:
        pid: the process.
        cpu_percent: processor time since the reading before, in percent of one core.
        num_cores: cores that the process may use.
        system_percent: of all cores, by all processes.
        rss_bytes: memory in use.
        available_bytes: memory that the machine could still give.
        total_bytes: memory that it has.
        threads: kind of thread, such as `tfserve-server` or `others` -> how many.
        gpus: those that NVIDIA's driver reports.
        children: processes of the server, such as workers: how many, their processor time and memory.
        age_s: how long ago each earlier reading was, in seconds; shape `(n,)`, decreasing to 0.
        cpu_series: percent of one core at each; shape `(n,)`, float64.
        rss_series: bytes at each; shape `(n,)`, float64.
    """

    pid: int
    cpu_percent: float
    num_cores: int
    system_percent: float
    rss_bytes: int
    available_bytes: int
    total_bytes: int
    threads: Mapping[str, int] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    children: tuple[int, float, int] = (0, 0.0, 0)
    age_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    cpu_series: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    rss_series: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class ResourceReader:
    """Reads the resource usage of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._children: dict[int, Any] = {}
        self._last: Resources | None = None
        self._history: deque[tuple[float, float, float]] = deque(maxlen=int(HISTORY_S / EVERY_S) + 1)
        self._gpus = GpuReader()

    def read(self) -> Resources:
        """The numbers now; those of the last reading when it was less than a second ago."""
        with self._lock:
            now_s = time.perf_counter()
            if self._last is None or not self._history or now_s - self._history[-1][0] >= EVERY_S:
                self._last = self._read(now_s)
            return self._last

    def _read(self, now_s: float) -> Resources:
        import psutil

        if self._process is None:
            self._process = psutil.Process()
            self._process.cpu_percent(None)  # the first one has nothing to compare with
            psutil.cpu_percent(None)
        process, memory = self._process, psutil.virtual_memory()
        cpu, rss = process.cpu_percent(None), process.memory_info().rss
        self._history.append((now_s, cpu, float(rss)))
        times, cpus, sizes = np.array(self._history).T
        return Resources(
            pid=process.pid,
            cpu_percent=cpu,
            num_cores=len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1,
            system_percent=psutil.cpu_percent(None),
            rss_bytes=rss,
            available_bytes=memory.available,
            total_bytes=memory.total,
            threads=threads_by_kind(),
            gpus=self._gpus.read(process.pid),
            children=self._read_children(psutil),
            age_s=now_s - times,
            cpu_series=cpus,
            rss_series=sizes,
        )

    def _read_children(self, psutil: Any) -> tuple[int, float, int]:
        """Workers are children of the server; so are load generators, for as long as they run."""
        found = {child.pid: self._children.get(child.pid, child) for child in self._process.children(recursive=True)}
        self._children = found
        cpu, rss, num = 0.0, 0, 0
        for child in found.values():
            try:
                cpu += child.cpu_percent(None)
                rss += child.memory_info().rss
                num += 1
            except psutil.Error:  # it ended meanwhile
                continue
        return num, cpu, rss


class GpuReader:
    """Asks NVIDIA's driver through `nvidia-ml-py`; without it or a driver there are no GPUs."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._is_missing = False

    def read(self, pid: int) -> tuple[Gpu, ...]:
        """All GPUs; empty without the library or the driver."""
        if self._is_missing:
            return ()
        try:
            if self._nvml is None:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
            return tuple(self._read_one(index, pid) for index in range(self._nvml.nvmlDeviceGetCount()))
        except Exception:  # noqa: BLE001 - no library, no driver, a driver that fails: there is nothing to show then
            self._is_missing = True  # and it is not asked again each second
            return ()

    def _read_one(self, index: int, pid: int) -> Gpu:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        own = sum(process.usedGpuMemory or 0 for process in processes if process.pid == pid)
        used, peak = allocated_bytes(index)
        return Gpu(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name),
            utilisation=float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            used_bytes=int(memory.used),
            total_bytes=int(memory.total),
            own_bytes=own,
            tensorflow_bytes=used,
            tensorflow_peak_bytes=peak,
        )


def threads_by_kind() -> dict[str, int]:
    """Threads of this process that Python knows, by their names without numbers."""
    kinds = Counter(_kind(thread.name) for thread in threading.enumerate())
    return dict(sorted(kinds.items(), key=lambda item: (item[0] == "others", item[0])))


def _kind(name: str) -> str:
    return "-".join(name.split("-")[:2]) if name.startswith("tfserve-") else "others"
