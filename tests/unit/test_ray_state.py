"""What Ray's answers mean, how numbers of replicas are added up, and what is said when Ray is not there."""

from __future__ import annotations

import importlib.util
import socket
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.api.connect import remote_server
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.dashboards.pages.replicas import replica_tables
from tfserve_nb.errors import InvalidOption, ModelNotFound, NotAvailable, ServerFailed
from tfserve_nb.scaleout.ray import cluster, serve_api
from tfserve_nb.scaleout.ray.admin import RayModels, with_application, with_user_config
from tfserve_nb.scaleout.ray.cluster import TRIES, LocalCluster
from tfserve_nb.scaleout.ray.combined_metrics import combined_metrics
from tfserve_nb.scaleout.ray.serve_api import ServeApi, check_ray_version
from tfserve_nb.scaleout.ray.state import RayModelStatus, ScalingEvent, state_of
from tfserve_nb.serving.telemetry.metrics import Metrics
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.types import ModelStatus, ProgressEvent

DETAILS: dict[str, Any] = {
    "proxy_location": "EveryNode",
    "http_options": {"host": "127.0.0.1", "port": 8501},
    "applications": {
        "tfserve_nb": {
            "status": "RUNNING",
            "message": "",
            "deployed_app_config": {
                "name": "tfserve_nb",
                "deployments": [{"name": "Models", "user_config": {"models": []}}],
            },
            "deployments": {
                "Models": {
                    "target_num_replicas": 2,
                    "replicas": [
                        {"replica_id": "a", "state": "RUNNING", "pid": 7, "node_ip": "10.0.0.1", "start_time_s": 5.0},
                        {"replica_id": "b", "state": "STARTING", "start_time_s": 6.0},
                    ],
                }
            },
        },
        "other": {"status": "RUNNING", "deployed_app_config": {"name": "other", "import_path": "a:b"}},
        "by hand": {"status": "RUNNING"},
    },
}


def test_replicas_are_read_from_rays_answer() -> None:
    state = state_of(DETAILS)

    assert (state.status, state.wanted, state.num_running, state.is_settled) == ("RUNNING", 2, 1, False)
    assert [(one.name, one.state, one.pid, one.node) for one in state.replicas] == [
        ("a", "RUNNING", 7, "10.0.0.1"), ("b", "STARTING", None, ""),
    ]  # fmt: skip
    with pytest.raises(ModelNotFound, match="nothing of tfserve_nb is deployed on this cluster"):
        state_of({"applications": {}})


def test_a_problem_of_a_replica_or_of_ray_is_told_in_a_line() -> None:
    told = state_of(DETAILS).with_reports([{"replica": "a", "running": 3, "problem": "no version 7"}])
    failed = {
        "applications": {"tfserve_nb": {"status": "DEPLOY_FAILED", "message": "Traceback\n  ...\nValueError: no"}}
    }

    assert (told.problem, told.ongoing) == ("no version 7", 3)
    assert state_of(failed).problem == "Ray says DEPLOY_FAILED: ValueError: no"
    assert state_of(DETAILS).problem == ""


def test_others_applications_stay_in_the_configuration() -> None:
    config = with_user_config(DETAILS, {"models": ["new"]})
    without = with_application(DETAILS, lambda _: None)

    assert [one["name"] for one in config["applications"]] == ["other", "tfserve_nb"]
    assert config["applications"][1]["deployments"] == [{"name": "Models", "user_config": {"models": ["new"]}}]
    assert config["http_options"] == DETAILS["http_options"]
    assert [one["name"] for one in without["applications"]] == ["other"]


class ScalingApi(ServeApi):
    """Ray that follows a new number of replicas after it was asked for its state once."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.sent: list[dict[str, Any]] = []
        self.replicas = [{"replica_id": "a", "state": "RUNNING"}]

    def details(self) -> dict[str, Any]:
        found = details_with(self.replicas)
        if self.sent:
            least = self.sent[-1]["autoscaling_config"]["min_replicas"]
            self.replicas = [{"replica_id": str(number), "state": "RUNNING"} for number in range(least)]
        return found

    def deploy(self, config: Mapping[str, Any]) -> None:
        self.sent.append(config["applications"][0]["deployments"][0])


def details_with(replicas: list[dict[str, str]]) -> dict[str, Any]:
    """Ray's answer with these replicas, all of them wanted."""
    scaling = {"min_replicas": 1, "max_replicas": 3, "upscale_delay_s": 3}
    deployment = {"name": "Models", "user_config": {"models": []}, "autoscaling_config": scaling}
    ours = {
        "status": "RUNNING",
        "deployed_app_config": {"name": "tfserve_nb", "deployments": [deployment]},
        "deployments": {"Models": {"target_num_replicas": len(replicas), "replicas": replicas}},
    }
    return {"applications": {"tfserve_nb": ours}}


class AnsweringModels(RayModels):
    """Replicas that all answer."""

    def each_replica(self, path: str, number: int) -> list[Any]:
        return [{}] * number


def test_the_number_of_replicas_is_changed_and_the_change_is_seen() -> None:
    api = ScalingApi()
    models = AnsweringModels(api, "http://127.0.0.1:9", None)

    models.scale(2, 2)
    models.scale(1, 3)

    (first, second) = api.sent
    assert first["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 2, "upscale_delay_s": 3}
    assert (second["autoscaling_config"]["max_replicas"], second["user_config"]) == (3, {"models": []})
    assert [(event.before, event.after) for event in models.state().scaling] == [(1, 2), (2, 1)]


@pytest.mark.parametrize(("numbers", "words"), [((0, 1), "min_replicas=0"), ((2, 1), "max_replicas=1")])
def test_numbers_of_replicas_out_of_order_are_refused(numbers: tuple[int, int], words: str) -> None:
    api = ScalingApi()

    with pytest.raises(InvalidOption, match=words):
        AnsweringModels(api, "http://127.0.0.1:9", None).scale(*numbers)
    assert api.sent == []


def test_what_is_no_replica_cannot_be_scaled() -> None:
    with pytest.raises(InvalidOption, match="m is not served by replicas on Ray") as error:
        Deployment("m", remote_server("http://127.0.0.1:9", None)).scale(2)
    assert "to_ray" in error.value.hint


def snapshot(clock: list[float], latencies_s: list[float], version: int = 1) -> Any:
    metrics = Metrics(lambda: clock[0])
    for latency_s in latencies_s:
        now_s = clock[0]
        metrics.record(RequestRecord("m", version, "s", "OK", 2, now_s - latency_s, now_s, now_s, now_s, now_s))
    clock[0] += 2.0
    found = metrics.snapshot("m", span_s=10, step_s=2)
    clock[0] -= 2.0
    return found


def test_numbers_of_replicas_are_added_up() -> None:
    clock = [100.0]
    fast, slow = snapshot(clock, [0.001] * 30), snapshot(clock, [0.1] * 10)
    other = snapshot(clock, [0.001], version=2)

    found = combined_metrics([fast, slow, other])

    one = found.versions[1]
    assert (found.total, sorted(found.versions), one.num_requests, one.num_recent) == (41, [1, 2], 40, 40)
    assert one.p50_ms == fast.versions[1].p50_ms, "30 of 40 are fast"
    assert one.series.rps.sum() == pytest.approx(fast.versions[1].series.rps.sum() + slow.versions[1].series.rps.sum())
    assert np.nanmax(one.series.phases_ms["decode"]) == np.nanmax(slow.versions[1].series.phases_ms["decode"])
    assert combined_metrics([fast]) is fast


# ---------------------------------------------------------------- what is said when something is not there


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.60.0", ""),
        ("2.40.0", "Ray 2.40.0 was not tested"),
        ("3.0.0.dev0", "Ray 3.0.0.dev0 was not"),
        ("", "of unknown version"),
    ],
)
def test_other_versions_of_ray_are_told(version: str, words: str) -> None:
    assert words in check_ray_version(version)
    assert bool(words) == bool(check_ray_version(version))


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://head:10001", ""])
def test_an_address_that_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(InvalidOption, match="must be the URL of Ray's dashboard"):
        ServeApi(address)


def test_a_cluster_that_does_not_answer_is_told() -> None:
    with pytest.raises(NotAvailable, match="Ray's dashboard at http://127.0.0.1:9 does not answer: "):
        ServeApi("http://127.0.0.1:9").details()


@contextmanager
def answering(*responses: bytes) -> Iterator[str]:
    """The URL of a server that gives each response to one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for response in responses:
                with listener.accept()[0] as client:
                    client.recv(65536)
                    client.sendall(response)

        other = threading.Thread(target=answer)
        other.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        other.join()


FAILURE = b"HTTP/1.1 500 Internal Server Error\r\n\r\nThe actor never ran"


@pytest.mark.parametrize(
    "response", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b"SSH-2.0\r\n"]
)
def test_a_server_that_is_no_dashboard_is_told(response: bytes) -> None:
    told = "is not Ray's dashboard, or has no Ray Serve: it answered"
    with answering(response) as url, pytest.raises(NotAvailable, match=told):
        ServeApi(url).details()


def test_what_ray_fails_to_do_is_asked_again_and_told_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_api, "PAUSES_S", (0.0, 0.0))

    with answering(FAILURE, FAILURE, b"HTTP/1.1 200 OK\r\n\r\n{}") as url:
        assert ServeApi(url).details() == {}
    told = "answered 500: The actor never ran"
    with answering(FAILURE, FAILURE, FAILURE) as url, pytest.raises(NotAvailable, match=told):
        ServeApi(url).details()


def test_sockets_of_ray_need_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(ServerFailed, match=f"{tmp_path}, is too far down for sockets of Ray"):
        LocalCluster().start()

    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))

    with pytest.raises(NotAvailable, match="Ray is not installed") as error:
        LocalCluster()
    assert error.value.hint == "pip install 'tfserve_nb[ray]'"


def test_a_cluster_that_does_not_start_says_why_and_how_long_was_waited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\necho 'ConnectionError: the raylet was not there in 15 s'\necho 'see the log'\nexit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(cluster, "sys", type("fake", (), {"executable": str(program)}))
    events: list[ProgressEvent] = []

    with pytest.raises(
        ServerFailed, match=rf"Ray did not start in {TRIES} tries and \d+ s: ConnectionError: the raylet"
    ) as error:
        LocalCluster().start(events.append)

    assert "the machine may be too busy" in error.value.hint
    assert f"try 2 of {TRIES}: ConnectionError: the raylet was not there in 15 s" in [event.detail for event in events]
    assert sys.executable != str(program)


def test_the_dashboard_shows_replicas_and_scaling() -> None:
    state = state_of(DETAILS).with_reports([{"replica": "a", "running": 3, "problem": ""}])
    state = replace(state, scaling=(ScalingEvent(1.0, 1, 2, "Upscaling"),))

    shown = replica_tables(RayModelStatus("m", (), 1, {1: 100.0}, {}, ray=state))

    assert "Replicas on Ray: 1 of 2 answer, 3 requests on their way" in shown
    assert "1 → 2" in shown
    assert "10.0.0.1" in shown
    assert replica_tables(ModelStatus("m", (), 1, {}, {})) == ""
