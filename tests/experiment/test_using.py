"""Experiments as people use them: what is refused before anything begins, what is left behind, what handles tell."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.faulty_servable import FaultyLoader, signature

from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.api.ab_test import plan_of
from tfserve_nb.api.deploy import place
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidOption, ServingError
from tfserve_nb.experiment.engine.experiments import Experiments
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.experiment.state import Estimate, ExperimentState, Moment
from tfserve_nb.export.saved_model import ExportedVersion
from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.server.admin.operations import MAX_DISAGREEMENT_BYTES, fitting
from tfserve_nb.server.handle import ServerHandle
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.types import no_progress

ROW = np.ones((1, 2), np.float32)


def source_of(base: Path, version: int) -> VersionSource:
    path = base / "net" / str(version)
    path.mkdir(parents=True)
    return VersionSource(path, BatchingOptions())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerHandle]:
    core = ServingCore(FaultyLoader(signatures={3: signature(name="z")}))
    core.start()
    for version in (1, 2):
        core.deploy("net", version, source_of(tmp_path, version), tmp_path, Placement(stage=version == 2))
    experiments = Experiments(core, look_s=0.05)
    yield ServerHandle("standalone", core, experiments)
    experiments.stop()
    core.stop()


@pytest.mark.parametrize("given", [{"rate": -5}, {"seconds": -1}, {}], ids=["rate", "seconds", "no server answers"])
def test_an_experiment_that_cannot_be_driven_does_not_begin(server: ServerHandle, given: dict[str, Any]) -> None:
    unreachable = replace(server, url="http://127.0.0.1:9")

    with pytest.raises(ServingError):
        Deployment("net", unreachable).ab_test(1, 2, values=ROW, **given)

    assert server.experiments.state("net") is None
    assert server.models.model_status("net").traffic == {1: 100.0}


def test_a_handle_of_an_experiment_that_another_one_followed_is_over(server: ServerHandle) -> None:
    deployment = Deployment("net", server)
    first = deployment.ab_test(1, 2)
    assert not first.is_over

    deployment.end_experiment("stop")
    second = deployment.ab_test(1, 2, split=40)

    assert first.wait(5).is_over
    assert first.state.reason == "the model has another experiment by now"
    assert first.state.plan.split == 50
    assert not second.is_over


def test_a_handle_outlives_its_model(server: ServerHandle) -> None:
    test = Deployment("net", server).ab_test(1, 2)
    assert not test.is_over

    server.models.undeploy("net")

    assert test.is_over
    assert "no longer served" in test.state.reason


def placed(server: ServerHandle, base: Path, version: int, limits: Limits) -> None:
    exported = ExportedVersion("net", version, base / "net" / str(version), 0, 0.0)
    source = source_of(base, version)
    place(server, exported, source, base, Placement("stable"), limits, no_progress)


def test_a_watched_deploy_that_cannot_begin_leaves_label_and_traffic(server: ServerHandle, tmp_path: Path) -> None:
    server.models.set_label("net", "stable", 1)

    with pytest.raises(InvalidOption, match="version 3 gives z float32"):
        placed(server, tmp_path, 3, Limits(slo_p99_ms=50))

    assert server.models.model_status("net").labels == {"stable": 1}
    assert server.models.model_status("net").traffic == {1: 100.0}
    assert not server.models.uses("net", 3)


def test_a_watched_deploy_moves_its_label(server: ServerHandle, tmp_path: Path) -> None:
    placed(server, tmp_path, 4, Limits(slo_p99_ms=50))

    assert server.models.model_status("net").labels == {"stable": 4}
    assert server.models.model_status("net").traffic == {4: 100.0}


def test_watched_deploys_follow_each_other_but_end_no_comparison(server: ServerHandle, tmp_path: Path) -> None:
    placed(server, tmp_path, 4, Limits(slo_p99_ms=50))
    placed(server, tmp_path, 5, Limits(slo_p99_ms=50))

    assert server.models.model_status("net").traffic == {5: 100.0}
    state = server.experiments.state("net")
    assert state is not None
    assert (state.plan.a, state.plan.b, state.phase) == (4, 5, "running")

    server.experiments.end("net", "promote")
    server.experiments.start(Plan("net", 5, 4))
    with pytest.raises(InvalidOption, match="has a running experiment"):
        placed(server, tmp_path, 6, Limits(slo_p99_ms=50))
    assert server.models.model_status("net").traffic == {4: 50.0, 5: 50.0}


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 5},
        {"steps": (0, 5)},
        {"output_range": 1},
        {"output_range": (0, 1, 2)},
        {"output_range": ("a", "b")},
        {"output_range": (1, 0)},
        {"slo_p99_ms": math.inf},
        {"margin": math.nan},
        {"windows": 2.5},
        {"window_s": "5"},
    ],
    ids=str,
)
def test_what_is_no_value_of_an_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        plan_of("net", 1, 2, options)


def test_a_state_is_json_whatever_its_numbers(server: ServerHandle) -> None:
    server.experiments.start(Plan("net", 1, 2, limits=Limits(output_range=(0, math.inf))))
    state = server.experiments.state("net")
    assert state is not None
    odd = Estimate(math.nan, -math.inf, math.inf, math.nan, 3)
    state = replace(
        state,
        reading=replace(state.reading, effect=odd, errors=odd),
        moments=(Moment(time.time(), 3, math.nan, -math.inf, math.inf),),
    )

    again = from_json(json.loads(json.dumps(to_json(state), allow_nan=False)), ExperimentState)

    assert again.plan == state.plan
    assert again.reading.effect is not None
    assert math.isnan(again.reading.effect.value)
    assert again.reading.effect.interval == (-math.inf, math.inf)
    assert again.moments[0][3:] == (-math.inf, math.inf)


def test_an_answer_of_the_admin_api_holds_as_many_disagreements_as_it_has_room_for() -> None:
    large = {"x": np.zeros((1, MAX_DISAGREEMENT_BYTES // 16), np.float32)}  # a quarter of the room
    found = [Disagreement(9.0 - number, large, {}, {}, 0.0) for number in range(9)]

    assert [one.score for one in fitting(found)] == [9.0, 8.0, 7.0, 6.0]
    assert len(fitting([replace(found[0], inputs={"x": np.zeros((1, MAX_DISAGREEMENT_BYTES), np.float32)})])) == 1
    assert fitting([]) == []


def test_a_key_is_never_read_from_where_tokens_stand(server: ServerHandle) -> None:
    with pytest.raises(InvalidOption, match="carries secrets"):
        server.experiments.start(Plan("net", 1, 2, key="Authorization"))

    assert server.experiments.state("net") is None
