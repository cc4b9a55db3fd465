"""GPU memory, on a TensorFlow that only pretends to have GPUs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tfserve_nb.serving.engines.devices import grow_on_demand, isolation_problem


class Config:
    """TensorFlow's `config` with some GPUs."""

    def __init__(self, num_gpus: int, *, has_started: bool = False, grows: bool = False) -> None:
        self.growth = dict.fromkeys([f"GPU:{number}" for number in range(num_gpus)], grows)
        self.has_started = has_started
        self.experimental = self

    def list_physical_devices(self, kind: str) -> list[str]:
        return list(self.growth) if kind == "GPU" else ["CPU:0"]

    def get_memory_growth(self, gpu: str) -> bool:
        return self.growth[gpu]

    def set_memory_growth(self, gpu: str, value: bool) -> None:
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
