"""What the product does in processes of their own, in the tests': most of the time is TensorFlow's import in each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.engines import conversion, convert
from tfserve_nb.serving.engines.accelerated import SavedModelLoader
from tfserve_nb.serving.versions.acceleration import load_version
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.serving.versions.trial import Trial
from tfserve_nb.serving.versions.warmup import nothing_seen, warm_up
from tfserve_nb.types import Tensors
from tfserve_nb.variants import measure, probe
from tfserve_nb.variants.probing import Subject, Turn


def convert_jobs_here(jobs: Sequence[conversion.Job]) -> list[str]:
    """As `conversion.convert`, without its limits."""
    with TemporaryDirectory() as folder:
        todo, results = Path(folder, "jobs.json"), Path(folder, "results.jsonl")
        todo.write_text(json.dumps([asdict(job) for job in jobs]), "utf-8")
        results.write_bytes(b"")
        convert.main([str(todo), str(results)])
        return [json.loads(line) for line in results.read_text("utf-8").splitlines()]


def convert_here(patch: pytest.MonkeyPatch) -> None:
    """Let what is deployed in this process be converted in it too."""
    patch.setattr(conversion, "convert", convert_jobs_here)


class ProbeHere:
    """As `probing.Probe`, without a process."""

    def wait(self) -> None:
        """It has imported all that it needs."""

    def load(self, subject: Subject) -> None:
        self._subject = subject
        self._run, self.loaded = probe.load(subject)

    def run(self, inputs: Tensors) -> Any:
        return self._run(inputs)

    def turn(self, num_rows: int) -> Any:
        return probe.answer_to(Turn(num_rows), self._run, self._subject)


def probe_here(patch: pytest.MonkeyPatch) -> None:
    """Let variants be measured in this process."""
    patch.setattr(measure, "probing", lambda _: contextlib.nullcontext(ProbeHere()))


@contextlib.contextmanager
def loaded(path: Path, engine: str, options: BatchingOptions) -> Iterator[Any]:
    """A version as a server with these limits loads it, which notes in its folder what it finds out."""
    source = VersionSource(path, options, engine=engine)
    with pytest.MonkeyPatch.context() as patch:
        convert_here(patch)
        with contextlib.closing(load_version(SavedModelLoader(), source, nothing_seen)) as servable:
            warm_up(Trial(servable), source, lambda *_: None)
            yield servable
