"""What a process takes; the GPU is one of the test's own, none was at hand."""

from __future__ import annotations

import json
import os
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tfserve_nb.dashboards.pages.resources import resources_page
from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.serving.telemetry.resources import GpuReader, ResourceReader, Resources, threads_by_kind
from tfserve_nb.types import ModelStatus, VersionState, VersionStatus

STATUS = ModelStatus("net", (VersionStatus(1, VersionState.AVAILABLE, weights_bytes=2_500_000),), 1, {1: 100.0}, {})


def fake_nvml(**changes: Any) -> ModuleType:
    """NVIDIA's library with one GPU."""
    module = ModuleType("pynvml")
    values = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: b"Test GPU",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=3 << 30, total=8 << 30),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=42),
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 << 30),
            SimpleNamespace(pid=1, usedGpuMemory=None),
        ],
    }
    module.__dict__.update(values | changes)
    return module


def test_this_process_is_read_and_survives_the_admin_api() -> None:
    resources = ResourceReader().read()

    assert resources.pid == os.getpid()
    assert resources.rss_bytes > 10_000_000
    assert resources.available_bytes < resources.total_bytes
    back = from_json(json.loads(json.dumps(to_json(resources))), Resources)
    assert str(back) == str(resources)


def test_looking_more_often_than_once_a_second_reads_nothing_new() -> None:
    reader = ResourceReader()

    assert reader.read() is reader.read()


def test_threads_are_counted_by_what_they_do() -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait, name=f"tfserve-runner-{n}", daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert threads_by_kind()["tfserve-runner"] == 3
        assert threads_by_kind()["others"] >= 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_gpu_is_told_with_this_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())

    (gpu,) = GpuReader().read(os.getpid())

    assert (gpu.name, gpu.utilisation, gpu.own_bytes, gpu.total_bytes) == ("Test GPU", 42.0, 1 << 30, 8 << 30)


def test_a_driver_that_fails_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise OSError("no driver")

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=fail))
    reader = GpuReader()

    assert [reader.read(1) for _ in range(3)] == [(), (), ()]
    assert calls == [1]


def test_the_page_shows_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    page = resources_page(ResourceReader().read(), STATUS)

    assert "0 Test GPU" in page
    assert "2.5 MB" in page
    assert "this process" in page
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "No GPU is known" in resources_page(ResourceReader().read(), STATUS)
