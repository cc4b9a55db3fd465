"""What a dashboard needs of a deployment. `Deployment` satisfies it, and so can recorded data.

Thread: the dashboard thread calls it.
"""

from __future__ import annotations

from typing import Protocol

from ..serving.model_metrics import ModelMetrics
from ..types import HistoryEvent, ModelStatus


class DeploymentControls(Protocol):
    """Something with versions that can be looked at and switched."""

    name: str

    def status(self) -> ModelStatus:
        """States, traffic and labels now; a `ServingError` when the model is not served."""

    def metrics(self, span_s: int = 120, step_s: int = 2) -> ModelMetrics:
        """The numbers of the last `span_s` seconds."""

    def promote(self, version: int) -> object:
        """Give all traffic to a version."""

    def rollback(self, to: int | None = None) -> object:
        """Go back to the version before."""

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """Who did what, newest first."""
