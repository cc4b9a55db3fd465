"""The operations on a server's experiments.

`Experiments` carries them out beside the core; `server.admin.client.RemoteExperiments` sends them to another server.

Thread: any.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..agreement.result import Disagreement
from .plan import Plan
from .state import ExperimentState


class ExperimentAdmin(Protocol):
    """The experiments of one server: at most one for each model at a time.

    All methods raise `ModelNotFound` for a model that is not served.
    """

    def start(self, plan: Plan) -> ExperimentState:
        """Begin an experiment: load both versions, split the traffic, observe; returns its state.

        Raises:
            InvalidOption: if the model has an experiment that runs, or the versions do not take the same inputs.
            VersionNotFound: if there is no such version.
        """

    def state(self, name: str) -> ExperimentState | None:
        """The state of the model's latest experiment; None when there was none."""

    def end(self, name: str, how: str) -> ExperimentState:
        """End the running experiment.

        Args:
            name: the model.
            how: `promote` gives B all traffic, `rollback` gives it to A, `stop` does so too, without a verdict.

        Raises:
            InvalidOption: if none runs.
        """

    def feedback(self, name: str, request_id: str, label: Any) -> bool:
        """Note the right label of an earlier request; False when the request is not known (any more)."""

    def disagreements(self, name: str, limit: int = ...) -> list[Disagreement]:
        """The rows on which both versions differed most, the worst first."""
