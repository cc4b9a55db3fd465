"""Models and versions over the life of a server: discovery, policies, labels, reloads, and nothing lost meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from helpers.black_box import Served, Start
from helpers.client_requests import predict_request, reload_request
from helpers.eventually import eventually
from helpers.saved_models import write_half_plus_two


def states(served: Served, model: str) -> dict[int, str]:
    """Version -> state."""
    status, value, _ = served.rest("GET", f"/v1/models/{model}")
    assert status == 200, value
    return {int(one["version"]): one["state"] for one in value["model_version_status"]}


def wait_for_states(served: Served, model: str, wanted: dict[int, str]) -> None:
    found: dict[int, str] = {}

    def are_as_wanted() -> bool:
        found.clear()
        found.update(states(served, model))
        return found == wanted

    try:
        eventually(are_as_wanted)
    except AssertionError:
        assert found == wanted


class Load:
    """Sends requests all the time and remembers what was wrong with any of the answers."""

    def __init__(self, ask: Callable[[], Any], is_right: Callable[[Any], bool], num_threads: int = 3) -> None:
        self.problems: list[object] = []
        self.num_answers = 0
        self._ask = ask
        self._is_right = is_right
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(num_threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._ask()
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is told at the end
                self.problems.append(error)
                return
            self.num_answers += 1
            if not self._is_right(answer):
                self.problems.append(answer)


@pytest.fixture(scope="module")
def empty(start_for_module: Start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that starts with no model, as one that is configured by RPC."""
    config = tmp_path_factory.mktemp("empty") / "models.config"
    config.write_text("model_config_list {}")
    return start_for_module(
        f"--model_config_file={config}",
        "--max_num_load_retries=0",
        "--file_system_poll_wait_seconds=1",
        "--reload_base_paths=/",
    )


@pytest.fixture
def server(empty: Served) -> Iterator[Served]:
    """The same; serves nothing again after the test."""
    yield empty
    empty.stub("model").HandleReloadConfigRequest(reload_request(), timeout=30)
    empty.close_channels()


def test_versions_on_disk_come_and_go_under_load(server: Served, own_store: Path) -> None:
    base = own_store / "two_versions"
    second = base / "2"
    second.rename(own_store / "kept")
    server.stub("model").HandleReloadConfigRequest(reload_request({"name": "m", "path": base}), timeout=30)
    assert states(server, "m") == {1: "AVAILABLE"}

    right = [(200, {"predictions": [2.5]}), (200, {"predictions": [3.5]})]
    with Load(lambda: server.predict({"instances": [1.0]}, "m"), right.__contains__) as load:
        (own_store / "kept").rename(second)
        wait_for_states(server, "m", {2: "AVAILABLE", 1: "END"})
        assert server.predict({"instances": [1.0]}, "m") == right[1]
        second.rename(own_store / "kept")
        wait_for_states(server, "m", {2: "END", 1: "AVAILABLE"})
    assert load.problems == []
    assert load.num_answers > 20


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [(None, {2}), (1, {2}), (2, {1, 2}), ("all", {1, 2}), ([1], {1}), ([1, 9], {1})],
)
def test_policies(server: Served, store: Path, policy: Any, wanted: set[int]) -> None:
    config = {"name": "m", "path": store / "two_versions", "policy": policy}

    server.stub("model").HandleReloadConfigRequest(reload_request(config), timeout=30)

    wait_for_states(server, "m", {**dict.fromkeys({1, 2} & states(server, "m").keys() - wanted, "END"),
                                  **dict.fromkeys(wanted, "AVAILABLE")})  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_versions_that_name_their_input_differently_switch_without_a_refusal(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """Keras numbers the tensors of a session, so each exported model may have another name for its only input."""
    for version in (1, 2):
        write_half_plus_two(tmp_path / "m" / str(version), offset=float(version), name=f"keras_tensor_{version}")
    served = start("--model_name=m", f"--model_base_path={tmp_path}/m", f"--workers={workers}")
    config: dict[str, Any] = {"name": "m", "path": tmp_path / "m", "policy": "all"}
    models = served.stub("model")
    models.HandleReloadConfigRequest(reload_request(config), timeout=60)
    wait_for_states(served, "m", {1: "AVAILABLE", 2: "AVAILABLE"})
    models.HandleReloadConfigRequest(reload_request(config | {"labels": {"steady": 1}}), timeout=60)
    right = [(200, {"predictions": [1.5]}), (200, {"predictions": [2.5]})]

    with Load(lambda: served.predict({"instances": [1.0]}, "m", "/labels/steady"), right.__contains__) as by_label:
        for number in range(60):
            labels = {"steady": 1 + number % 2}
            models.HandleReloadConfigRequest(reload_request(config | {"labels": labels}), timeout=60)
    with Load(lambda: served.predict({"instances": [1.0]}, "m"), right.__contains__) as load:
        for versions in ([1], [2], [1], [2]):
            models.HandleReloadConfigRequest(reload_request(config | {"policy": versions}), timeout=60)

    assert by_label.problems == []
    assert load.problems == []


def test_reloads_replace_everything_and_lose_nothing(server: Served, store: Path) -> None:
    stub = server.stub("model")
    one = {"name": "one", "path": store / "half_plus_two"}
    two = {"name": "two", "path": store / "two_versions"}
    stub.HandleReloadConfigRequest(reload_request(one), timeout=30)
    prediction = server.stub()

    def ask() -> list[float]:
        return list(prediction.Predict(predict_request("one"), timeout=30).outputs["y"].float_val)

    with Load(ask, [2.5, 3.0, 4.5].__eq__) as load:
        for _ in range(3):
            stub.HandleReloadConfigRequest(reload_request(one, two), timeout=30)
            assert server.predict({"instances": [1.0]}, "two") == (200, {"predictions": [3.5]})
            stub.HandleReloadConfigRequest(reload_request(one), timeout=30)
            status, value = server.predict({"instances": [1.0]}, "two")
            assert (status, value["error"]) == (404, "Servable not found for request: Latest(two)")
    assert load.problems == []
    assert load.num_answers > 20
    wait_for_states(server, "two", {2: "END"})


def test_labels_follow_their_rules(server: Served, store: Path, refused: Any) -> None:
    stub = server.stub("model")
    model = {"name": "two", "path": store / "two_versions", "policy": "all"}
    early = reload_request({**model, "labels": {"stable": 1}})
    refusal = (
        "FAILED_PRECONDITION",
        "Request to assign label to version 1 of model two, which is not currently available for inference",
    )
    assert refused(stub.HandleReloadConfigRequest, early) == refusal

    stub.HandleReloadConfigRequest(reload_request(model), timeout=30)
    stub.HandleReloadConfigRequest(early, timeout=30)
    assert server.predict({"instances": [1.0]}, "two", "/labels/stable") == (200, {"predictions": [2.5]})
    stub.HandleReloadConfigRequest(reload_request({**model, "labels": {"stable": 2, "old": 1}}), timeout=30)
    assert server.predict({"instances": [1.0]}, "two", "/labels/stable") == (200, {"predictions": [3.5]})
    code, text = refused(stub.HandleReloadConfigRequest, reload_request({**model, "labels": {"stable": 7}}))
    assert (code, text) == (refusal[0], refusal[1].replace("version 1", "version 7"))
    assert server.predict({"instances": [1.0]}, "two", "/labels/old") == (200, {"predictions": [2.5]})
    # The label stays, its version goes.
    stub.HandleReloadConfigRequest(
        reload_request({**model, "policy": [2], "labels": {"stable": 2, "old": 1}}), timeout=30
    )
    wait_for_states(server, "two", {2: "AVAILABLE", 1: "END"})
    status, value = server.predict({"instances": [1.0]}, "two", "/labels/old")
    assert (status, value["error"]) == (404, "Servable not found for request: Specific(two, 1)")


@pytest.mark.parametrize(
    ("configs", "text"),
    [
        (
            [{"name": "m", "path": "/a"}, {"name": "m", "path": "/b"}],
            "Illegal to list model m multiple times in config",
        ),
        ([{"name": "m", "path": "a"}], "Expected model m to have an absolute path or URI; got base_path()=a"),
        ([{"name": "m", "path": "/a", "platform": "pytorch"}], "Model m requests unsupported platform pytorch"),
        (
            [{"name": "m", "path": "/a", "platform": ""}],
            (
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform, model name is m"
            ),
        ),
    ],
)
def test_configurations_that_cannot_be_meant(server: Served, refused: Any, configs: Any, text: str) -> None:
    code, found = refused(server.stub("model").HandleReloadConfigRequest, reload_request(*configs))

    assert code == "INVALID_ARGUMENT"
    assert found.startswith(text)


def test_a_bad_model_is_reported_and_the_others_go_on(server: Served, own_store: Path, refused: Any) -> None:
    stub = server.stub("model")
    good = {"name": "good", "path": own_store / "two_versions"}
    bad = own_store / "bad"
    (bad / "1").mkdir(parents=True)
    (bad / "1" / "saved_model.pb").write_bytes(b"broken")

    code, text = refused(stub.HandleReloadConfigRequest, reload_request(good, {"name": "bad", "path": bad}))
    assert code == "UNKNOWN"
    assert text.startswith("1 model(s) did not become available: {{name: bad version: 1} due to error: ")
    assert server.predict({"instances": [1.0]}, "good") == (200, {"predictions": [3.5]})
    _, value, _ = server.rest("GET", "/v1/models/bad")
    ended = value["model_version_status"][0]
    assert ended["state"] == "END"
    assert ended["status"]["error_code"] != "OK"

    # A folder that is gone stops neither what is loaded nor the updates of other models.
    shutil.rmtree(bad)
    good_path = own_store / "two_versions"
    shutil.copytree(good_path / "1", good_path / "3")
    wait_for_states(server, "good", {3: "AVAILABLE", 2: "END"})
    assert "Could not find base path" in server.text


def test_a_version_that_fails_leaves_the_old_one_serving(server: Served, own_store: Path) -> None:
    base = own_store / "two_versions"
    server.stub("model").HandleReloadConfigRequest(reload_request({"name": "fails", "path": base}), timeout=30)

    (base / "5").mkdir()
    wait_for_states(server, "fails", {5: "END", 2: "AVAILABLE"})

    assert server.predict({"instances": [1.0]}, "fails") == (200, {"predictions": [3.5]})
    shutil.rmtree(base / "5")
    shutil.copytree(base / "1", base / "6")
    wait_for_states(server, "fails", {6: "AVAILABLE", 5: "END", 2: "END"})


def test_a_configuration_file_is_followed(start: Start, store: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    text = 'config {{ name: "{}" base_path: "{}" model_platform: "tensorflow" }}'
    one, two = text.format("one", store / "half_plus_two"), text.format("two", store / "two_versions")
    config.write_text(f"model_config_list {{ {one} }}")
    server = start(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1")

    config.write_text(f"model_config_list {{ {one}")
    server.wait_for("PollFilesystemAndReloadConfig failed: Invalid protobuf file")
    assert server.predict({"instances": [1.0]}, "one") == (200, {"predictions": [2.5]})
    config.write_text("")  # as while an editor writes it
    server.wait_for("Taking no action for empty config.")
    assert server.predict({"instances": [1.0]}, "one") == (200, {"predictions": [2.5]})
    by_uri = one.replace(str(store), f"file://{store}")
    config.write_text(f"model_config_list {{ {by_uri} {two} }}")
    server.wait_for("Successfully loaded servable version {name: two version: 2}")

    assert server.predict({"instances": [1.0]}, "two") == (200, {"predictions": [3.5]})
    config.write_text(f"model_config_list {{ {one} {two[:-1]} model_version_policy {{ specific {{}} }} }} }}")
    wait_for_states(server, "two", {2: "END"})
    assert server.stop() == 0


def test_a_load_is_tried_again(start: Start, store: Path, tmp_path: Path) -> None:
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    server = start(f"--model_base_path={base}", "--model_name=m", "--load_retry_interval_micros=300000", wait=False)
    server.wait_for("Loading servable: {name: m version: 1} failed")
    for file in (store / "half_plus_two" / "00000123").iterdir():
        copy = shutil.copytree if file.is_dir() else shutil.copy
        if file.name != "saved_model.pb":
            copy(file, base / "1" / file.name)
    shutil.copy(store / "half_plus_two" / "00000123" / "saved_model.pb", base / "1" / "saved_model.pb")

    server.wait_for("Entering the event loop")

    assert server.predict({"instances": [1.0]}, "m") == (200, {"predictions": [2.5]})
    assert server.stop() == 0


def test_an_engine_runs_what_it_can_and_is_converted_once(start: Start, own_store: Path) -> None:
    flags = ("--model_name=hpt", f"--model_base_path={own_store}/half_plus_two", "--engine=onnx")

    first = start(*flags)

    assert first.predict({"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert "half_plus_two/00000123: converting and measuring for onnx" in first.text
    assert " × TensorFlow's speed at 1 row" in first.text
    first.stop()

    again = start(*flags)
    assert again.predict({"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert "converting" not in again.text
    assert " × TensorFlow's speed at 1 row" in again.text
