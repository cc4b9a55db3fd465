"""Conversions for engines in the tests' own process: starting TensorFlow anew for each takes most of their time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tfserve_nb.serving.engines import conversion, convert


def _convert_here(jobs: Sequence[conversion.Job]) -> list[str]:
    """As `conversion.convert`, without its limits."""
    with TemporaryDirectory() as folder:
        todo, results = Path(folder, "jobs.json"), Path(folder, "results.jsonl")
        todo.write_text(json.dumps([asdict(job) for job in jobs]), "utf-8")
        results.write_bytes(b"")
        convert.main([str(todo), str(results)])
        return [json.loads(line) for line in results.read_text("utf-8").splitlines()]


def convert_here(patch: pytest.MonkeyPatch) -> None:
    """Let what is deployed in this process be converted in it too."""
    patch.setattr(conversion, "convert", _convert_here)
