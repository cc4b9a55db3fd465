"""A split with arms, keys and shadow copies on a real server: every protocol agrees who gets which version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.black_box import Served, Start
from helpers.client_requests import example_request, predict_request
from helpers.eventually import eventually

import tfserve_nb
from tfserve_nb.server.admin.client import RemoteModels
from tfserve_nb.serving.traffic import choose_by_key

TOKEN = "secret"
SPLIT = {1: 50.0, 2: 50.0}
ARMS = {1: "a", 2: "b"}
KEYS = [*[f"user-{number}" for number in range(8)], "Zoë"]
METRICS = "/monitoring/prometheus/metrics"
X = np.float32([1.0, 2.0, 5.0])


@pytest.fixture(scope="module", params=[0, 1], ids=["one-process", "worker"])
def server(request: pytest.FixtureRequest, start_for_module: Start, store: Path, tmp_path_factory: Any) -> Served:
    folder = tmp_path_factory.mktemp("split")
    (folder / "token").write_text(TOKEN)
    (folder / "monitoring").write_text("prometheus_config { enable: true }")
    (folder / "models").write_text(
        f"""model_config_list {{
          config {{ name: "two" base_path: "{store}/two_versions" model_platform: "tensorflow"
                    model_version_policy {{ all {{}} }} }}
        }}"""
    )
    return start_for_module(
        f"--model_config_file={folder}/models",
        f"--auth_token_file={folder}/token",
        f"--monitoring_config_file={folder}/monitoring",
        f"--workers={request.param}",
    )


@pytest.fixture
def core(server: Served) -> Iterator[RemoteModels]:
    """What administers the server; it is as before after the test."""
    remote = RemoteModels(f"http://127.0.0.1:{server.rest_port}", TOKEN)
    yield remote
    remote.promote("two", 2)
    remote.connection.close()
    server.close_channels()


def rest(server: Served, body: object, headers: dict[str, str], path: str = "/v1/models/two:predict") -> Any:
    return server.rest("POST", path, body, {"Authorization": f"Bearer {TOKEN}", **headers})


def test_rest_v2_grpc_and_the_handle_agree_on_each_clients_version(server: Served, core: RemoteModels) -> None:
    core.set_split("two", SPLIT, salt="pepper", key_header="X-User", arms=ARMS)
    assert core.model_status("two").key_header == "x-user"
    eventually(lambda: "X-TFServe-Arm" in rest(server, {"instances": [1.0]}, {})[2])
    handle = tfserve_nb.connect(f"http://127.0.0.1:{server.rest_port}", TOKEN, name="two")
    v2 = {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": X.tolist()}]}

    for key in KEYS:
        version = choose_by_key(SPLIT, "pepper", key)
        expected = (X / 2 + {1: 2.0, 2: 3.0}[version]).tolist()
        sent = {
            "x-UsEr": key.encode().decode("latin-1"),
            "X-Request-Id": f"of {key}".encode("ascii", "ignore").decode(),
        }
        status, value, headers = rest(server, {"instances": X.tolist()}, sent)
        assert (status, value) == (200, {"predictions": expected})
        assert (headers["X-TFServe-Version"], headers["X-TFServe-Arm"]) == (str(version), ARMS[version])
        assert headers["X-Request-Id"] == sent["X-Request-Id"]
        _, value, headers = rest(server, v2, sent, "/v2/models/two/infer")
        assert (value["model_version"], headers["X-TFServe-Arm"]) == (str(version), ARMS[version])
        np.testing.assert_array_equal(handle.predict(X, key=key), expected)


@pytest.mark.parametrize("method", ["Predict", "Regress"])
def test_grpc_tells_version_and_arm_in_its_metadata(server: Served, core: RemoteModels, method: str) -> None:
    core.set_split("two", SPLIT, salt="pepper", key_header="X-User", arms=ARMS)
    eventually(lambda: "X-TFServe-Arm" in rest(server, {"instances": [1.0]}, {})[2])
    request = (
        predict_request("two")
        if method == "Predict"
        else example_request("regress", "regress_x_to_y", 1.0, model="two")
    )
    for key in KEYS[:6]:
        version = choose_by_key(SPLIT, "pepper", key)
        metadata = (("authorization", f"Bearer {TOKEN}"), ("x-user", key), ("x-request-id", f"of {key}"))
        answer, call = getattr(server.stub(), method).with_call(request, timeout=30, metadata=metadata)
        assert answer.model_spec.version.value == version
        told = {name: value for name, value in call.initial_metadata() if name.startswith("x-")}
        assert told == {
            "x-tfserve-version": str(version), "x-tfserve-arm": ARMS[version], "x-request-id": f"of {key}"
        }  # fmt: skip


def test_nothing_is_told_without_a_split(server: Served, core: RemoteModels) -> None:
    core.promote("two", 2)
    eventually(lambda: "X-TFServe-Arm" not in rest(server, {"instances": [1.0]}, {})[2])
    _, _, headers = rest(server, {"instances": [1.0]}, {"X-Request-Id": "mine", "x-tfserve-key": "ann"})
    assert "X-Request-Id" not in headers

    metadata = (("authorization", f"Bearer {TOKEN}"), ("x-request-id", "mine"))
    _, call = server.stub().Predict.with_call(predict_request("two"), timeout=30, metadata=metadata)
    assert not [name for name, _ in call.initial_metadata() if name.startswith("x-")]


def test_shadow_copies_are_counted_apart_from_live_requests(server: Served, core: RemoteModels) -> None:
    def counted() -> dict[str, float]:
        _, text, _ = server.rest("GET", METRICS, headers={"Authorization": f"Bearer {TOKEN}"})
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    core.promote("two", 2)
    core.set_shadow("two", 1, percent=100)
    assert core.model_status("two").shadow == (1, 100.0)
    before = core.model_metrics("two", 120, 2)
    for number in range(10):
        status, value, _ = rest(server, {"instances": [float(number)]}, {})
        assert (status, value) == (200, {"predictions": [number / 2 + 3]})

    run = 'tfserve_shadow_copies_total{model="two",outcome="run",version="1"}'
    eventually(lambda: counted().get(run, 0) == 10)
    eventually(lambda: core.model_metrics("two", 120, 2).versions[2].num_requests >= num_of(before, 2) + 10)
    after = core.model_metrics("two", 120, 2)
    assert num_of(after, 1) < num_of(before, 1) + 10, "a worker may still have told of earlier requests, not of ten"
    if 1 in before.versions:
        assert after.versions[1].batches.num_batches == before.versions[1].batches.num_batches
    core.set_shadow("two", None)
    assert core.model_status("two").shadow is None
    assert [event.action for event in core.history("two", 2)] == ["shadow", "shadow"]


def num_of(metrics: Any, version: int) -> int:
    """Requests that a version answered."""
    return metrics.versions[version].num_requests if version in metrics.versions else 0
