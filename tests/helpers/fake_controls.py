"""What a dashboard controls, without a server: versions 1 to 3 of a model, and a list of what was asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.errors import VersionNotFound
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.types import HistoryEvent, ModelStatus, VersionState, VersionStatus

from .dashboard_widgets import NASTY
from .recorded import ENGINES, Recorded


class FakeControls(Recorded):
    """Versions 1 and 2 are loaded, 3 is loading. Actions are listed in `calls` and change little else."""

    def __init__(self, name: str = "net") -> None:
        super().__init__(name, num_requests=0)
        self.default_version = 2
        self.deployed_at = time.time()
        self.threads: set[str] = set()
        self.failure: Exception | None = None
        self.traffic = {}

    def status(self) -> ModelStatus:
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        return ModelStatus(
            self.name,
            versions=(
                VersionStatus(3, VersionState.LOADING, detail=f"warming up {NASTY}"),
                VersionStatus(2, VersionState.AVAILABLE, deployed_at=self.deployed_at),
                VersionStatus(1, VersionState.AVAILABLE, engine="litert", engines=ENGINES),
            ),
            default_version=self.default_version,
            traffic=self.traffic or {self.default_version: 100.0},
            labels=self.labels,
        )

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

    def set_engine(self, engine: str, version: int | None = None) -> None:
        self.calls.append(f"engine {engine} {version}")

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        self.calls.append(f"{'delete' if delete else 'unload'} {version}")

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
