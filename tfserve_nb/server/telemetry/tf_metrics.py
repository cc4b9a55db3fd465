"""TensorFlow Serving's metrics: its names, labels and buckets, and its way to write them down.

`prometheus_client` can neither count nor write them. Its buckets take a sample that equals their limit, these leave
it to the next. Its text, even from a collector of our own, adds `HELP` lines, ends the names of counters in `_total`,
sorts labels (`le` first), and writes `3.0` and `1.234567e+06` where TensorFlow Serving writes `3` and `1.23457e+06`,
and nothing instead of `{}` for a metric without labels (measured with 0.26). Series would be named differently, and
dashboards and alerts that were made for TensorFlow Serving would find none.

Thread: any; one lock guards the counters.

Reference: tensorflow_serving/util/prometheus_exporter.cc (a sample that equals a bucket's limit belongs to the next
bucket; `TYPE` lines only; six significant digits), model_servers/server_core.cc, servables/tensorflow/util.cc and
batching/batching_session.cc for the metrics.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Iterator

from ...serving.telemetry.observer import Observer
from ...serving.telemetry.records import BatchRecord, RequestRecord, RequestTensors, WarmupRecord

MAX_SERIES = 5000
"""Series of one metric; clients can make up model names, and must not fill the memory with them."""

_LATENCY = tuple(10 * 1.8**i for i in range(33))
_QUEUING = tuple(100 * 1.2**i for i in range(52))
_SIZES = tuple(float(2**i) for i in range(14))
_EXAMPLES = tuple(float(2**i) for i in range(15))
_GRPC_APIS = frozenset({"Predict", "Classify", "Regress"})


class _Counter:
    """A metric that only grows."""

    kind = "counter"

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self.labels = labels
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *values: str, amount: int = 1) -> None:
        if values in self.values or len(self.values) < MAX_SERIES:
            self.values[values] = self.values.get(values, 0) + amount

    def lines(self, name: str) -> Iterator[str]:
        for values, number in self.values.items():
            yield f"{name}{_labels(self.labels, values)} {number:g}"


class _Histogram:
    """Counts by buckets `[limit before, limit)`."""

    kind = "histogram"

    def __init__(self, name: str, limits: tuple[float, ...], *labels: str) -> None:
        self.name = name
        self.labels = labels
        self.limits = limits
        self.values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def add(self, *values: str, sample: float) -> None:
        cell = self.values.get(values)
        if cell is None:
            if len(self.values) >= MAX_SERIES:
                return
            cell = self.values[values] = ([0] * (len(self.limits) + 1), [0.0])
        counts, total = cell
        counts[bisect.bisect_right(self.limits, sample)] += 1
        total[0] += sample

    def lines(self, name: str) -> Iterator[str]:
        for values, (counts, (total,)) in self.values.items():
            so_far = 0
            for limit, count in zip((*(f"{limit:g}" for limit in self.limits), "+Inf"), counts, strict=True):
                so_far += count
                yield f"{name}_bucket{_labels((*self.labels, 'le'), (*values, limit))} {so_far}"
            yield f"{name}_sum{_labels(self.labels, values)} {total:g}"
            yield f"{name}_count{_labels(self.labels, values)} {so_far}"


class _Gauge(_Counter):
    """A metric that we have no value for."""

    kind = "gauge"


class TfMetrics(Observer):
    """The metrics of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        prefix = "/tensorflow/serving/"
        self._requests = _Counter(prefix + "request_count", "model_name", "status")
        self._latency = _Histogram(prefix + "request_latency", _LATENCY, "model_name", "API", "entrypoint")
        self._runtime = _Histogram(prefix + "runtime_latency", _LATENCY, "model_name", "API", "runtime")
        self._examples = _Histogram(prefix + "request_example_counts", _EXAMPLES, "model")
        self._examples_total = _Counter(prefix + "request_example_count_total", "model")
        self._logged = _Counter(prefix + "request_log_count", "model_name", "status_code")
        self._warmup = _Histogram(prefix + "model_warmup_latency", _LATENCY, "model_path", "status")
        self._warmup_records = _Counter(prefix + "model_warmup_records_read", "model_path", "status")
        prefix += "batching_session/"
        self._queuing = _Histogram(prefix + "queuing_latency", _QUEUING, "thread_pool_name")
        self._runs = _Counter(prefix + "wrapped_run_count")
        self._input_rows = _Histogram(prefix + "input_batch_size", _SIZES)
        self._run_rows = _Histogram(prefix + "processed_batch_size", _SIZES)
        self._padding = _Histogram(prefix + "padding_size", _SIZES, "execution_batch_size")
        self._all: tuple[_Counter | _Histogram, ...] = (
            self._requests,
            self._latency,
            self._runtime,
            self._examples,
            self._examples_total,
            self._logged,
            self._warmup,
            self._warmup_records,
            self._queuing,
            self._runs,
            self._input_rows,
            self._run_rows,
            self._padding,
            _Gauge("/tensorflow/serving/mlmd_map", "model_name", "version"),
        )

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Count a request as TensorFlow Serving does: all of REST, of gRPC the three calls that run a model."""
        del tensors
        is_counted = record.entrypoint == "REST" or record.api in _GRPC_APIS
        with self._lock:
            if record.api == "MultiInference" and record.code == "OK":
                self._examples.add(record.model, sample=record.num_rows)
                self._examples_total.add(record.model, amount=record.num_rows)
            if not is_counted:
                return
            self._requests.add(record.model, record.code)
            if record.code != "OK":
                return
            self._latency.add(record.model, record.api, record.entrypoint, sample=record.latency_s * 1e6)
            if record.done_s is not None:
                took_us = (record.done_s - record.decoded_s) * 1e6
                self._runtime.add(record.model, record.api.capitalize(), "TF1", sample=took_us)

    def on_batch(self, record: BatchRecord) -> None:
        """Count a batch, if batching is on; shadow copies are no live traffic."""
        if not record.is_batched or record.is_background:
            return
        num_rows = sum(record.task_rows)
        with self._lock:
            self._runs.add()
            self._run_rows.add(sample=record.execution_rows)
            self._padding.add(str(record.execution_rows), sample=record.execution_rows - num_rows)
            for rows, waited_s in zip(record.task_rows, record.waited_s, strict=True):
                self._queuing.add("", sample=waited_s * 1e6)
                for _ in range(record.num_inputs):
                    self._input_rows.add(sample=rows)

    def on_warmup(self, record: WarmupRecord) -> None:
        """Count a warm-up."""
        with self._lock:
            self._warmup.add(record.path, record.code, sample=record.took_s * 1e6)
            self._warmup_records.add(record.path, record.code, amount=record.num_records)

    def on_logged(self, model: str, code: str) -> None:
        """Count a request that was written to a file."""
        with self._lock:
            self._logged.add(model, code)

    def text(self) -> str:
        """All metrics, in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for metric in self._all:
                name = _prometheus_name(metric.name)
                lines += (f"# TYPE {name} {metric.kind}", *metric.lines(name))
        return "\n".join((*lines, ""))

    def counter_value(self, name: str) -> int | None:
        """The first series of a counter by TensorFlow Serving's name; 0 without any, None for no such counter."""
        with self._lock:
            for metric in self._all:
                if metric.name == name and isinstance(metric, _Counter):
                    return int(next(iter(metric.values.values()), 0))
        return None


def _prometheus_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", ":", name)


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return "{}"
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
