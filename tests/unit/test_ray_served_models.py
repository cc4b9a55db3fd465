"""A replica follows its `user_config`, all of it or nothing, on a fake loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_servable import FakeLoader

from tfserve_nb.api.to_ray import model_of
from tfserve_nb.errors import ConfigRejected, LabelNotFound, ModelNotFound, ServingError, VersionNotFound
from tfserve_nb.scaleout.ray.replica_model import ReplicaModel, models_of
from tfserve_nb.scaleout.ray.served_models import ServedModels
from tfserve_nb.server.handle import ServerHandle
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.configured import FollowOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource


def fails_for_4(version: int) -> None:
    if version == 4:
        raise ServingError("the file is damaged")


@pytest.fixture
def core() -> Iterator[ServingCore]:
    running = ServingCore(FakeLoader(fails_for_4), draw=lambda: 0.5)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def models(core: ServingCore) -> ServedModels:
    return ServedModels(core, FollowOptions(lambda _: BatchingOptions(), poll_wait_s=-1, num_warmup_iterations=0))


@pytest.fixture
def model(tmp_path: Path) -> ReplicaModel:
    for version in ("1", "2", "3", "4"):
        (tmp_path / version).mkdir()
    return ReplicaModel("m", str(tmp_path), (1, 2), {1: 100.0}, {"stable": 1})


def answering(core: ServingCore, **spec: object) -> int:
    handle = core.acquire(ModelSpec("m", **spec))  # type: ignore[arg-type]
    handle.release()
    return handle.version


def test_versions_traffic_and_labels_change_together(
    core: ServingCore, models: ServedModels, model: ReplicaModel
) -> None:
    models.apply([model])
    assert (answering(core), answering(core, label="stable"), core.available("m")) == (1, 1, (1, 2))
    models.apply([replace(model, versions=(2, 3), traffic={3: 100.0}, labels={"canary": 3})])
    assert (answering(core), answering(core, label="canary"), core.model_status("m").traffic) == (3, 3, {3: 100.0})
    with pytest.raises(LabelNotFound):
        answering(core, label="stable")
    models.apply([replace(model, versions=(2, 3), traffic={2: 60.0, 3: 40.0}, labels={})])
    assert (answering(core), core.model_status("m").traffic) == (2, {2: 60.0, 3: 40.0})
    assert models.models[0].versions == (2, 3)


def test_without_traffic_the_highest_version_answers_again(
    core: ServingCore, models: ServedModels, model: ReplicaModel
) -> None:
    models.apply([model])
    models.apply([replace(model, versions=(1, 2), traffic={}, labels={})])

    assert answering(core) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"versions": (1, 7)}, VersionNotFound, "model m has no version 7 in .* on the node .*; it has 1, 2, 3, 4"),
        ({"versions": (1, 4)}, ConfigRejected, "version 4 of model m cannot be loaded: .*the file is damaged"),
        ({"versions": "latest"}, ConfigRejected, "version 1 has traffic or a label, and versions='latest' does not"),
        ({"base_path": "/nowhere"}, ConfigRejected, "model m: /nowhere is no folder on the node"),
        ({"name": "other", "base_path": "/"}, ConfigRejected, "model other: / holds no versions on the node"),
    ],
)
def test_what_cannot_be_served_changes_nothing(
    core: ServingCore,
    models: ServedModels,
    model: ReplicaModel,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    error: type[ServingError],
    message: str,
) -> None:
    models.apply([model])

    with pytest.raises(error, match=message):
        models.apply([replace(model, **changes)])  # type: ignore[arg-type]

    assert (answering(core), answering(core, label="stable"), models.models) == (1, 1, (model,))
    assert core.available("m") == (1, 2)
    models.apply([replace(model, traffic={2: 100.0})])
    assert answering(core) == 2, "the next one is followed"
    del caplog


def test_models_that_are_not_listed_any_more_go(core: ServingCore, models: ServedModels, model: ReplicaModel) -> None:
    models.apply([model, replace(model, name="other")])
    models.apply([replace(model, name="other")])

    assert core.names == ("other",)
    with pytest.raises(ModelNotFound):
        answering(core)


def test_versions_have_the_limits_that_their_model_lists(
    core: ServingCore, models: ServedModels, model: ReplicaModel
) -> None:
    """Those that are not listed have the highest one's; what a model without any has is the flags' business."""
    one, two = BatchingOptions(max_batch_size=1), BatchingOptions(2, 500, 3, (2,))
    models.apply([replace(model, versions=(1, 2, 3), batching={1: one, 2: two})])
    limits = {status.version: status.batching for status in core.model_status("m").versions}
    models.apply([replace(model, versions=(1, 2, 3)), replace(model, name="plain")])
    by_flags = core.model_status("plain").versions[0].batching

    assert limits == {1: one.to_json(), 2: two.to_json(), 3: two.to_json()}
    assert by_flags == BatchingOptions().to_json()


def test_replicas_batch_as_the_server_that_the_model_was_deployed_to(
    core: ServingCore, models: ServedModels, tmp_path: Path
) -> None:
    deployed_to = ServingCore(FakeLoader())
    deployed_to.start()
    limits = {1: BatchingOptions(8, 500, 3, (4, 8)), 2: BatchingOptions(max_batch_size=16)}
    try:
        for version, options in limits.items():
            path = tmp_path / "net" / str(version)
            path.mkdir(parents=True)
            deployed_to.deploy("net", version, VersionSource(path, options), tmp_path, Placement())
        server = ServerHandle("in_kernel", deployed_to, Any, "http://127.0.0.1:1", "secret", None)
        model, _ = model_of(server, "net")
    finally:
        deployed_to.stop()
    models.apply(models_of({"models": [json.loads(json.dumps(model.to_json()))]}))

    assert model.batching == limits
    found = {status.version: status.batching for status in core.model_status("net").versions}
    assert found == {version: options.to_json() for version, options in limits.items()}
