"""What a core knows of its requests and tells to whoever looks: numbers, samples, captures, resources.

Thread: any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..errors import InvalidOption
from .telemetry.batch_summary import BatchSummary
from .telemetry.capture import Captures
from .telemetry.captured import CapturedRequests, CaptureSettings
from .telemetry.metrics import Metrics
from .telemetry.model_metrics import ModelMetrics
from .telemetry.request_samples import KEPT, RequestSamples, Samples
from .telemetry.resources import ResourceReader, Resources
from .telemetry.taps import Taps


class Looking(ABC):
    """The part of a core that others look at.

    Attributes:
        metrics: counts requests.
        samples: some requests, in full.
        captures: all requests, for a replay.
        taps: who gets finished requests with their tensors; samples and captures are among them.
    """

    metrics: Metrics
    samples: RequestSamples
    captures: Captures
    taps: Taps
    _resources: ResourceReader

    @abstractmethod
    def _check_served(self, name: str) -> object:
        """Raise `ModelNotFound` for a model that is not served."""

    @abstractmethod
    def _batches(self, name: str) -> Mapping[int, BatchSummary]:
        """What the versions of a model have run."""

    @abstractmethod
    def _inputs(self, name: str) -> frozenset[str]:
        """Names of the inputs of all signatures of a model's loaded versions."""

    def model_metrics(self, name: str, span_s: int, step_s: int, signature: str | None = None) -> ModelMetrics:
        """The numbers of a model; see `Metrics.snapshot`."""
        metrics = self.metrics.snapshot(name, span_s=span_s, step_s=step_s, signature=signature)
        return metrics.with_batches(self._batches(name))

    def recent_samples(self, name: str, limit: int = KEPT) -> Samples:
        """What was sampled of a model's requests; see `ModelAdmin.recent_samples`."""
        self._check_served(name)
        return Samples(self.samples.wants(name), tuple(self.samples.recent(name, limit)))

    def sample_requests(self, name: str, *, is_on: bool) -> None:
        """Begin or end sampling a model's requests."""
        self._check_served(name)
        self.samples.turn(name, is_on=is_on)
        self.taps.refresh()

    def capture(self, name: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Begin or end capturing a model's requests; see `ModelAdmin.capture`.

        Raises:
            InvalidOption: if `redact` names an input that no loaded version has: a slip there would keep everything.
        """
        self._check_served(name)
        known = self._inputs(name)
        unknown = sorted(set(() if settings is None else settings.names) - known)
        if known and unknown:
            raise InvalidOption(
                f"redact={unknown[0]!r} is no input of {name}; it has {', '.join(sorted(known))}",
                hint=f"redact=[{min(known)!r}]",
            )
        self.captures.turn(name, settings, clear=clear)
        self.taps.refresh()

    def captured(self, name: str, limit: int | None = None) -> CapturedRequests:
        """What was captured of a model's requests; see `ModelAdmin.captured`."""
        self._check_served(name)
        return self.captures.found(name, limit)

    def resources(self) -> Resources:
        """What this process takes."""
        return self._resources.read()
