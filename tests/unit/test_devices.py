"""GPU memory, on a TensorFlow that only pretends to have GPUs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tfserve_nb.serving.engines.saved_model.devices import allocated_bytes, grow_on_demand, isolation_problem


class Config:
    """TensorFlow's `config` with some GPUs."""

    def __init__(
        self, num_gpus: int, *, has_started: bool = False, grows: bool = False, limit_mib: int | None = None
    ) -> None:
        self.growth = dict.fromkeys([f"GPU:{number}" for number in range(num_gpus)], grows)
        self.has_started = has_started
        self.limit_mib = limit_mib
        self.experimental = self

    def list_physical_devices(self, kind: str) -> list[str]:
        return list(self.growth) if kind == "GPU" else ["CPU:0"]

    def get_memory_growth(self, gpu: str) -> bool:
        if self.limit_mib is not None:
            raise ValueError("Cannot query memory growth on a device with virtual devices")
        return self.growth[gpu]

    def get_logical_device_configuration(self, gpu: str) -> list[SimpleNamespace] | None:
        return None if self.limit_mib is None else [SimpleNamespace(memory_limit=self.limit_mib)]

    def get_memory_info(self, device: str) -> dict[str, int]:
        self.has_started = True
        if device not in self.growth:
            raise ValueError(f"{device} is not a valid device")
        return {"current": 1 << 20, "peak": 2 << 20}

    def set_memory_growth(self, gpu: str, value: bool) -> None:
        if self.limit_mib is not None:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        if self.has_started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.growth[gpu] = value


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(config: Config) -> Config:
        monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
        return config

    return install


def test_growth_is_switched_on_before_the_gpu_starts(pretend: Any) -> None:
    config = pretend(Config(2))

    assert grow_on_demand()
    assert all(config.growth.values())
    assert isolation_problem(None) == ""


def test_a_gpu_that_runs_stays_as_it_is_and_is_told(pretend: Any) -> None:
    config = pretend(Config(1, has_started=True))

    assert not grow_on_demand()
    assert not any(config.growth.values())
    assert "TF_FORCE_GPU_ALLOW_GROWTH=true" in isolation_problem(None)
    assert isolation_problem("/CPU:0") == ""


def test_without_gpus_or_with_growth_there_is_nothing_to_say(pretend: Any) -> None:
    pretend(Config(0))
    assert grow_on_demand()
    assert isolation_problem(None) == ""
    pretend(Config(1, has_started=True, grows=True))
    assert grow_on_demand()
    assert isolation_problem(None) == ""


def test_a_gpu_with_a_fixed_limit_leaves_room_for_others(pretend: Any) -> None:
    pretend(Config(1, has_started=True, limit_mib=2048))

    assert isolation_problem(None) == ""


def test_the_allocator_is_not_asked_before_growth_is_set(pretend: Any) -> None:
    """The question starts the GPU, and without growth TensorFlow would take all of its memory then."""
    config = pretend(Config(1))

    assert allocated_bytes(0) == (None, None)
    assert not config.has_started
    assert grow_on_demand()
    assert allocated_bytes(0) == (1 << 20, 2 << 20)


def test_without_tensorflow_or_such_a_gpu_nothing_is_allocated(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(Config(1, has_started=True))
    assert allocated_bytes(1) == (None, None)
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert allocated_bytes(0) == (None, None)
