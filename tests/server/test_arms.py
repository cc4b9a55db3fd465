"""Split traffic over HTTP: clients with a key stay with their version, answers tell the arm; workers do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.eventually import eventually

from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import RequestRecord, RequestTensors
from tfserve_nb.serving.traffic import choose_by_key

ROWS = {"instances": [[1.0, 2.0]]}
V2_ROWS = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
SPLIT = {1: 50.0, 2: 50.0}
KEYS = [f"user-{number}" for number in range(12)]


class Kept(Observer):
    """Keeps everything."""

    def __init__(self) -> None:
        self.requests: list[tuple[RequestRecord, RequestTensors]] = []

    def wants_tensors(self, model: str) -> bool:
        return model == "double"

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        if tensors is not None:
            self.requests.append((record, tensors))


@pytest.fixture
def split(serving: Any, make_server: Callable[..., Any]) -> Any:
    """A server whose model is split between two arms."""
    serving.traffic = dict(SPLIT)
    serving.arms = {1: "a", 2: "b"}
    return make_server()


def test_a_client_with_a_key_stays_with_its_version_over_both_protocols(split) -> None:
    for key in KEYS:
        version = choose_by_key(SPLIT, "salt", key)
        for _ in range(2):
            answer = split.predict(ROWS, headers={"X-TfServe-KEY": key})
            assert answer.json == {"predictions": [[2.0 + version, 4.0 + version]]}
            assert answer.headers["X-TFServe-Version"] == str(version)
            assert answer.headers["X-TFServe-Arm"] == {1: "a", 2: "b"}[version]
        v2 = split.predict(V2_ROWS, "/v2/models/double/infer", headers={"x-tfserve-key": key})
        assert (v2.json["model_version"], v2.headers["X-TFServe-Arm"]) == (str(version), {1: "a", 2: "b"}[version])


def test_records_tell_who_was_assigned_and_who_asked_for_a_version(split) -> None:
    split.predict(ROWS, headers={"x-tfserve-key": "ann"})
    split.predict(ROWS)
    split.predict(ROWS, "/v1/models/double/versions/1:predict", headers={"x-tfserve-key": "ann"})
    split.predict(ROWS, "/v1/models/double/labels/stable:predict")

    records = split.serving.wait_for_records(4)
    assert [(one.key, one.is_assigned) for one in records] == [("ann", True), ("", True), ("ann", False), ("", False)]
    assert records[0].version == choose_by_key(SPLIT, "salt", "ann")
    assert {one.request_id for one in records} == {""}


def test_failures_of_an_arm_name_it_too(split) -> None:
    answer = split.predict({"instances": [[1.0, 2.0, 3.0]]}, headers={"x-tfserve-key": "ann"})

    assert answer.status == 400
    assert answer.headers["X-TFServe-Arm"] in ("a", "b")
    (record,) = split.serving.wait_for_records(1)
    assert (record.code, record.key, record.is_assigned) == ("INVALID_ARGUMENT", "ann", True)


@pytest.mark.parametrize("name", ["order-4711", "x" * 128])
def test_the_clients_name_for_a_request_comes_back_and_is_recorded(split, name: str) -> None:
    answer = split.predict(ROWS, headers={"X-Request-Id": name})

    assert answer.headers["X-Request-Id"] == name
    assert split.serving.wait_for_records(1)[0].request_id == name


@pytest.mark.parametrize("name", ["x" * 129, "", "gr\xfcn", "tab\there"])
def test_names_that_could_do_harm_are_ignored(split, name: str) -> None:
    answer = split.predict(ROWS, headers={"X-Request-Id": name})

    assert answer.status == 200
    assert "X-Request-Id" not in answer.headers


def test_answers_carry_nothing_more_while_nothing_is_split_or_observed(server) -> None:
    answer = server.predict(ROWS, headers={"X-Request-Id": "mine", "x-tfserve-key": "ann"})

    assert answer.headers["X-TFServe-Version"] == "2"
    assert {"X-Request-Id", "X-TFServe-Arm"}.isdisjoint(answer.headers)
    (record,) = server.serving.wait_for_records(1)
    assert (record.key, record.request_id, record.is_assigned) == ("", "", False)


def test_requests_get_a_name_and_observers_their_tensors_while_one_wants_them(
    serving: Any, make_server: Callable[..., Any]
) -> None:
    kept = Kept()
    serving.observers.add(kept)
    server = make_server()
    made = server.predict(ROWS).headers["X-Request-Id"]
    given = server.predict(V2_ROWS, "/v2/models/double/infer", headers={"X-Request-Id": "mine"})
    bad = server.predict({"instances": [[-1000.0, 0.0]]})

    assert len(made) == 16
    assert given.headers["X-Request-Id"] == "mine"
    assert bad.status == 400
    eventually(lambda: len(kept.requests) == 3)
    (record, seen), (other, _), (failed, seen_bad) = kept.requests
    assert (record.request_id, record.entrypoint, record.version, record.code) == (made, "REST", 2, "OK")
    assert record.latency_s > 0
    np.testing.assert_array_equal(seen.inputs["x"], [[1.0, 2.0]])
    np.testing.assert_array_equal(seen.outputs["y"], [[4.0, 6.0]])
    assert other.request_id == "mine"
    assert (failed.code, seen_bad.outputs, seen_bad.message) == ("INVALID_ARGUMENT", None, "bad value")

    serving.observers.remove(kept)
    eventually(lambda: "X-Request-Id" not in server.predict(ROWS).headers)


def test_a_client_that_leaves_is_recorded_once_a_version_was_chosen(split) -> None:
    serving = split.serving
    serving.gate.clear()
    client = split.connect()
    body = b'{"instances": [[1.0, 2.0]]}'
    head = (
        b"POST /v1/models/double:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer right-token\r\n"
        b"x-tfserve-key: ann\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    client.sendall(head + body)
    eventually(lambda: len(serving.tickets) == 1)
    client.close()

    (record,) = serving.wait_for_records(1)
    assert (record.code, record.key, record.is_assigned) == ("CANCELLED", "ann", True)
    assert record.version == choose_by_key(SPLIT, "salt", "ann")
    serving.gate.set()
    eventually(lambda: serving.num_held == 0)


def test_asking_what_a_model_takes_goes_to_the_clients_version_too(split) -> None:
    for key in KEYS[:4]:
        answer = split.call("GET", "/v1/models/double/metadata", headers={"x-tfserve-key": key})
        assert answer.json["model_spec"]["version"] == str(choose_by_key(SPLIT, "salt", key))


def test_the_arm_is_that_of_the_version_that_answered_in_the_end(split) -> None:
    split.predict(ROWS)
    split.serving.insists_on = 1  # as a core that was switched before its workers know
    for key in KEYS:
        answer = split.predict(ROWS, headers={"x-tfserve-key": key})
        assert (answer.headers["X-TFServe-Version"], answer.headers["X-TFServe-Arm"]) == ("1", "a")
    records = split.serving.wait_for_records(1 + len(KEYS))[1:]
    assert {one.version for one in records} == {1}
