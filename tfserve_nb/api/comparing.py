"""What a handle does with two versions: experiments on real traffic, what they differ in, where they come from.

Thread: any.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any  # the user's rows and labels

from ..diff.diff import diff_versions, provenance_of
from ..diff.result import VersionDiff
from ..errors import LabelNotFound
from ..experiment.engine.experiments import NUM_DISAGREEMENTS
from ..experiment.state import Disagreement, ExperimentState
from ..export.provenance.provenance import Provenance
from ..server.handle import Home
from . import ab_test as experimenting
from .ab_test import ABTest

RECORDED_S = (0.002, 0.02)
"""A request is counted just after its answer was written; a client may be back with the label before that."""


class Comparing(ABC):
    """The part of `Deployment` that deals with experiments.

    Attributes:
        name: the model's name.
    """

    name: str

    @property
    @abstractmethod
    def _home(self) -> Home:
        """The server with the model."""

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, int]:
        """Label -> version."""

    def ab_test(
        self,
        a: int | str,
        b: int | str,
        *,
        values: Any = None,
        rate: float | None = None,
        seconds: float = 60.0,
        watch: Callable[[ExperimentState], None] | None = None,
        **options: Any,
    ) -> ABTest:
        """Compare two versions under real traffic: split it, watch, and say what follows.

        Args:
            a: the current version, a number or a label; clients get it when B is taken back.
            b: the candidate.
            values: rows to ask the model with until there is a verdict, as `predict` takes them. Then the call returns
                with the verdict; without, it returns at once, and the traffic has to come from elsewhere.
            rate: with `values`: requests per second; by default 8 clients ask one request after the other.
            seconds: with `values`: the longest time.
            watch: with `values`: told where the experiment stands, a few times a second, on the calling thread.
            **options: the attributes of `experiment.plan.Plan` and `experiment.plan.Limits`, such as `split=50`,
                `margin=0.05`, `metric="latency"`, `steps=(1, 5, 25, 50)`, `shadow=20`, `slo_p99_ms=50`,
                `auto_promote=True`.

        Returns:
            An `ABTest` with `verdict`, `effect`, `interval`, `samples` and `srm`, which follow the experiment.

        Raises:
            InvalidOption: if an option is not allowed, an experiment goes on, or the versions take different inputs.
            ServingError: if the model cannot be asked with `values`; the experiment does not begin then.
            VersionNotFound: if there is no such version.
        """
        plan = experimenting.plan_of(self.name, self._version_of(a), self._version_of(b), options)
        if values is None:
            return experimenting.begin(self._home, plan, self)
        by = experimenting.asker(self._home, self.name, values, rate=rate, seconds=seconds)
        test = experimenting.begin(self._home, plan, self)
        experimenting.drive(test, by, watch)
        return test

    def ended_test(self, how: str) -> ABTest:
        """End the running experiment and keep its object: `promote`, `rollback` or `stop`."""
        return experimenting.ended(self._home, self.name, how, self)

    def latest_test(self) -> ABTest | None:
        """The object of the latest experiment, also of one that began before a restart; None when there was none."""
        return experimenting.latest(self._home, self.name, self)

    def experiment(self) -> ExperimentState | None:
        """Where the latest experiment stands; None when there was none."""
        return self._home.experiments.state(self.name)

    def end_experiment(self, how: str) -> ExperimentState:
        """End the running experiment: `promote` gives B all traffic, `rollback` and `stop` give it to A."""
        return self._home.experiments.end(self.name, how)

    def disagreements(self, limit: int = NUM_DISAGREEMENTS) -> list[Disagreement]:
        """The copied rows on which the versions of the experiment differed most, the worst first."""
        return self._home.experiments.disagreements(self.name, limit)

    def feedback(self, request_id: str, label: Any) -> bool:
        """Say what the right answer to an earlier request was, for the experiment's quality.

        Args:
            request_id: the request's `X-Request-Id`: sent by the client, or made by the server and told in the answer.
            label: the right class, number or text; one for each row of the request.

        Returns:
            Whether the request was known; it can be judged once.
        """
        known = self._home.experiments.feedback(self.name, request_id, label)
        for wait_s in RECORDED_S:
            if known:
                break
            time.sleep(wait_s)
            known = self._home.experiments.feedback(self.name, request_id, label)
        return known

    def provenance(self, version: int | str) -> Provenance:
        """Where a version (number or label) comes from: code, commit, packages, data, seed, metrics, layers.

        Raises:
            FailedPrecondition: if the version tells nothing, or its file is damaged.
        """
        return provenance_of(self._home, self.name, self._version_of(version))

    def diff(self, a: int | str, b: int | str, rows: Any = None) -> VersionDiff:
        """What two versions differ in: signatures, layers, weights, code, metrics, packages, latency, answers.

        Args:
            a: the older or current version, a number or a label.
            b: the other.
            rows: rows to ask both with; by default those that `warmup=` stored.
        """
        return diff_versions(self._home, self.name, self._version_of(a), self._version_of(b), rows)

    def _version_of(self, which: int | str) -> int:
        """The number of a version or label."""
        if not isinstance(which, str):
            return which
        labels = self.labels
        if which not in labels:
            known = ", ".join(sorted(labels)) or "no labels"
            raise LabelNotFound(f"{self.name} has no label {which!r}; it has {known}", hint="a version's number")
        return labels[which]
