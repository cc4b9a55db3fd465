"""One cluster of this machine for the whole ring, and a model whose answers tell the version that gave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.black_box import free_port
from helpers.ray_clients import OFFSETS, TOKEN, Load
from helpers.saved_models import write_half_plus_two

from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import ServerFailed
from tfserve_nb.scaleout.ray.config import RayPlan
from tfserve_nb.scaleout.ray.deploy import RayServer, RayTarget, serve_on_ray
from tfserve_nb.scaleout.ray.replica_model import ReplicaModel

ENVIRONMENT = {
    # By default 2 s, and 30 s for which a replica that goes still listens.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebook, which starts a cluster of its own, goes before the tests of the ring's cluster."""
    items.sort(key=lambda item: item.path.parent == Path(__file__).parent and "server" in item.fixturenames)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hpt/1`, `hpt/2`, `hpt/3`."""
    folder = tmp_path_factory.mktemp("store") / "hpt"
    for version, offset in OFFSETS.items():
        write_half_plus_two(folder / str(version), offset=offset)
    return folder


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[RayServer]:
    """One to three replicas that serve version 1 and have 2 loaded."""
    plan = RayPlan(
        models=(ReplicaModel("hpt", str(model_folder), (1, 2), {1: 100.0}, {"stable": 1}),),
        port=free_port(),
        grpc_port=free_port(),
        options={
            "autoscaling_config": {
                "target_ongoing_requests": 3,
                "upscale_delay_s": 1,
                "downscale_delay_s": 3,
                "look_back_period_s": 3,
            },
        },
    )
    target = RayTarget(token=TOKEN, environment=ENVIRONMENT)
    try:
        server = serve_on_ray(plan, target)
    except ServerFailed:  # after its own tries: Ray's limits are short for a busy machine, and cannot be set
        server = serve_on_ray(plan, target)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def deployed(server: RayServer) -> Iterator[Deployment]:
    """The handle, with version 1 promoted and one replica wanted, whatever the test before did."""
    handle = Deployment("hpt", server.handle)
    if handle.traffic != {1: 100.0}:
        handle.promote(1)
    yield handle
    server.handle.models.connection.close()  # type: ignore[attr-defined]  # it is a RayModels


@pytest.fixture
def load(server: RayServer) -> Load:
    """No client yet."""
    return Load(server.plan.port)
