"""Replicas on Ray Serve under load: whatever happens to them, no answer is wrong and none is lost."""

from __future__ import annotations

import http.client
import os
import signal
import time
from dataclasses import replace

import pytest
from helpers.eventually import eventually
from helpers.ray_clients import Load, begin_to_predict, predict, rest, until

from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import ConfigRejected, ServingError, Unimplemented, VersionNotFound
from tfserve_nb.scaleout.ray.admin import with_application, with_user_config
from tfserve_nb.scaleout.ray.config import ACTOR_OPTIONS, AUTOSCALING_OPTIONS, DEPLOYMENT_OPTIONS
from tfserve_nb.scaleout.ray.deploy import RayServer
from tfserve_nb.scaleout.ray.state import RayModelStatus


def settled(server: RayServer, num_replicas: int) -> None:
    """Wait for exactly so many replicas, all of which answer."""

    def is_so() -> bool:
        state = server.state()
        return state.is_settled and len(state.replicas) == num_replicas == state.num_running

    until(is_so)


# ---------------------------------------------------------------- the handle


def test_the_handle_is_that_of_any_server(server: RayServer, deployed: Deployment) -> None:
    assert deployed.predict([[1.0], [2.0]]).tolist() == [[2.5], [3.0]]
    assert deployed.predict([[1.0]], version=2).tolist() == [[3.5]]
    status = deployed.status()
    assert isinstance(status, RayModelStatus)
    assert (status.default_version, status.on_disk, deployed.labels) == (1, (1, 2, 3), {"stable": 1})
    assert [replica.state for replica in status.ray.replicas] == ["RUNNING"]
    assert all(replica.running is not None for replica in status.ray.replicas)
    assert deployed.metrics().versions[1].num_requests > 0
    assert deployed.history()[0].action == "configure"
    with pytest.raises(Unimplemented, match="capture is not there for replicas on Ray"):
        deployed.capture()


def test_what_changes_something_is_sent_to_ray_and_not_to_a_replica(server: RayServer) -> None:
    status, answer = rest(server, "POST", "/tfserve/v1/models/hpt/promote", {"version": 2})

    assert status == 501
    assert "changes are sent to Ray" in answer["error"]


def test_a_version_that_is_not_there_is_refused_before_anything_is_sent(
    server: RayServer, deployed: Deployment
) -> None:
    before = server.api.details()["applications"]["tfserve_nb"]["last_deployed_time_s"]

    with pytest.raises(VersionNotFound, match="hpt has no version 9 in .* on the node .*; it has 1, 2, 3"):
        deployed.promote(9)

    assert server.api.details()["applications"]["tfserve_nb"]["last_deployed_time_s"] == before
    assert deployed.traffic == {1: 100.0}


# ---------------------------------------------------------------- under load


def test_promote_split_label_and_roll_back_lose_nothing(server: RayServer, deployed: Deployment, load: Load) -> None:
    took_s = []
    with load.from_clients(4):
        for change in (
            lambda: deployed.promote(2),
            lambda: deployed.set_label("canary", 2),
            lambda: deployed.promote(3),
            lambda: deployed.set_traffic({2: 50, 3: 50}),
            deployed.rollback,
            lambda: deployed.promote(1),
        ):
            began_s = time.perf_counter()
            change()
            took_s.append(time.perf_counter() - began_s)
    print(f"{load.num_answers} answers, slowest {load.slowest_s:.2f} s; changes took", *(f"{s:.1f} s" for s in took_s))

    assert load.problems == []
    assert set(load.versions) == {1, 2, 3}
    assert deployed.traffic == {1: 100.0}
    assert deployed.labels == {"stable": 1, "canary": 2}


def test_a_bad_configuration_changes_nothing_and_does_not_delay_the_next(
    server: RayServer, deployed: Deployment, load: Load
) -> None:
    """It comes from somebody who edits the file: handles look first."""
    good = server.api.details()
    model = {"name": "hpt", "base_path": server.plan.models[0].base_path}
    with load.from_clients(2):
        for bad, words in (
            ({"versions": [1, 7]}, "model hpt has no version 7 in "),
            ({"version_s": [1]}, "an entry of models has no 'version_s'; it has "),
        ):
            server.api.deploy(with_user_config(good, {"models": [{**model, **bad}], "revision": str(bad)}))
            until(lambda words=words: words in deployed.status().problem)
        began_s = time.perf_counter()
        server.api.deploy(with_application(good, lambda ours: ours))
        until(lambda: not deployed.status().problem)
        took_s = time.perf_counter() - began_s
    print(f"{load.num_answers} answers; the next good configuration took {took_s:.1f} s")

    assert load.problems == []
    assert set(load.versions) == {1}


def test_replicas_come_and_go_with_the_load(server: RayServer, deployed: Deployment, load: Load) -> None:
    settled(server, 1)
    with load.from_clients(1):  # goes on while replicas go
        busy = Load(load.port)
        with busy.from_clients(24):
            until(lambda: deployed.status().ray.num_running == 3)  # type: ignore[attr-defined]  # a RayModelStatus
        settled(server, 1)
    print(f"{busy.num_answers + load.num_answers} answers, slowest {max(busy.slowest_s, load.slowest_s):.2f} s")

    assert busy.problems + load.problems == []
    scaling = deployed.status().ray.scaling  # type: ignore[attr-defined]  # a RayModelStatus
    assert max(event.after for event in scaling) == 3


def test_a_rolling_update_of_the_only_replica_loses_nothing(
    server: RayServer, deployed: Deployment, load: Load
) -> None:
    settled(server, 1)
    (before,) = server.state().replicas
    with load.from_clients(2):
        server.api.deploy(with_application(server.api.details(), lambda ours: {
            **ours, "args": {"flags": [*ours["args"]["flags"], "--rest_api_timeout_in_ms=29000"]}
        }))  # fmt: skip
        until(lambda: before.name not in {one.name for one in server.state().replicas})
        settled(server, 1)
    print(f"{load.num_answers} answers, slowest {load.slowest_s:.2f} s")

    assert load.problems == []
    assert deployed.predict([[1.0]]).tolist() == [[2.5]]


def test_a_replica_that_is_killed_loses_nothing(server: RayServer, deployed: Deployment, load: Load) -> None:
    deployed.scale(2)
    victim = server.state().replicas[0]
    assert victim.pid is not None
    held = [http.client.HTTPConnection("127.0.0.1", load.port, timeout=60) for _ in range(4)]
    for connection in held:
        predict(connection, [1.0])  # only a connection that was used before is closed without a word
    with load.from_clients(4):
        eventually(lambda: load.num_answers > 50)
        finish = [begin_to_predict(connection, [1.0]) for connection in held]
        seen = load.num_answers
        eventually(lambda: load.num_answers > seen + 20)  # HAProxy has had the time to pass these heads on
        os.kill(victim.pid, signal.SIGKILL)
        late = [one() for one in finish]
        until(lambda: victim.name not in {one.name for one in server.state().replicas})
        settled(server, 2)
        seen = load.num_answers
        eventually(lambda: load.num_answers > seen + 50)
    for connection in held:
        connection.close()
    print(f"{load.num_answers} answers, slowest {load.slowest_s:.2f} s")

    assert load.problems == []
    assert late == [(1, {"predictions": [2.5]})] * 4


# ---------------------------------------------------------------- what Ray itself says


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own use of Pydantic
def test_the_names_of_options_are_rays() -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema

    deprecated = {"metrics_interval_s", "smoothing_factor", "upscale_smoothing_factor", "downscale_smoothing_factor"}

    assert set(DeploymentSchema.model_fields) == DEPLOYMENT_OPTIONS
    assert set(AutoscalingConfig.model_fields) - deprecated == AUTOSCALING_OPTIONS
    assert set(RayActorOptionsSchema.model_fields) == ACTOR_OPTIONS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own use of Pydantic
def test_what_is_sent_is_what_ray_reads_and_what_it_refuses_is_told(server: RayServer) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = replace(server.plan, options={}).as_config()

    assert ServeDeploySchema.model_validate(config).applications[0].deployments[0].max_surge_percent == 100
    with pytest.raises(ConfigRejected, match="Ray refused the configuration"):
        server.api.deploy({"applications": [{"name": "other"}]})
    with pytest.raises(ServingError):
        server.api.deploy({"applications": 3})
