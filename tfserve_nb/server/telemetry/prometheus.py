"""Metrics for Prometheus: TensorFlow Serving's, and beside them ours by version, label and signature.

Thread: any; `prometheus_client` and `TfMetrics` have their own locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...serving.telemetry.observer import Observer
from ...serving.telemetry.records import BatchRecord, CopyCounts, RequestRecord, RequestTensors
from ...types import VersionState, VersionStatus
from .tf_metrics import TfMetrics

if TYPE_CHECKING:
    from prometheus_client import Histogram

CONTENT_TYPE = "text/plain"
_SECONDS = tuple(1e-4 * 2 ** (i / 2) for i in range(40))
"""100 µs to 74 s in steps of 41 %."""
_ROWS = tuple(float(2**i) for i in range(14))

States = Callable[[], Mapping[str, Iterable[VersionStatus]]]
"""Model -> the states of its versions now."""

Copies = Callable[[], Mapping[tuple[str, int], CopyCounts]]
"""(model, version) -> what became of the shadow copies for it."""


class Monitor(Observer):
    """All metrics of one server.

    Args:
        states: called whenever metrics are read.
        copies: likewise.

    Attributes:
        tf: TensorFlow Serving's metrics, an observer of its own.
    """

    def __init__(self, states: States, copies: Copies = dict) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.tf = TfMetrics()
        self._registry = CollectorRegistry()
        version = ("model", "version", "signature")
        self._requests = Counter(
            "tfserve_requests",
            "Requests by outcome",
            ("model", "version", "label", "signature", "entrypoint", "code"),
            registry=self._registry,
        )
        self._latency = self._histogram("tfserve_request_seconds", "From the request's head to its answer", version)
        self._queue = self._histogram("tfserve_queue_seconds", "A request's wait in the batch queue", version)
        self._run = self._histogram("tfserve_run_seconds", "One run of the model", version)
        self._rows = Histogram(
            "tfserve_batch_rows", "Rows of a batch before padding", version, buckets=_ROWS, registry=self._registry
        )
        self._batches = Counter(
            "tfserve_batches", "Batches by why they left the queue", (*version, "reason"), registry=self._registry
        )
        self._registry.register(_Collector(lambda: _states_of(states())))
        self._registry.register(_Collector(lambda: _copies_of(copies())))

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Count a request."""
        del tensors
        if record.version is None:
            # Names that clients make up must not become series.
            self._requests.labels("", "", "", "", record.entrypoint, record.code).inc()
            return
        version = str(record.version)
        self._requests.labels(
            record.model, version, record.label, record.signature, record.entrypoint, record.code
        ).inc()
        if record.code == "OK":
            self._latency.labels(record.model, version, record.signature).observe(record.latency_s)

    def on_batch(self, record: BatchRecord) -> None:
        """Count a batch; shadow copies are no live traffic."""
        if record.is_background:
            return
        labels = (record.model, str(record.version), record.signature)
        self._run.labels(*labels).observe(record.run_s)
        self._rows.labels(*labels).observe(sum(record.task_rows))
        self._batches.labels(*labels, record.reason).inc()
        queue = self._queue.labels(*labels)
        for waited_s in record.waited_s:
            queue.observe(waited_s)

    def exposition(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        from prometheus_client import generate_latest

        ours: bytes = generate_latest(self._registry)
        return self.tf.text().encode() + ours

    def _histogram(self, name: str, help_text: str, labels: tuple[str, ...]) -> Histogram:
        from prometheus_client import Histogram

        return Histogram(name, help_text, labels, buckets=_SECONDS, registry=self._registry)


class _Collector:
    """A metric whose values are computed whenever metrics are read.

    Args:
        family: the metric with its values now.
    """

    def __init__(self, family: Callable[[], Any]) -> None:
        self._family = family

    def collect(self) -> Iterable[Any]:
        """Called by `prometheus_client`."""
        yield self._family()

    def describe(self) -> Iterable[Any]:
        """Called by `prometheus_client` at registration, when there may be no values yet."""
        return ()


def _states_of(models: Mapping[str, Iterable[VersionStatus]]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "tfserve_version_state", "1 for the state that a version is in", labels=("model", "version", "state")
    )
    for model, versions in models.items():
        for status in versions:
            for state in VersionState:
                family.add_metric((model, str(status.version), state.name), 1.0 if state is status.state else 0.0)
    return family


def _copies_of(copies: Mapping[tuple[str, int], CopyCounts]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(
        "tfserve_shadow_copies", "Copies of requests for another version", labels=("model", "version", "outcome")
    )
    for (model, version), counts in copies.items():
        for outcome, count in zip(("run", "failed", "dropped"), counts, strict=True):
            family.add_metric((model, str(version), outcome), count)
    return family
