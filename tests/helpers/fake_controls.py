"""What a dashboard controls, without a server: versions 1 to 3 of a model, and a list of what was asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np

from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.errors import VersionNotFound
from tfserve_nb.experiment.state import ExperimentState
from tfserve_nb.serving.telemetry.metrics import Metrics
from tfserve_nb.serving.telemetry.model_metrics import ModelMetrics
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.serving.telemetry.request_samples import PhaseTimes, RequestSample
from tfserve_nb.serving.telemetry.resources import ResourceReader, Resources
from tfserve_nb.types import HistoryEvent, ModelStatus, VersionState, VersionStatus

from .dashboard_widgets import NASTY

SAMPLE = RequestSample(
    7, 1.7e9, 2, "serving_default", "REST", "OK", "", 1,
    {"image": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8), "text": np.array([b"hello"], dtype=object)},
    {"digit": np.array([[0.5, 0.5]], dtype=np.float32)}, False, 1.5, PhaseTimes(0.1, 0.2, 1.0, 0.2),
)  # fmt: skip


class FakeControls:
    """Controls of a model with versions 1 and 2, as `DeploymentControls`."""

    def __init__(self, name: str = "net") -> None:
        self.name = name
        self.default_version = 2
        self.deployed_at = time.time()
        self.recorder = Metrics()
        self.calls: list[str] = []
        self.is_sampling = False
        self.reader = ResourceReader()
        self.threads: set[str] = set()
        self.failure: Exception | None = None
        self.running: ExperimentState | None = None
        self.traffic: dict[int, float] = {}
        self.labels: dict[str, int] = {"stable": 1}

    def status(self) -> ModelStatus:
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        return ModelStatus(
            self.name,
            versions=(
                VersionStatus(3, VersionState.LOADING, detail=f"warming up {NASTY}"),
                VersionStatus(2, VersionState.AVAILABLE, deployed_at=self.deployed_at),
                VersionStatus(1, VersionState.AVAILABLE),
            ),
            default_version=self.default_version,
            traffic=self.traffic or {self.default_version: 100.0},
            labels=self.labels,
        )

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        return self.recorder.snapshot(self.name, span_s=span_s, step_s=step_s)

    def promote(self, version: int) -> None:
        self.calls.append(f"promote {version}")
        self.default_version = version

    def stage(self, version: int) -> None:
        self.calls.append(f"stage {version}")

    def set_label(self, label: str, version: int | None) -> None:
        self.calls.append(f"label {label} {version}")
        self.labels = {**self.labels, label: version} if version is not None else {}

    def set_traffic(self, weights: Mapping[int, float]) -> None:
        self.calls.append(f"traffic {dict(weights)}")
        self.traffic = dict(weights)

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

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        self.calls.append(f"{'delete' if delete else 'unload'} {version}")

    def experiment(self) -> ExperimentState | None:
        return self.running

    def ab_test(self, a: int, b: int, *, split: float = 50.0, **options: object) -> None:
        self.calls.append(f"test {b} against {a}, {split:g} %")

    def end_experiment(self, how: str) -> None:
        self.calls.append(f"end {how}")

    def disagreements(self, limit: int = 100) -> list[Disagreement]:
        self.calls.append(f"disagreements {limit}")
        return []

    def rollback(self, to: int | None = None) -> None:
        self.calls.append("rollback")
        if self.default_version == 1:
            raise VersionNotFound("net has no version before 1", hint="deploy another one")
        self.default_version = 1

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        return [HistoryEvent(time.time(), "deploy", 2, NASTY, NASTY)][:limit]

    def record(self, num: int, *, version: int = 1, latency_s: float = 0.002) -> None:
        for _ in range(num):
            now_s = time.perf_counter()
            start_s = now_s - latency_s
            self.recorder.record(
                RequestRecord(self.name, version, "serving_default", "OK", 1, start_s, start_s, now_s, now_s, now_s)
            )
