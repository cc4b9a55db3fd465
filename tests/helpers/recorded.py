"""A deployment that is none: versions 1 to 3 with numbers that were recorded, for dashboards in browsers.

It stands beside the notebook that shows it, and writes down what it was asked to do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.errors import InvalidOption
from tfserve_nb.experiment.state import ExperimentState
from tfserve_nb.serving.telemetry.metrics import Metrics
from tfserve_nb.serving.telemetry.model_metrics import ModelMetrics
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.serving.telemetry.request_samples import PhaseTimes, RequestSample
from tfserve_nb.serving.telemetry.resources import ResourceReader, Resources
from tfserve_nb.types import EngineMeasurement, HistoryEvent, ModelStatus, VersionState, VersionStatus

from . import recorded_experiment

SAMPLE = RequestSample(
    7, 1.7e9, 2, "serving_default", "REST", "OK", "", 1,
    {"image": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8), "text": np.array([b"hello"], dtype=object)},
    {"digit": np.array([[0.5, 0.5]], dtype=np.float32)}, False, 1.5, PhaseTimes(0.1, 0.2, 1.0, 0.2),
)  # fmt: skip

ENGINES = (
    EngineMeasurement("tensorflow", "serving_default", 1, 0.38, True, "litert has 5.2 × its speed"),
    EngineMeasurement("tensorflow", "serving_default", 32, 1.47, True, "litert has 5.2 × its speed"),
    EngineMeasurement("onnx", "serving_default", 0, None, None, "ONNX has no operation for <Svd>"),
    EngineMeasurement("litert", "serving_default", 1, 0.04, True, is_chosen=True),
    EngineMeasurement("litert", "serving_default", 32, 0.85, True, is_chosen=True),
)
"""What was measured of the engines of a version."""


class Recorded:
    """Something with versions."""

    def __init__(self, name: str = "recorded", num_requests: int = 700) -> None:
        self.name = name
        self.version = 2
        self.traffic: dict[int, float] = {2: 100.0}
        self.labels = {"stable": 1}
        self.loaded = {1, 2}
        self.on_disk = [1, 2, 3]
        self.recorder = Metrics()
        self.events: list[HistoryEvent] = []
        self.calls: list[str] = []
        self.engines: dict[int, str] = {}
        self.is_sampling = False
        self.reader = ResourceReader()
        self.running: ExperimentState | None = None
        self.load(num_requests)

    def load(self, num: int) -> None:
        """Let some requests have been answered lately."""
        random.seed(0)
        now_s = time.perf_counter()
        for number in range(num):
            at_s, took_s = now_s - 20 * number / num, random.lognormvariate(-6, 0.5)
            times = (at_s - took_s, at_s - 0.9 * took_s, at_s - 0.7 * took_s, at_s - 0.1 * took_s, at_s)
            version = 1 if number % 4 == 0 else 2
            self.recorder.record(RequestRecord(self.name, version, "serving_default", "OK", 1, *times))

    def status(self) -> ModelStatus:
        """States, traffic and labels now."""
        versions = tuple(
            VersionStatus(
                version,
                VersionState.AVAILABLE if version in self.loaded else VersionState.END,
                engine=self.engines.get(version, "tensorflow"),
                engines=ENGINES if version in self.engines else (),
            )
            for version in sorted(self.on_disk, reverse=True)
        )
        return ModelStatus(
            self.name, versions, self.version, dict(self.traffic), dict(self.labels), on_disk=tuple(self.on_disk)
        )

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        """The recorded numbers."""
        return self.recorder.snapshot(self.name, span_s=span_s, step_s=step_s, signature=signature)

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """Who did what."""
        return self.events[:limit]

    def promote(self, version: int) -> None:
        """Give all traffic to a version."""
        self._note("promote", version)
        self.version, self.traffic, self.loaded = version, {version: 100.0}, self.loaded | {version}

    def rollback(self, to: int | None = None) -> None:
        """Go back to version 1."""
        self._note("rollback", to or 1)
        self.version, self.traffic = 1, {1: 100.0}

    def stage(self, version: int) -> None:
        """Load a version."""
        self._note("stage", version)
        self.loaded = self.loaded | {version}

    def set_label(self, label: str, version: int | None) -> None:
        """Point a label to a version."""
        self._note(f"label {label}", version)
        self.labels = {other: to for other, to in self.labels.items() if other != label}
        if version is not None:
            self.labels[label] = version

    def set_traffic(self, weights: Mapping[int, float]) -> None:
        """Split the traffic."""
        self._note(f"traffic {sorted(weights.items())}", None)
        self.traffic = dict(weights)

    def set_engine(self, engine: str, version: int | None = None) -> None:
        """Let another engine run a version."""
        self._note(f"engine {engine}", version)
        self.engines = {**self.engines, version or self.version: engine}

    def measure_engines(self, version: int | None = None) -> None:
        """Measure the engines of a version."""
        self.calls.append(f"measure {version}")

    def resources(self) -> Resources:
        """What this process takes."""
        return self.reader.read()

    def sample_requests(self, is_on: bool = True) -> None:
        """Begin or end sampling."""
        self.calls.append(f"sample {is_on}")
        self.is_sampling = is_on

    def samples(self, limit: int = 50) -> list[RequestSample]:
        """One request with an image, while sampling is on."""
        return [SAMPLE][:limit] if self.is_sampling else []

    def send_again(self, sample: RequestSample, version: int | None = None) -> np.ndarray:
        """The same answer, a little different."""
        self.calls.append(f"send {sample.number} to {version}")
        return np.array([[0.25, 0.75]], dtype=np.float32)

    def experiment(self) -> ExperimentState | None:
        """Where the recorded experiment stands."""
        return self.running

    def ab_test(self, a: int, b: int, *, split: float = 50.0, **options: Any) -> None:
        """Begin the recorded experiment."""
        self.calls.append(f"test {b} against {a}, {split:g} %")
        self.traffic = {a: 100 - split, b: split}
        equal = recorded_experiment.state_of("equal")
        self.running = replace(equal, plan=replace(equal.plan, a=a, b=b, split=split), started_at=time.time())

    def end_experiment(self, how: str) -> None:
        """End it."""
        self.calls.append(f"end {how}")
        if self.running is None or self.running.is_over:
            raise InvalidOption("no experiment runs", hint="start one")
        phase = {"promote": "promoted", "rollback": "rolled back", "stop": "stopped"}[how]
        plan = self.running.plan
        self.version = plan.b if how == "promote" else plan.a
        self.traffic = {self.version: 100.0}
        self.running = replace(
            self.running,
            phase=phase,
            reason="a person said so",
            ended_at=time.time(),
            percent=self.traffic.get(plan.b, 0),
        )

    def disagreements(self, limit: int = 100) -> list[Disagreement]:
        """Three rows, while there was an experiment."""
        return recorded_experiment.disagreements()[:limit] if self.running is not None else []

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        """Unload a version."""
        if version in self.traffic:
            raise InvalidOption(f"version {version} still has traffic", hint="promote another version first")
        self._note("delete" if delete else "unload", version)
        self.loaded = self.loaded - {version}
        self.on_disk = [one for one in self.on_disk if one != version or not delete]

    def _note(self, action: str, version: int | None) -> None:
        self.calls.append(f"{action} {version}")
        self.events.insert(0, HistoryEvent(time.time(), action.split(" ", maxsplit=1)[0], version, action, "a test"))
