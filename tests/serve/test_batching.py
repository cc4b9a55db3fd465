"""Batching by TensorFlow Serving's file: sizes, limits, padding and their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.black_box import Served, Start
from helpers.client_requests import predict_request


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small limits, so that tests reach them."""
    path = tmp_path_factory.mktemp("batching") / "batching.config"
    path.write_text(
        """
        max_batch_size { value: 4 }
        batch_timeout_micros { value: 200000 }
        max_enqueued_batches { value: 2 }
        num_batch_threads { value: 1 }
        allowed_batch_sizes: 2
        allowed_batch_sizes: 4
        pad_variable_length_inputs: true
        """
    )
    return path


@pytest.fixture(scope="module")
def batched(start_for_module: Start, store: Path, parameters: Path, tmp_path_factory: Any) -> Served:
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(
        f"""
        model_config_list {{
          config {{ name: "hpt" base_path: "{store}/half_plus_two" model_platform: "tensorflow" }}
          config {{ name: "many" base_path: "{store}/many" model_platform: "tensorflow" }}
        }}
        """
    )
    return start_for_module(
        f"--model_config_file={config}", "--enable_batching", f"--batching_parameters_file={parameters}"
    )


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that are made at the same time."""
    answers: list[Any] = [None] * len(calls)

    def work(number: int) -> None:
        answers[number] = calls[number]()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_each_request_of_a_batch_gets_its_own_rows(batched: Served) -> None:
    answers = at_once([lambda x=x: batched.predict({"instances": [x]}) for x in (1.0, 2.0, 3.0, 5.0)])

    assert answers == [(200, {"predictions": [x]}) for x in (2.5, 3.0, 3.5, 4.5)]


def test_a_task_that_is_too_large(batched: Served, refused: Any) -> None:
    text = "Task size 5 is larger than maximum input batch size 4"

    status, value = batched.predict({"instances": [1.0] * 5})
    assert (status, value["error"]) == (400, text)
    assert refused(batched.stub().Predict, predict_request(values=[1.0] * 5)) == ("INVALID_ARGUMENT", text)
    batched.close_channels()


def test_a_full_queue_is_told_at_once(batched: Served) -> None:
    body = {"signature_name": "slow", "instances": [100_000]}

    answers = at_once([lambda: batched.predict(body, "many")] * 12)

    # The signature has a fixed first dimension, so each request is a batch of its own: some run or wait, others do not.
    told = [value["error"] for status, value in answers if status == 503]
    assert told
    assert all(
        text.startswith("The batch scheduling queue to which this task was submitted is full; currently ")
        for text in told
    )
    assert {status for status, _ in answers} <= {200, 503}
    assert any(status == 200 for status, _ in answers)


def test_requests_of_different_lengths_are_not_padded_where_it_would_show(batched: Served) -> None:
    short, long = (
        {"signature_name": "float64", "inputs": [[1.0]]},
        {"signature_name": "float64", "inputs": [[7.0, 8.0]]},
    )

    answers = at_once([lambda body=body: batched.predict(body, "many") for body in (short, long)])

    assert answers[1] == (200, {"outputs": [[7.0, 8.0]]})
    assert answers[0] == (200, {"outputs": [[1.0]]})


def test_limits_of_a_version_in_its_own_folder(start: Start, own_store: Path) -> None:
    version = own_store / "half_plus_two" / "00000123"
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    served = start(
        "--model_name=hpt", f"--model_base_path={own_store}/half_plus_two", "--enable_batching=true",
        "--enable_per_model_batching_parameters",
    )  # fmt: skip

    assert served.predict({"instances": [1.0, 2.0]}) == (200, {"predictions": [2.5, 3.0]})
    assert served.predict({"instances": [1.0] * 3})[0] == 400
    assert served.stop() == 0
