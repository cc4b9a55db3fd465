"""The core with a model that needs no TensorFlow: lifecycle, switching without loss, resuming, problems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.eventually import eventually
from helpers.fake_servable import BAD, FakeLoader, FakeServable, rows
from helpers.fake_serving import FakeServing

from tfserve_nb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidOption,
    InvalidRequest,
    ModelNotFound,
    NotAvailable,
    RunRejected,
    VersionNotFound,
)
from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.export.graph.state import GraphState, Written
from tfserve_nb.export.layout import temporary_dir
from tfserve_nb.serving import direct
from tfserve_nb.serving.backend import Answer, ModelSpec, Outcome
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.direct import predict
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.models.state_store import FILE_NAME
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.serving.versions import lifecycle
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.types import ProgressEvent, Tensors, VersionState

NET = ModelSpec("net")


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def core(loader: FakeLoader) -> Iterator[ServingCore]:
    serving = ServingCore(loader)
    serving.start()
    yield serving
    serving.stop()


def deploy(
    core: ServingCore, base: Path, version: int, *, keep: int = 2, stage: bool = False, is_trusted: bool = False
) -> list[ProgressEvent]:
    """Make a version folder and deploy it."""
    path = base / "net" / str(version)
    path.mkdir(parents=True, exist_ok=True)
    events: list[ProgressEvent] = []
    core.deploy(
        "net",
        version,
        VersionSource(path, BatchingOptions(max_batch_size=4), is_trusted=is_trusted),
        base,
        Placement(stage=stage, keep=keep),
        progress=events.append,
    )
    return events


def ask(core: ServingCore, *values: float, spec: ModelSpec = NET) -> np.ndarray:
    """Predict in the process; the fake model answers `2 x + version`."""
    return predict(core, spec, "serving_default", rows(*values), rows=4, limit_s=10)["y"][:, 0]


def states(core: ServingCore) -> dict[int, VersionState]:
    """Version -> state."""
    return {status.version: status.state for status in core.model_status("net").versions}


def test_deploy_warms_up_every_batch_size_before_it_answers(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    events = deploy(core, tmp_path, 1)

    assert {1, 2, 4} <= set(loader.loaded[1].batch_sizes)
    assert [event.phase for event in events][-1] == "switching"
    np.testing.assert_array_equal(ask(core, 1, 2, 3), [3, 5, 7])


UNINITIALIZED = "Error while reading resource variable w from Container: localhost. It could be uninitialized."


@pytest.mark.parametrize(
    ("problem", "hint"), [(UNINITIALIZED, "no rows cure that"), ("no JPEG", "give rows that it takes: --check ROWS")]
)
def test_a_version_that_answers_nothing_is_refused_and_the_one_before_answers_on(
    core: ServingCore, loader: FakeLoader, tmp_path: Path, problem: str, hint: str
) -> None:
    deploy(core, tmp_path, 1)
    loader.problems[2] = problem

    with pytest.raises(FailedPrecondition) as caught:
        deploy(core, tmp_path, 2)

    assert f"version 2 of net cannot answer: no row made from its signature could be run: {problem}" in str(
        caught.value
    )
    assert hint in caught.value.hint
    assert "--force" in caught.value.hint
    assert not core.uses("net", 2)
    np.testing.assert_array_equal(ask(core, 1), [3])


def test_a_staged_version_that_answers_nothing_gets_no_traffic_by_any_way(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    deploy(core, tmp_path, 1)
    loader.problems[2] = "no JPEG"
    deploy(core, tmp_path, 2, stage=True)
    ways: list[Callable[[], object]] = [
        lambda: core.promote("net", 2),
        lambda: core.set_traffic("net", {1: 50.0, 2: 50.0}),
        lambda: core.set_split("net", {1: 100.0, 2: 0.0}, arms={1: "a", 2: "b"}),
        lambda: core.set_label("net", "stable", 2),
    ]
    for give_traffic in ways:
        with pytest.raises(FailedPrecondition, match="version 2 of net cannot answer"):
            give_traffic()

    (status,) = (one for one in core.model_status("net").versions if one.version == 2)
    assert status.problem == "no JPEG"
    assert status.notes[-1] == "it cannot answer: no row that was tried could be run: no JPEG"
    assert core.model_status("net").traffic == {1: 100.0}


def test_a_version_that_answers_nothing_is_served_when_that_is_wanted(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    loader.problems[1] = "no JPEG"
    deploy(core, tmp_path, 1, is_trusted=True)
    assert core.model_status("net").default_version == 1

    core.stop()
    again = ServingCore(loader)
    again.start()
    try:
        assert again.resume(tmp_path) == {"net": []}
        again.set_traffic("net", {1: 100.0})
        assert again.model_status("net").default_version == 1
    finally:
        again.stop()


class Counting(FakeServable):
    """Adds up what it was asked, and takes its time between reading and writing."""

    def __init__(self) -> None:
        super().__init__(1)
        self.effects = Effects({"serving_default": GraphState((Written("total", "total", "variable", (1,)),))})
        self.total = 0.0

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        before = self.total
        time.sleep(0.002)
        self.total = before + len(inputs["x"])
        return {"y": np.full_like(inputs["x"], self.total)}

    def restore(self) -> None:
        self.total = 0.0


def test_requests_for_a_version_that_they_change_run_whole_and_one_after_the_other(tmp_path: Path) -> None:
    core = ServingCore(lambda *_: Counting(), num_run_threads=4)
    core.start()
    try:
        deploy(core, tmp_path, 1)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(core, 0)[0], range(40)))
        (status,) = core.model_status("net").versions
    finally:
        core.stop()

    assert sorted(answers) == list(range(1, 41))
    assert status.changes == "a run changes its own state (total)"


def test_large_request_is_answered_in_order(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)

    np.testing.assert_array_equal(ask(core, *range(1001)), np.arange(1001) * 2 + 1)


def test_rollback_moves_back_while_the_previous_version_stays_loaded(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    assert ask(core, 0) == [2]

    assert core.roll_back("net") == 1

    assert ask(core, 0) == [1]
    assert states(core) == {1: VersionState.AVAILABLE, 2: VersionState.AVAILABLE}


def test_versions_beyond_keep_are_unloaded_and_loaded_again_when_wanted(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    first = None
    for version in (1, 2, 3):
        deploy(core, tmp_path, version)
        first = first or loader.loaded[1]
    assert core._manager.wait_until_gone("net", frozenset({1}), 5)  # noqa: SLF001 - a test may wait where users need not
    assert first is not None
    assert first.is_closed

    core.roll_back("net", to=1)

    assert ask(core, 0) == [1]
    assert loader.loaded[1] is not first


def test_held_version_is_not_freed_before_its_last_request(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    deploy(core, tmp_path, 1, keep=1)
    handle = core.acquire(NET)
    deploy(core, tmp_path, 2, keep=1)
    outcomes: list[Outcome] = []
    done = threading.Event()

    handle.submit(
        "serving_default",
        {"x": rows(5)},
        deadline_s=1e12,
        on_done=lambda outcome: (outcomes.append(outcome), done.set()),
    )

    assert done.wait(5)
    assert isinstance(outcomes[0], Answer)
    assert outcomes[0].outputs["y"][0, 0] == 11
    assert not loader.loaded[1].is_closed
    handle.release()
    assert core._manager.wait_until_gone("net", frozenset({1}), 5)  # noqa: SLF001 - a test may wait where users need not
    assert loader.loaded[1].is_closed


def test_failed_load_leaves_the_served_version_and_says_why(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    deploy(core, tmp_path, 1)
    loader.broken.add(2)

    with pytest.raises(NotAvailable, match="2 is broken"):
        deploy(core, tmp_path, 2)

    assert ask(core, 0) == [1]
    status = core.model_status("net").versions[0]
    assert (status.version, status.state, status.error_message) == (2, VersionState.END, "2 is broken")
    loader.broken.clear()
    deploy(core, tmp_path, 2)
    assert ask(core, 0) == [2]


def test_first_deploy_that_fails_leaves_no_model(core: ServingCore, loader: FakeLoader, tmp_path: Path) -> None:
    loader.broken.add(1)

    with pytest.raises(NotAvailable):
        deploy(core, tmp_path, 1)

    assert core.names == ()


def test_switching_between_versions_under_load_loses_and_confuses_nothing(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    stop = threading.Event()
    wrong: list[object] = []
    answered = [0] * 8

    def client(number: int) -> None:
        while not stop.is_set():
            try:
                answer = ask(core, number, number + 1)
                if list(answer - [2 * number, 2 * number + 2]) not in ([1, 1], [2, 2]):
                    wrong.append(answer)
                answered[number] += 1
            except Exception as error:  # noqa: BLE001 - any failure counts
                wrong.append(error)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for _ in range(100):
        core.roll_back("net")
        core.promote("net", 2)
    stop.set()
    for thread in clients:
        thread.join(10)

    assert wrong == []
    assert min(answered) > 0


def test_split_and_labels_decide_who_answers(loader: FakeLoader, tmp_path: Path) -> None:
    draws = iter([0.05, 0.5, 0.95])
    core = ServingCore(loader, draw=lambda: next(draws))
    core.start()
    try:
        deploy(core, tmp_path, 1)
        deploy(core, tmp_path, 2, stage=True)
        core.set_traffic("net", {1: 90, 2: 10})
        core.set_label("net", "canary", 2)

        assert [ask(core, 0)[0] for _ in range(3)] == [1, 1, 2]
        draws = iter([0.0] * 3)
        assert ask(core, 0, spec=ModelSpec("net", label="canary")) == [2]
        assert ask(core, 0, spec=ModelSpec("net", version=1)) == [1]
    finally:
        core.stop()


def test_bad_rows_fail_alone(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)

    with pytest.raises(RunRejected, match="bad value"):
        ask(core, BAD)
    with pytest.raises(InvalidRequest, match=r"shape \[1, 3\], expected float32\[\?, 2\]"):
        predict(core, NET, "serving_default", np.zeros((1, 3), np.float32), rows=4, limit_s=1)

    assert ask(core, 1) == [3]


def test_undeploy_ends_everything_and_forgets_the_model(core: ServingCore, loader: FakeLoader, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)

    core.undeploy("net")

    assert loader.loaded[1].is_closed
    with pytest.raises(ModelNotFound, match="Servable not found"):
        core.acquire(NET)
    with pytest.raises(ModelNotFound, match="no model 'net' is served here"):
        core.model_status("net")
    assert (tmp_path / "net" / "1").exists()


def test_a_version_on_its_way_out_comes_back_when_it_is_wanted(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1, keep=1)
    held = core.acquire(NET)
    deploy(core, tmp_path, 2, keep=1)
    eventually(lambda: states(core)[1] is VersionState.UNLOADING)
    back = threading.Thread(target=core.roll_back, args=("net",))

    back.start()
    held.release()
    back.join(10)

    assert not back.is_alive()
    assert core.model_status("net").default_version == 1
    np.testing.assert_array_equal(ask(core, 1), [3])


def test_one_version_can_be_unloaded_unless_it_is_used(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)

    with pytest.raises(InvalidOption, match="still has 100 %"):
        core.undeploy("net", 2)
    core.undeploy("net", 1, delete=True)

    assert states(core) == {1: VersionState.END, 2: VersionState.AVAILABLE}
    assert not (tmp_path / "net" / "1").exists()
    with pytest.raises(VersionNotFound, match="no version 1; it has 2"):
        core.promote("net", 1)


@pytest.mark.parametrize("what", ["promote", "roll back", "stage", "label", "traffic", "split", "shadow"])
def test_what_memory_holds_needs_no_folder(core: ServingCore, tmp_path: Path, what: str) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    shutil.rmtree(tmp_path / "net" / "1")

    {
        "promote": lambda: core.promote("net", 1),
        "roll back": lambda: core.roll_back("net"),
        "stage": lambda: core.stage("net", 1),
        "label": lambda: core.set_label("net", "old", 1),
        "traffic": lambda: core.set_traffic("net", {1: 100}),
        "split": lambda: core.set_split("net", {1: 100}),
        "shadow": lambda: core.set_shadow("net", 1),
    }[what]()

    assert ask(core, 0, spec=ModelSpec("net", version=1)) == [1]
    assert core.available("net") == (1, 2)


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("version", [1, None])
def test_a_version_without_its_folder_can_be_unloaded(
    core: ServingCore, loader: FakeLoader, tmp_path: Path, version: int | None, delete: bool
) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    shutil.rmtree(tmp_path / "net" / "1")

    core.undeploy("net", version, delete=delete)

    assert loader.loaded[1].is_closed
    assert core.names == (() if version is None else ("net",))
    if version is not None:
        with pytest.raises(VersionNotFound, match="has no version 1; it has 2"):
            core.promote("net", 1)


def test_a_folder_that_another_process_serves_is_not_deleted(core: ServingCore, tmp_path: Path) -> None:
    for version in (1, 2):
        deploy(core, tmp_path, version)
    code = (
        "import sys; from pathlib import Path; from tfserve_nb.serving.versions.in_use import FolderInUse\n"
        "held = FolderInUse(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "net" / "1")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for version in (1, None):
            with pytest.raises(
                InvalidOption, match=r"version 1 of net is not deleted: another process serves it"
            ) as caught:
                core.undeploy("net", version, delete=True)
            assert "--force" in caught.value.hint
            assert core.available("net") == (1, 2)
        core.undeploy("net", 1)  # without its files
        other.kill()
    core.undeploy("net", 1, delete=True)

    assert [entry.name for entry in (tmp_path / "net").iterdir()] == ["2"]


def test_two_servers_of_one_folder_respect_each_other_unless_forced(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    second = ServingCore(FakeLoader())
    second.start()
    try:
        second.resume(tmp_path)
        with pytest.raises(InvalidOption, match="version 1 of net is not deleted"):
            core.undeploy("net", 1, delete=True)
        second.undeploy("net", 1)
        core.undeploy("net", 1, delete=True)
        core.undeploy("net", delete=True, force=True)
    finally:
        second.stop()

    assert list((tmp_path / "net").iterdir()) == []


def test_versions_that_ended_are_forgotten_and_their_options_are_not(core: ServingCore, tmp_path: Path) -> None:
    for version in range(1, 41):
        deploy(core, tmp_path, version)
        if version % 2:
            shutil.rmtree(tmp_path / "net" / str(version))
    eventually(lambda: len(core.model_status("net").versions) <= 2 + lifecycle.KEPT_ENDED)
    assert {40, 39} <= states(core).keys()

    core.promote("net", 2)

    assert ask(core, 0) == [2]
    assert core.max_batch_size("net") == 4
    assert core.highest_version("net") == 40
    with pytest.raises(VersionNotFound):
        core.promote("net", 3)


def test_failed_versions_are_forgotten_too_and_the_highest_number_is_not(
    core: ServingCore, loader: FakeLoader, tmp_path: Path
) -> None:
    deploy(core, tmp_path, 50)
    deploy(core, tmp_path, 1)
    core.undeploy("net", 50, delete=True)
    loader.broken = set(range(2, 12))
    for version in loader.broken:
        with pytest.raises(NotAvailable, match=f"{version} is broken"):
            deploy(core, tmp_path, version)

    eventually(lambda: len(core.model_status("net").versions) <= 1 + 1 + lifecycle.KEPT_ENDED)
    assert core.highest_version("net") == 50


def test_a_version_that_was_deleted_can_come_again_with_other_options(core: ServingCore, tmp_path: Path) -> None:
    for version in range(1, 11):
        deploy(core, tmp_path, version)
    eventually(lambda: 1 not in states(core))
    path = tmp_path / "net" / "1"

    core.deploy("net", 1, VersionSource(path, BatchingOptions(max_batch_size=2)), tmp_path, Placement())

    assert core.max_batch_size("net") == 2


def test_next_kernel_resumes_versions_labels_and_traffic(loader: FakeLoader, tmp_path: Path) -> None:
    first = ServingCore(loader)
    first.start()
    for version in (1, 2, 3):
        deploy(first, tmp_path, version)
    first.set_label("net", "old", 1)
    first.set_traffic("net", {2: 25, 3: 75})
    before = first.model_status("net")
    first.stop()

    second = ServingCore(FakeLoader())
    second.start()
    try:
        assert second.resume(tmp_path) == {"net": []}

        after = second.model_status("net")
        assert (after.labels, after.traffic, after.default_version) == (before.labels, before.traffic, 3)
        assert second.available("net") == (1, 2, 3)
        assert [event.action for event in second.history("net")][:2] == ["resume", "traffic"]
    finally:
        second.stop()


def test_resume_says_nothing_of_versions_that_it_does_not_load_and_loads_them_when_wanted(
    loader: FakeLoader, tmp_path: Path
) -> None:
    first = ServingCore(loader)
    first.start()
    for version in (1, 2, 3):
        deploy(first, tmp_path, version)
    first.stop()

    second = ServingCore(FakeLoader())
    second.start()
    try:
        second.resume(tmp_path)

        assert states(second) == {2: VersionState.AVAILABLE, 3: VersionState.AVAILABLE}
        second.stage("net", 1)
        assert states(second)[1] is VersionState.AVAILABLE
    finally:
        second.stop()


def test_resume_sweeps_what_a_killed_process_left_and_nothing_else(loader: FakeLoader, tmp_path: Path) -> None:
    first = ServingCore(loader)
    first.start()
    deploy(first, tmp_path, 1)
    first.stop()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    with temporary_dir(tmp_path / "net", "exporting") as living:
        lost = living.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
        for model in ("net", "other"):  # the first export of the other was killed
            (tmp_path / model / lost).mkdir(parents=True)

        second = ServingCore(FakeLoader())
        second.start()
        try:
            assert second.resume(tmp_path) == {"net": []}
        finally:
            second.stop()

        assert sorted(entry.name for entry in (tmp_path / "net").iterdir()) == [living.name, "1"]
        assert list((tmp_path / "other").iterdir()) == []


def test_resume_goes_on_without_what_is_gone(loader: FakeLoader, tmp_path: Path) -> None:
    first = ServingCore(loader)
    first.start()
    deploy(first, tmp_path, 1)
    deploy(first, tmp_path, 2)
    first.stop()
    (tmp_path / "net" / "2").rmdir()

    second = ServingCore(FakeLoader())
    second.start()
    try:
        assert second.resume(tmp_path) == {"net": ["version 2 is no longer on disk"]}
        assert ask(second, 0) == [1]
    finally:
        second.stop()


def test_deploy_in_a_new_kernel_can_be_rolled_back_to_the_old_kernels_version(
    loader: FakeLoader, tmp_path: Path
) -> None:
    first = ServingCore(loader)
    first.start()
    deploy(first, tmp_path, 1)
    first.stop()

    second = ServingCore(FakeLoader())
    second.start()
    try:
        deploy(second, tmp_path, 2)
        second.roll_back("net")
        assert ask(second, 0) == [1]
    finally:
        second.stop()


def test_state_file_that_cannot_be_written_never_stops_a_switch(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()

    core.roll_back("net")

    assert ask(core, 0) == [1]
    assert "cannot be used" in core.model_status("net").problem


def test_stop_finishes_waiting_requests_and_leaves_no_thread(tmp_path: Path) -> None:
    gate = threading.Event()
    loader = FakeLoader()
    core = ServingCore(loader)
    core.start()
    deploy(core, tmp_path, 1)
    loader.loaded[1].gate = gate
    handle = core.acquire(NET)
    outcomes: list[Outcome] = []
    for _ in range(20):
        handle.submit("serving_default", {"x": rows(1)}, deadline_s=1e12, on_done=outcomes.append)

    threading.Timer(0.1, gate.set).start()
    core.stop()

    assert len(outcomes) == 20
    assert {type(outcome) for outcome in outcomes} <= {Answer, NotAvailable}


def test_no_key_is_looked_for_while_all_traffic_goes_to_one_version(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    looked: list[str] = []

    def find(name: str) -> str:
        looked.append(name)
        return "user-17"

    handle = core.acquire(NET, key=find)
    handle.release()
    assert (handle.assignment, looked) == (None, [])

    core.set_split("net", {1: 50, 2: 50}, salt="s", key_header="X-User", arms={1: "a", 2: "b"})
    handles = [core.acquire(NET, key=find) for _ in range(5)]
    for handle in handles:
        handle.release()
    (assignment,) = {one.assignment for one in handles}
    assert assignment == ("user-17", {1: "a", 2: "b"}[handles[0].version], True)
    assert set(looked) == {"x-user"}
    named = core.acquire(ModelSpec("net", 1), key=find)
    named.release()
    assert named.assignment == ("user-17", "a", False)


def test_a_key_keeps_its_version_in_the_kernel_and_is_recorded(core: ServingCore, tmp_path: Path) -> None:
    deploy(core, tmp_path, 1)
    deploy(core, tmp_path, 2)
    core.set_traffic("net", {1: 50, 2: 50})
    records: list[RequestRecord] = []
    core.observers.add(Recorder(records))

    for number in range(20):
        first, second = (core.predict(NET, "serving_default", rows(0), 10, f"user-{number}") for _ in range(2))
        assert first["y"].tolist() == second["y"].tolist()

    assert len({one.version for one in records}) == 2
    assert {(one.is_assigned, one.key.startswith("user-")) for one in records} == {(True, True)}


class Recorder(Observer):
    """An observer that keeps the requests."""

    def __init__(self, records: list[RequestRecord]) -> None:
        self._records = records

    def on_request(self, record: RequestRecord, tensors: object) -> None:
        self._records.append(record)


def test_a_request_that_comes_after_its_version_was_unloaded_gets_not_available(
    core: ServingCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "UNLOAD_LIMIT_S", 0.0)
    monkeypatch.setattr(lifecycle, "GRACE_S", -1e9)
    deploy(core, tmp_path, 1)
    handle = core.acquire(NET)
    outcomes: list[Outcome] = []

    core.undeploy("net")

    for submit in (handle.submit, handle.submit_copy):
        with pytest.raises(NotAvailable, match="unloaded"):
            submit("serving_default", {"x": rows(1)}, deadline_s=time.perf_counter() + 9, on_done=outcomes.append)
    handle.release()
    assert outcomes == []


def test_an_interrupted_predict_cancels_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = FakeServing()
    serving.gate.clear()

    def interrupt(*args: object) -> Answer:
        raise KeyboardInterrupt

    monkeypatch.setattr(direct, "_result", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            predict(serving, ModelSpec("double"), "serving_default", rows(1), rows=4, limit_s=10)

        assert [ticket.was_cancelled.is_set() for ticket in serving.tickets] == [True]
        assert [record.code for record in serving.wait_for_records(1)] == ["CANCELLED"]
        assert serving.num_held == 0
    finally:
        serving.close()


def test_a_model_is_served_on_when_its_whole_folder_is_gone(core: ServingCore, tmp_path: Path) -> None:
    base = tmp_path / "base"
    for version in (1, 2):
        deploy(core, base, version)
    shutil.rmtree(base)

    core.promote("net", 1)
    assert ask(core, 0) == [1]
    assert core.roll_back("net", 2) == 2
    status = core.model_status("net")
    assert (status.on_disk, status.default_version) == ((), 2)
    assert "the change will not survive it" in status.problem
    core.undeploy("net", 1, delete=True)
    assert core.available("net") == (2,)
    deploy(core, base, 3)
    assert core.model_status("net").problem == ""
    core.undeploy("net", delete=True)

    assert core.names == ()


class Hanging(FakeServable):
    """Hangs on one value; closing it waits for that run, as TensorFlow may."""

    def __init__(self, version: int, gate: threading.Event) -> None:
        super().__init__(version)
        self._is_let_go = gate
        self._num_running = 0

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        self._num_running += 1
        if (inputs["x"] == 13.0).any():
            self._is_let_go.wait(120)
        self._num_running -= 1
        return {"y": inputs["x"] * 2 + self.version}

    def close(self) -> None:
        while self._num_running and not self._is_let_go.wait(0.01):
            pass
        super().close()


def test_a_version_whose_run_hangs_is_named_and_holds_up_no_switch_and_no_unload(tmp_path: Path) -> None:
    gate = threading.Event()
    core = ServingCore(lambda path, _: Hanging(int(path.name), gate))
    core.start()
    try:
        deploy(core, tmp_path, 1)
        deploy(core, tmp_path, 2)
        with pytest.raises(DeadlineExceeded):
            predict(core, NET, "serving_default", rows(13.0), rows=4, limit_s=0.5)
        assert "a run has been going on for" in eventually(lambda: core.model_status("net").versions[0].detail)

        assert core.roll_back("net") == 1
        assert ask(core, 4) == [9]
        core.undeploy("net", 2)
        assert states(core)[1] is VersionState.AVAILABLE
        deploy(core, tmp_path, 3)
        assert ask(core, 4) == [11]
    finally:
        gate.set()
        core.stop()
