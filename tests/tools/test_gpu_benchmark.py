"""What benchmarks/gpu.py promises when its sections fail, hang, or find no GPU; its sections are a script here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECTIONS = """
import json, sys, time

def found(case, **rest):
    with open(path, "a") as file:
        file.write(json.dumps({"case": case, "values": {}, "about": {}, "problem": ""} | rest) + "\\n")

section, setting, path = sys.argv[1:]
if json.loads(setting)["device"] == "/GPU:0":
    print("TensorFlow has no /GPU:0 here, but CPU:0", file=sys.stderr)
    sys.exit(3)
found(f"{section} begins", values={"ms": 1.5})
if section == "speed":
    time.sleep(600)
if section == "answers":
    found("cnn", problem="differs by 7|8")
    raise SystemExit("out of memory")
found(f"{section} ends", values={"ms": 2.5}, about={"device for TensorFlow": "Test GPU"})
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The command, with sections that need no TensorFlow."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("gpu")
    (tmp_path / "gpu_sections.py").write_text(SECTIONS)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "make_all", lambda *_: {})
    monkeypatch.setitem(module.LIMITS_S, "speed", 5.0)
    return module


def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    return int(gpu.main())


def test_a_section_that_fails_or_hangs_keeps_what_it_found_and_the_next_one_runs(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.md"

    code = run(gpu, monkeypatch, "--device", "/CPU:0", "--out", str(out))

    assert code == 0
    text = out.read_text()
    assert text in capsys.readouterr().out
    assert "a dry run on the CPU: no GPU was used" in text
    assert "| device for TensorFlow | Test GPU |" in text
    for section in gpu.SECTIONS:
        assert f"| {section} begins | 1.5 |" in text
        assert (f"| {section} ends | 2.5 |" in text) == (section not in ("speed", "answers"))
    assert "| speed | the rest | it was stopped after 5 s |" in text
    assert "| answers | cnn | differs by 7/8 |" in text
    assert "| answers | the rest | it ended with code 1: out of memory |" in text
    stored = json.loads(out.with_suffix(".json").read_text())
    assert {"part": "memory", "case": "memory ends", "what": "ms", "round": 0, "value": 2.5} in stored["samples"]


def test_without_the_device_it_says_so_once(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.md"

    assert run(gpu, monkeypatch, "--out", str(out)) == 1

    assert (
        capsys.readouterr().err.count("TensorFlow has no /GPU:0 here, but CPU:0 (--device /CPU:0 makes a dry run)") == 1
    )
    assert not out.exists()


def test_everything_together_takes_less_than_eight_minutes(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "LIMIT_S", 0.0)
    out = tmp_path / "results.md"

    assert run(gpu, monkeypatch, "--device", "/CPU:0", "--out", str(out)) == 1

    assert out.read_text().count("| all | no time was left |") == len(gpu.SECTIONS)
