"""Requests in files, and requests from files: PredictionLog records as TensorFlow Serving's tools read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.black_box import START_S, Start
from helpers.client_requests import example_request, predict_request
from helpers.eventually import eventually

from tfserve_nb.errors import ConfigRejected
from tfserve_nb.export.prediction_log import LoggedCall, RotatingWriter, to_message
from tfserve_nb.server.config_files import read_model_configs
from tfserve_nb.server.telemetry.request_log import RequestLog
from tfserve_nb.serving.models.model_config import LoggingOptions


def records(path: Path) -> list[Any]:
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    return [PredictionLog.FromString(one) for one in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


def values_of(record: Any) -> list[float]:
    """What a logged predict request sent as `x`."""
    import tensorflow as tf

    return [float(value) for value in tf.make_ndarray(record.predict_log.request.inputs["x"]).ravel()]


def test_logged_requests_warm_up_another_server(start: Start, own_store: Path, tmp_path: Path) -> None:
    base = own_store / "half_plus_two"
    config = tmp_path / "models.config"
    config.write_text(
        f"""model_config_list {{ config {{
          name: "hpt" base_path: "{base}" model_platform: "tensorflow"
          logging_config {{
            log_collector_config {{ filename_prefix: "{tmp_path}/logs/hpt" }}
            sampling_config {{ sampling_rate: 1.0 }}
          }}
        }} }}"""
    )
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    served = start(f"--model_config_file={config}", f"--monitoring_config_file={monitoring}")
    stub = served.stub()
    stub.Predict(predict_request(), timeout=30)
    served.predict({"instances": [4.0]})
    stub.Classify(example_request("classify", "classify_labels", 1.0), timeout=30)
    stub.Regress(example_request("regress", "regress_x_to_y", 2.0), timeout=30)
    served.predict({"instances": ["bad"]})
    assert served.stop() == 0

    (file,) = (tmp_path / "logs").iterdir()
    first, second, third, fourth = records(file)
    assert values_of(first) == [1.0, 2.0, 5.0]
    assert first.log_metadata.model_spec.version.value == 123
    assert first.log_metadata.sampling_config.sampling_rate == 1.0
    assert second.predict_log.response.outputs["y"].tensor_shape.dim[0].size == 1
    assert third.classify_log.response.result.classifications[0].classes[0].label == "half plus two"
    assert fourth.regress_log.response.result.regressions[0].value == 3.0

    (base / "00000123" / "assets.extra").mkdir()
    shutil.copy(file, base / "00000123" / "assets.extra" / "tf_serving_warmup_requests")
    again = start(
        f"--model_base_path={base}", f"--monitoring_config_file={monitoring}", "--num_request_iterations_for_warmup=2"
    )
    assert "Starting to read warmup data for model at " in again.text
    assert "Number of warmup records read: 4." in again.text
    metrics = again.rest("GET", "/metrics")[1]
    assert f'model_warmup_records_read{{model_path="{base}/00000123",status="OK"}} 4' in metrics
    assert again.stop() == 0


def test_a_warmup_file_that_fails_fails_the_load(start: Start, own_store: Path) -> None:
    version = own_store / "half_plus_two" / "00000123"
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no records at all")
    flags = (f"--model_base_path={version.parent}", "--max_num_load_retries=0")

    served = start(*flags, wait=False)
    assert served.process.wait(START_S) == 255
    assert "Please verify your warmup data is in TFRecord format." in served.text

    served = start(*flags, "--enable_model_warmup=false")
    assert served.stop() == 0


def test_configurations_of_logging_are_checked(tmp_path: Path) -> None:
    config = tmp_path / "c"
    text = (
        'model_config_list {{ config {{ name: "m" base_path: "/m" model_platform: "tensorflow" '
        "logging_config {{ {} }} }} }}"
    )
    config.write_text(text.format("sampling_config { sampling_rate: 1 }"))
    with pytest.raises(ConfigRejected, match="logging_config of model m names no filename_prefix"):
        read_model_configs(str(config))
    config.write_text(
        text.format('log_collector_config { filename_prefix: "/l" } sampling_config { sampling_rate: 1.5 }')
    )
    with pytest.raises(ConfigRejected, match="sampling_rate of model m is 1.5"):
        read_model_configs(str(config))


def call(number: int) -> LoggedCall:
    x = {"x": np.full((1, 100), number, np.float32)}
    return LoggedCall("predict", "m", 1, "serving_default", x, x, 1.0, 1.0)


def test_files_rotate_and_old_ones_go(tmp_path: Path) -> None:
    writer = RotatingWriter(str(tmp_path / "new" / "log"), max_bytes=1000, max_files=2)
    for number in range(6):
        writer.write(to_message(call(number)).SerializeToString())
    writer.close()

    files = sorted((tmp_path / "new").iterdir())
    assert len(files) == 2
    # A record takes 900 bytes or so: two fit before a file is full, and the first two of the three files went.
    assert [[values_of(record)[0] for record in records(file)] for file in files] == [[2.0, 3.0], [4.0, 5.0]]


def test_a_log_that_cannot_be_written_loses_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    codes: list[tuple[str, str]] = []
    log = RequestLog(lambda _: LoggingOptions(str(tmp_path / "file" / "log"), 0.5), lambda *one: codes.append(one),
                     draw=iter([0.1, 0.9, 0.2]).__next__)  # fmt: skip
    log.start()
    for number in range(3):
        one = call(number)
        log.offer("predict", "m", 1, "s", one.inputs, one.outputs)
    log.offer("multiinference", "m", 1, "s", {}, {})
    log.stop()

    assert codes == [("m", "INTERNAL"), ("m", "INTERNAL")]
    assert [record.message for record in caplog.records if "cannot be logged" in record.message] == [
        caplog.records[-1].message
    ]


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size meanwhile: what a full disk is to its writer."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def all_values(folder: Path) -> list[list[float]]:
    """Of each file, the first value of each record; a file with half a record cannot be read."""
    return [[values_of(record)[0] for record in records(file)] for file in sorted(folder.iterdir())]


def test_a_full_disk_costs_no_record_that_was_written(tmp_path: Path) -> None:
    writer = RotatingWriter(str(tmp_path / "log"), max_bytes=1000, max_files=3)
    record = [to_message(call(number)).SerializeToString() for number in range(12)]
    for number in range(5):
        writer.write(record[number])

    with files_end_at(1000):  # the sixth record fits in part, and so does every first one of two
        for _ in range(40):
            with pytest.raises(OSError, match=r"log: File too large"):
                writer.write(record[5] * 2)
    assert all_values(tmp_path) == [[0.0, 1.0], [2.0, 3.0], [4.0]]

    for number in (6, 7):
        writer.write(record[number])
    writer.close()
    assert all_values(tmp_path) == [[2.0, 3.0], [4.0], [6.0, 7.0]]


def test_a_disk_that_is_full_now_and_then_keeps_as_much_as_ever(tmp_path: Path) -> None:
    writer = RotatingWriter(str(tmp_path / "log"), max_bytes=5000, max_files=2)
    record = [to_message(call(number)).SerializeToString() for number in range(8)]
    for number in range(8):
        writer.write(record[number])
        with files_end_at(1000), pytest.raises(OSError, match="File too large"):
            writer.write(record[number] * 2)
    writer.close()

    assert all_values(tmp_path) == [[float(number)] for number in range(8)]


def test_a_full_disk_is_warned_of_once_and_logging_goes_on_when_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[str] = []
    options = {
        "m": LoggingOptions(str(tmp_path / "logs" / "m"), 1.0),
        "n": LoggingOptions(str(tmp_path / "n" / "n"), 1),
    }
    log = RequestLog(options.get, lambda _, code: codes.append(code))
    log.start()
    one = call(1)

    def offer(number: int, model: str = "m") -> None:
        before = len(codes)
        for _ in range(number):
            log.offer("predict", model, 1, "s", one.inputs, one.outputs)
        eventually(lambda: len(codes) == before + number)

    offer(2)
    with files_end_at(100):
        offer(30)
        offer(1, "n")
        offer(30)
    offer(2)
    with files_end_at(100):
        offer(30)
    log.stop()

    assert (codes.count("OK"), codes.count("INTERNAL")) == (4, 91)
    warnings = [record.message for record in caplog.records if "cannot be logged" in record.message]
    assert [text.rpartition("/")[2] for text in warnings] == ["m: File too large", "n: File too large"]
    assert all_values(tmp_path / "logs") == [[1.0, 1.0], [1.0, 1.0]]
