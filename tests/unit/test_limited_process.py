"""A program that gets so much time and memory: how its end is told, played by a shell in the place of Python."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tfserve_nb.limited_process import run_limited, too_little_memory

PLENTY = 1 << 40


@pytest.mark.parametrize(
    ("script", "left_s", "most_bytes", "expected"),
    [
        ('test "$*" = "-m our.module one two"', 60.0, PLENTY, ""),
        ("echo words; echo first >&2; echo last >&2; exit 3", 60.0, PLENTY, "the converter ended: last"),
        ("exit 3", 60.0, PLENTY, "the converter ended without a word"),
        ("kill -ABRT $$", 60.0, PLENTY, "the converter was ended by signal 6"),
        ("exec sleep 600", 0.0, PLENTY, "it took too long to convert"),
        ("exec sleep 600", 60.0, 0, "it took more than 0 MiB of memory to convert"),
    ],
)
def test_how_it_ended_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, left_s: float, most_bytes: int, expected: str
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    until_s = time.perf_counter() + left_s

    found = run_limited("our.module", ("one", "two"), tmp_path, until_s=until_s, most_bytes=most_bytes)

    assert found == expected


def test_too_little_memory_is_said_before() -> None:
    assert too_little_memory(10 << 20, 960 << 20) == ""
    assert too_little_memory(11 << 20, 960 << 20) == "converting may take 966 MiB of memory, and 960 MiB are free"
