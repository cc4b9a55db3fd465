"""The sections of benchmarks/gpu.py that need no GPU, on the CPU with the smallest model."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.eventually import eventually

import tfserve_nb

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("gpu_sections")
    tfserve_nb.shutdown()


def measured(found: Any) -> dict[str, Any]:
    """Case -> numbers, once none of them failed."""
    cases = list(found)
    assert [one.problem for one in cases if one.problem] == []
    return {one.case: one.values for one in cases}


def test_the_smallest_sections_run_on_the_cpu(sections: Any, tmp_path: Path) -> None:
    models = importlib.import_module("saved_models")
    models.write(models.BenchModel("mlp", tmp_path / "mlp"))
    setting = sections.Setting("/CPU:0", str(tmp_path), ("mlp",), (1, 8), 0.05)

    answers = measured(sections.SECTIONS["answers"](setting))
    speed = measured(sections.SECTIONS["speed"](setting))
    variants = measured(sections.SECTIONS["variants"](setting))

    assert set(answers["mlp"]) == {"largest difference, 1 row", "largest difference, 64 rows"}
    assert list(speed) == ["mlp, 1 row", "mlp, 8 rows"]
    assert all(value > 0 for values in speed.values() for value in values.values())
    assert [case for case in variants if "XLA" in case] == [
        f"mlp, {policy}, XLA" for policy in ("float32", "mixed_float16", "mixed_bfloat16")
    ]
    size = "files, MiB"
    assert variants["mlp, weights stored as int8"][size] < variants["mlp, weights stored as float16"][size]
    assert variants["mlp, weights stored as float16"][size] < variants["mlp, float32"][size]
    rounded = "largest difference"
    assert 0 < variants["mlp, weights stored as float16"][rounded] < variants["mlp, weights stored as int8"][rounded]
    assert variants["mlp, float32"][rounded] < variants["mlp, mixed_float16"][rounded]
    assert variants["mlp, mixed_float16"][rounded] < variants["mlp, mixed_bfloat16"][rounded]


def test_a_training_goes_on_beside_its_block_and_ends_with_it(sections: Any) -> None:
    training_of = importlib.import_module("gpu_sections.training").Training
    with training_of("/CPU:0") as training:
        eventually(lambda: training.steps_per_s() > 0)

    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_answers_beyond_the_tolerance_are_the_problem_of_their_case(sections: Any) -> None:
    setting = importlib.import_module("gpu_sections.setting")

    def compare() -> dict[str, float]:
        return {"difference": setting.difference(np.ones(3), np.zeros(3))}

    found = setting.attempt("mlp", compare)

    assert "largest difference 1" in found.problem
    assert not found.values
