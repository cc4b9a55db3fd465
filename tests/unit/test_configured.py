"""Configured models on a fake loader: labels, polling, retries, and what a missing folder does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.eventually import eventually
from helpers.fake_servable import FakeLoader

from tfserve_nb.errors import ConfigRejected, LabelNotFound
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.configured import ConfiguredModels, FollowOptions, find_versions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.model_config import LoggingOptions, ModelConfig, ReloadLimits, VersionPolicy
from tfserve_nb.types import VersionState

OPTIONS = FollowOptions(
    batching=lambda _: BatchingOptions(max_batch_size=2),
    poll_wait_s=-1,
    max_num_load_retries=0,
    num_warmup_iterations=0,
)


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def core(loader: FakeLoader) -> Iterator[ServingCore]:
    running = ServingCore(loader)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    return tmp_path


def states(core: ServingCore) -> dict[int, str]:
    return {one.version: one.state.name for one in core.status(ModelSpec("m"))}


def answering(core: ServingCore, **spec: object) -> int:
    handle = core.acquire(ModelSpec("m", **spec))  # type: ignore[arg-type]
    handle.release()
    return handle.version


def test_new_labels_may_be_early_when_allowed_but_never_move_early(core: ServingCore, base: Path) -> None:
    every = ModelConfig("m", str(base), VersionPolicy(latest=None))
    models = ConfiguredModels(core, replace(OPTIONS, allow_labels_for_unavailable=True))

    models.apply([replace(every, labels={"stable": 1})], at_start=True)
    assert answering(core, label="stable") == 1
    with pytest.raises(ConfigRejected, match="Request to assign label to version 9 of model m") as caught:
        models.apply([replace(every, labels={"stable": 9})])
    assert caught.value.code == "FAILED_PRECONDITION"
    assert answering(core, label="stable") == 1
    models.apply([replace(every, labels={"stable": 2, "next": 7})])
    assert answering(core, label="stable") == 2
    models.apply([every])
    with pytest.raises(LabelNotFound):
        answering(core, label="stable")


def test_labels_in_the_first_configuration_need_the_flag(core: ServingCore, base: Path) -> None:
    models = ConfiguredModels(core, OPTIONS)

    with pytest.raises(ConfigRejected, match="not currently available for inference"):
        models.apply([ModelConfig("m", str(base), labels={"stable": 2})], at_start=True)

    assert core.names == ()


def test_polling_follows_the_folder_and_survives_its_absence(core: ServingCore, base: Path, caplog) -> None:
    models = ConfiguredModels(core, OPTIONS)
    models.apply([ModelConfig("m", str(base))])
    assert answering(core) == 2

    (base / "10").mkdir()
    (base / "no_version").mkdir()
    models.poll()
    eventually(lambda: states(core) == {10: "AVAILABLE", 2: "END"})
    kept = base.rename(base.with_name("away"))
    models.poll()
    models.poll()
    assert answering(core) == 10
    assert sum("Could not find base path" in record.message for record in caplog.records) == 1
    kept.rename(base)
    (base / "10").rmdir()
    models.poll()
    eventually(lambda: states(core) == {10: "END", 2: "AVAILABLE"})


@pytest.mark.parametrize(("wait_s", "version"), [(0.01, 3), (0, 2)])
def test_how_often_folders_are_looked_at(core: ServingCore, base: Path, wait_s: float, version: int) -> None:
    models = ConfiguredModels(core, replace(OPTIONS, poll_wait_s=wait_s))
    models.apply([ModelConfig("m", str(base))])
    models.start()
    try:
        (base / "3").mkdir()
        if wait_s:
            eventually(lambda: core.available("m") == (3,))
        else:
            time.sleep(0.05)
        assert answering(core) == version
    finally:
        models.stop()


def test_a_failing_version_is_tried_again_and_given_up_when_it_is_not_wanted(
    core: ServingCore, loader: FakeLoader, base: Path
) -> None:
    loader.broken.add(2)
    models = ConfiguredModels(core, replace(OPTIONS, max_num_load_retries=1000, load_retry_interval_s=0.01))
    models.apply([ModelConfig("m", str(base), VersionPolicy(latest=None))])
    assert answering(core) == 1
    eventually(lambda: "try" in core.status(ModelSpec("m", 2))[0].detail)
    loader.broken.clear()
    eventually(lambda: states(core) == {1: "AVAILABLE", 2: "AVAILABLE"})

    loader.broken.add(3)
    (base / "3").mkdir()
    models.poll()
    eventually(lambda: states(core).get(3) == "LOADING")
    (base / "3").rmdir()
    models.poll()
    eventually(lambda: states(core)[3] == "END")
    assert core.status(ModelSpec("m", 3))[0].error_message == "Loading of servable cancelled"
    assert core.status(ModelSpec("m", 3))[0].error_code == "CANCELLED"


def test_limits_that_cannot_be_read_fail_the_version(core: ServingCore, base: Path) -> None:
    def read(path: Path) -> BatchingOptions:
        raise ConfigRejected(f"{path / 'batching_params.pbtxt'}: max_batch_size=0")

    models = ConfiguredModels(core, replace(OPTIONS, batching=read))

    with pytest.raises(ConfigRejected, match=r"1 model\(s\) did not become available: .*max_batch_size=0"):
        models.apply([ModelConfig("m", str(base))])
    assert core.status(ModelSpec("m"))[0].state is VersionState.END


def test_a_slow_model_holds_up_no_other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    gate = threading.Event()
    loader = FakeLoader(lambda version: (gate.wait(5), None)[1] if version == 77 else None)
    core = ServingCore(loader)
    core.start()
    slow = tmp_path_factory.mktemp("slow")
    (slow / "77").mkdir()
    models = ConfiguredModels(core, OPTIONS)
    models.apply([ModelConfig("m", str(base))])
    waiting = threading.Thread(
        target=models.apply, args=([ModelConfig("m", str(base)), ModelConfig("slow", str(slow))],)
    )
    waiting.start()
    try:
        assert answering(core) == 2
        models.poll()
        assert answering(core) == 2
    finally:
        gate.set()
        waiting.join(5)
        core.stop()
    assert not waiting.is_alive()


def test_version_folders(tmp_path: Path, caplog) -> None:
    for name in ("00000123", "7", "007", "x1", "-3", str(2**63), "1.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")

    assert {version: path.name for version, path in find_versions(tmp_path).items()} == {123: "00000123", 7: "7"}
    assert "Duplicate version directories" in caplog.text


def test_a_split_never_points_to_a_version_that_the_configuration_took_away(core: ServingCore, base: Path) -> None:
    every = ModelConfig("m", str(base), VersionPolicy(latest=None))
    models = ConfiguredModels(core, OPTIONS)
    models.apply([every], at_start=True)
    core.set_split("m", {1: 50, 2: 50}, arms={1: "a", 2: "b"})

    models.apply([ModelConfig("m", str(base), VersionPolicy(latest=1))])
    models.poll()

    assert core.model_status("m").traffic == {2: 100.0}
    assert core.arms("m") == {}
    assert {answering(core) for _ in range(20)} == {2}


def test_a_promoted_version_that_is_taken_away_gives_way_to_the_newest(core: ServingCore, base: Path) -> None:
    models = ConfiguredModels(core, OPTIONS)
    models.apply([ModelConfig("m", str(base), VersionPolicy(latest=None))], at_start=True)
    core.promote("m", 1)

    models.apply([ModelConfig("m", str(base), VersionPolicy(latest=1))])
    models.poll()

    assert answering(core) == 2


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\nb", "a\0b", ".hidden", "x" * 300, "%2e%2e"])
def test_a_configuration_with_a_name_that_no_model_can_have_changes_nothing(
    core: ServingCore, base: Path, name: str
) -> None:
    models = ConfiguredModels(core, OPTIONS)
    good = ModelConfig("m", str(base))
    models.apply([good])

    with pytest.raises(ConfigRejected, match="cannot name a model"):
        models.apply([ModelConfig(name, str(base)), good])

    assert core.names == ("m",)
    assert answering(core) == 2


def test_a_path_with_a_nul_is_refused_and_does_not_end_the_poller(core: ServingCore, base: Path) -> None:
    models = ConfiguredModels(core, OPTIONS)
    good = ModelConfig("m", str(base))
    models.apply([good])

    with pytest.raises(ConfigRejected, match="has control characters"):
        models.apply([good, ModelConfig("n", f"{base}/\0")])

    models.poll()
    assert core.names == ("m",)


def test_a_reload_by_an_unknown_client_stays_below_what_the_owner_named(tmp_path: Path) -> None:
    inside, other, outside = tmp_path / "models" / "m", tmp_path / "other", tmp_path / "outside"
    for folder in (inside / "deeper", other, outside):
        folder.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    (other / "loop").symlink_to(other / "loop")
    log = LoggingOptions(str(tmp_path / "log"), 0.1)
    limits = ReloadLimits.of([ModelConfig("m", str(inside), logging=log)], [str(other)])

    limits.restricted(
        [
            ModelConfig("m", str(inside), logging=log),
            ModelConfig("n", str(inside / "deeper")),
            ModelConfig("o", str(other / "to" / "come")),
        ]
    )
    for path in (
        outside, tmp_path, f"{inside}-2", inside / ".." / ".." / "outside", inside / "link", other / "loop",
    ):  # fmt: skip
        with pytest.raises(ConfigRejected, match="outside of the configured base paths") as caught:
            limits.restricted([ModelConfig("x", str(path))])
        assert caught.value.code == "PERMISSION_DENIED"
        assert "--reload_base_paths" in caught.value.message
    with pytest.raises(ConfigRejected, match="reloads without a token cannot add it"):
        limits.restricted([ModelConfig("m", str(inside), logging=LoggingOptions(str(inside / "x"), 1.0))])


@pytest.mark.parametrize("linked", ["", "variables", "assets/words.txt", "deeper"])
def test_a_version_of_an_unknown_client_does_not_lead_outside_by_links(
    core: ServingCore, loader: FakeLoader, tmp_path: Path, linked: str
) -> None:
    base, outside = tmp_path / "models", tmp_path / "outside"
    (base / "own" / "1").mkdir(parents=True)
    (outside / "1").mkdir(parents=True)
    (base / "store" / "deep").mkdir(parents=True)
    link = base / "own" / "m" / "7" / linked
    link.parent.mkdir(parents=True)
    if linked == "deeper":  # by way of a folder inside
        link.symlink_to(base / "store")
        link = base / "store" / "deep" / "link"
    link.symlink_to(outside / "1")
    own = ModelConfig("own", str(base / "own"))
    wanted = [own, ModelConfig("m", str(base / "own" / "m"))]
    models = ConfiguredModels(core, OPTIONS)

    with pytest.raises(ConfigRejected, match=rf"{link}.* leads out of the configured base paths.*--reload_base_paths"):
        models.apply(ReloadLimits.of([own], [str(base / "store")]).restricted(wanted))

    assert [core.available(name) for name in ("own", "m")] == [(1,), ()]
    assert set(loader.loaded) == {1}
    models.apply([own])
    models.apply(ReloadLimits.of([own], [str(base / "store"), str(outside)]).restricted(wanted))
    assert core.available("m") == (7,)


def test_links_in_a_folder_that_the_owner_named_are_followed(core: ServingCore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "1").symlink_to(tmp_path / "outside")
    own = ModelConfig("m", str(tmp_path / "models"))
    models = ConfiguredModels(core, OPTIONS)

    models.apply(ReloadLimits.of([own]).restricted([own]))

    assert core.available("m") == (1,)


def test_the_root_folder_allows_every_place(tmp_path: Path) -> None:
    ReloadLimits.of([], ["/"]).restricted([ModelConfig("m", str(tmp_path))])
