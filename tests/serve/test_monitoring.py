"""Prometheus metrics: TensorFlow Serving's names, types and buckets, and ours by version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.black_box import Served, Start
from helpers.client_requests import example_request, multi_request, predict_request

PATH = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def monitored(start_for_module: Start, store: Path, tmp_path_factory: Any) -> Served:
    folder = tmp_path_factory.mktemp("config")
    (folder / "monitoring").write_text("prometheus_config { enable: true }")
    (folder / "batching").write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")
    return start_for_module(
        "--model_name=hpt", f"--model_base_path={store}/half_plus_two", f"--monitoring_config_file={folder}/monitoring",
        "--enable_batching", f"--batching_parameters_file={folder}/batching",
    )  # fmt: skip


def values(text: str) -> dict[str, float]:
    """Series -> value."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_requests_batches_and_states_are_counted(monitored: Served, refused: Any) -> None:
    stub = monitored.stub()
    stub.Predict(predict_request(), timeout=30)
    stub.Predict(predict_request(), timeout=30)
    refused(stub.Predict, predict_request(values=["a"]))
    stub.Regress(example_request("regress", "regress_x_to_y", 1.0), timeout=30)
    stub.MultiInference(multi_request(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")), timeout=30)
    monitored.predict({"instances": [1.0]})
    monitored.rest("GET", "/v1/models/hpt")
    monitored.rest("GET", "/v1/models/other")
    monitored.close_channels()

    status, text, headers = monitored.rest("GET", PATH)

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    found = values(text)
    assert found[':tensorflow:serving:request_count{model_name="hpt",status="OK"}'] == 5
    assert found[':tensorflow:serving:request_count{model_name="hpt",status="INVALID_ARGUMENT"}'] == 1
    assert found[':tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"}'] == 1
    latency = ":tensorflow:serving:request_latency"
    assert found[f'{latency}_count{{model_name="hpt",API="Predict",entrypoint="GRPC"}}'] == 2
    assert found[f'{latency}_count{{model_name="hpt",API="predict",entrypoint="REST"}}'] == 1
    assert found[f'{latency}_count{{model_name="hpt",API="",entrypoint="REST"}}'] == 1
    assert found[f'{latency}_bucket{{model_name="hpt",API="Predict",entrypoint="GRPC",le="+Inf"}}'] == 2
    assert f'{latency}_bucket{{model_name="hpt",API="Predict",entrypoint="GRPC",le="1.47476e+09"}}' in found
    assert found[':tensorflow:serving:runtime_latency_count{model_name="hpt",API="Predict",runtime="TF1"}'] == 3
    assert found[':tensorflow:serving:request_example_count_total{model="hpt"}'] == 2
    assert found[":tensorflow:serving:batching_session:wrapped_run_count{}"] == 6
    assert found[':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name=""}'] == 6
    assert found[':tensorflow:serving:batching_session:padding_size_count{execution_batch_size="4"}'] == 6
    ours = 'model="hpt",signature="serving_default",version="123"'
    assert found[f"tfserve_request_seconds_count{{{ours}}}"] == 3
    assert found[f"tfserve_batch_rows_sum{{{ours}}}"] == 7
    code = 'code="INVALID_ARGUMENT",entrypoint="GRPC",label="",model="hpt",signature="serving_default",version="123"'
    assert found[f"tfserve_requests_total{{{code}}}"] == 1
    assert found['tfserve_version_state{model="hpt",state="AVAILABLE",version="123"}'] == 1


def test_every_metric_has_a_type_line_even_without_values(monitored: Served) -> None:
    text = monitored.rest("POST", PATH, b"")[1]

    types = dict(re.findall(r"^# TYPE (:\S+) (\S+)$", text, re.MULTILINE))
    serving = ":tensorflow:serving:"
    for name, kind in {
        "request_count": "counter", "request_latency": "histogram", "runtime_latency": "histogram",
        "request_example_counts": "histogram", "request_example_count_total": "counter",
        "request_log_count": "counter", "model_warmup_latency": "histogram", "model_warmup_records_read": "counter",
        "mlmd_map": "gauge", "batching_session:queuing_latency": "histogram",
        "batching_session:wrapped_run_count": "counter", "batching_session:input_batch_size": "histogram",
        "batching_session:processed_batch_size": "histogram", "batching_session:padding_size": "histogram",
    }.items():  # fmt: skip
        assert types[serving + name] == kind
    status, told, _ = monitored.rest("GET", PATH + "?q")
    assert (status, told) == (400, f"Unexpected path: {PATH}?q. Should be {PATH}")


def test_a_sample_on_a_limit_belongs_to_the_next_bucket() -> None:
    from tfserve_nb.server.telemetry.tf_metrics import TfMetrics
    from tfserve_nb.serving.telemetry.records import BatchRecord

    metrics = TfMetrics()
    metrics.on_batch(BatchRecord("m", 1, "s", (2,), 1, 2, (0.0,), 0.1, "free", is_batched=True))

    found = values(metrics.text())
    name = ":tensorflow:serving:batching_session:processed_batch_size_bucket"
    assert found[f'{name}{{le="2"}}'] == 0
    assert found[f'{name}{{le="4"}}'] == 1


def test_without_the_file_there_are_no_metrics(served: Served) -> None:
    assert served.rest("GET", PATH)[0] == 404
