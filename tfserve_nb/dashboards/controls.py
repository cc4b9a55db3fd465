"""What a dashboard needs of a deployment. `Deployment` satisfies it, and so can a fake for tests.

Thread: the dashboard's threads call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol  # options of an experiment

import numpy as np

from ..agreement.result import Disagreement
from ..experiment.state import ExperimentState
from ..serving.telemetry.model_metrics import ModelMetrics
from ..serving.telemetry.request_samples import RequestSample
from ..serving.telemetry.resources import Resources
from ..types import HistoryEvent, ModelStatus


class DeploymentControls(Protocol):
    """A model with versions that can be read and switched."""

    name: str

    def status(self) -> ModelStatus:
        """States, traffic and labels now; a `ServingError` when the model is not served."""

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        """The numbers of the last `span_s` seconds, of one signature or of all."""

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """The events of the model's history, newest first."""

    def promote(self, version: int) -> object:
        """Give all traffic to a version."""

    def rollback(self, to: int | None = None) -> object:
        """Go back to the version before."""

    def stage(self, version: int) -> object:
        """Load a version without giving it traffic."""

    def set_label(self, label: str, version: int | None) -> object:
        """Point a label to a version; None removes it."""

    def set_traffic(self, weights: Mapping[int, float]) -> object:
        """Split the requests that name no version, in percent."""

    def set_engine(self, engine: str, version: int | None = None) -> object:
        """Let another engine run a version."""

    def measure_engines(self, version: int | None = None) -> object:
        """Compare the engines of a version anew, and measure them."""

    def resources(self) -> Resources:
        """What the server's process takes of its machine."""

    @property
    def is_sampling(self) -> bool:
        """Whether requests are sampled."""

    def sample_requests(self, is_on: bool = True) -> object:
        """Begin or end sampling requests."""

    def samples(self, limit: int = ...) -> list[RequestSample]:
        """The newest sampled requests, newest first."""

    def send_again(self, sample: RequestSample, version: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Send the rows of a sampled request once more."""

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        """Unload a version, and delete its files if asked."""

    def experiment(self) -> ExperimentState | None:
        """Where the latest experiment stands; None when there was none."""

    def ab_test(self, a: int, b: int, *, split: float = 50.0, **options: Any) -> object:
        """Begin an experiment with two versions; returns at once."""

    def end_experiment(self, how: str) -> object:
        """End the running experiment: `promote` B, `rollback` to A, or `stop`."""

    def disagreements(self, limit: int = ...) -> list[Disagreement]:
        """The rows on which both versions of the experiment differed most, the worst first."""
