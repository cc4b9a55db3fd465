"""Shadow copies: another version gets them, and clients notice nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.eventually import eventually
from helpers.fake_servable import BAD, SIGNATURE, FakeLoader, FakeServable, rows

from tfserve_nb.errors import InvalidOption, NotAvailable, VersionNotFound
from tfserve_nb.serving import shadow as shadow_module
from tfserve_nb.serving.backend import Answer, ModelSpec, Outcome
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.queue import BatchQueue
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.direct import predict
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import BatchRecord, CopyCounts, Pair
from tfserve_nb.serving.traffic import Shadow
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.types import Tensors, VersionState

NET = ModelSpec("net")
Ask = Callable[..., list[float]]


class Draws:
    """Random numbers that a test chooses."""

    value = 0.0

    def __call__(self) -> float:
        return self.value


class Batches(Observer):
    """An observer that keeps the batches."""

    def __init__(self) -> None:
        self.records: list[BatchRecord] = []

    def on_batch(self, record: BatchRecord) -> None:
        self.records.append(record)


class Pairs(Observer):
    """An observer that keeps the pairs."""

    def __init__(self) -> None:
        self.found: list[Pair] = []

    def on_pair(self, pair: Pair) -> None:
        self.found.append(pair)


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def draws() -> Draws:
    return Draws()


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def num_threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def core(loader: FakeLoader, draws: Draws, num_threads: int, tmp_path: Path) -> Iterator[ServingCore]:
    """Version 1 answers, version 2 gets copies of everything; the fake models answer `2 x + version`."""
    serving = ServingCore(loader, draw=draws, num_run_threads=num_threads)
    serving.start()
    deploy(serving, tmp_path, 1, Placement())
    deploy(serving, tmp_path, 2, Placement(shadow=100))
    yield serving
    for servable in loader.loaded.values():
        if servable.gate is not None:
            servable.gate.set()
    serving.stop()


@pytest.fixture
def pairs(core: ServingCore) -> list[Pair]:
    """All that were passed on."""
    kept = Pairs()
    core.observers.add(kept)
    return kept.found


def deploy(core: ServingCore, base: Path, version: int, placement: Placement) -> None:
    path = base / "net" / str(version)
    path.mkdir(parents=True, exist_ok=True)
    core.deploy("net", version, VersionSource(path, BatchingOptions(max_batch_size=4)), base, placement)


def ask(core: ServingCore, *values: float, spec: ModelSpec = NET) -> list[float]:
    answer = predict(core, spec, "serving_default", rows(*values), rows=4, limit_s=10)
    return [float(value) for value in answer["y"][:, 0]]


def hold(loader: FakeLoader, version: int) -> threading.Event:
    """Let the runs of a version wait for an event."""
    gate = loader.loaded[version].gate = threading.Event()
    return gate


def counts(core: ServingCore) -> CopyCounts:
    return core.copies.counts().get(("net", 2), CopyCounts())


def test_a_copy_meets_its_answer(core: ServingCore, pairs: list[Pair]) -> None:
    assert ask(core, 1, 2, 3) == [3, 5, 7]

    eventually(lambda: len(pairs) == 1)
    (pair,) = pairs
    assert (pair.model, pair.version_a, pair.version_b, pair.signature) == ("net", 1, 2, "serving_default")
    np.testing.assert_array_equal(pair.inputs["x"], rows(1, 2, 3))
    np.testing.assert_array_equal(pair.outputs_a["y"], rows(3, 5, 7))
    assert pair.outputs_b is not None
    np.testing.assert_array_equal(pair.outputs_b["y"], rows(4, 6, 8))
    assert pair.error == ""
    assert abs(time.perf_counter() - pair.at_s) < 10
    assert counts(core) == (1, 0, 0)


def test_versions_that_are_compared_get_copies_of_each_others_requests(core: ServingCore, pairs: list[Pair]) -> None:
    for share_of_2 in (0.0, 100.0):
        weights = {1: 100.0 - share_of_2, 2: share_of_2}
        routing = core._model("net").routing  # noqa: SLF001 - traffic that goes to one version on purpose
        core._model("net").routing = replace(  # noqa: SLF001
            routing, traffic={v: p for v, p in weights.items() if p}, arms={1: "a", 2: "b"}, shadow=Shadow(2, 100.0)
        )
        ask(core, 1)

    eventually(lambda: len(pairs) == 2)
    assert [(pair.version_a, pair.version_b) for pair in pairs] == [(1, 2), (2, 1)]


def test_copies_are_no_live_traffic(core: ServingCore, pairs: list[Pair]) -> None:
    batches = Batches()
    core.observers.add(batches)
    for number in range(5):
        ask(core, number)
    eventually(lambda: len(pairs) == 5)

    metrics = core.model_metrics("net", 120, 2)
    assert {version: one.num_requests for version, one in metrics.versions.items()} == {1: 5}
    assert metrics.total == 5
    assert [one.is_background for one in batches.records if one.version == 1] == [False] * 5
    assert [one.is_background for one in batches.records if one.version == 2] == [True] * 5


def test_who_asks_for_a_version_or_a_label_is_not_copied_nor_what_the_shadow_answers(
    core: ServingCore, pairs: list[Pair]
) -> None:
    core.set_label("net", "stable", 1)
    assert ask(core, 1, spec=ModelSpec("net", 1)) == [3]
    assert ask(core, 1, spec=ModelSpec("net", 2)) == [4]
    assert ask(core, 1, spec=ModelSpec("net", label="stable")) == [3]
    core.set_split("net", {1: 50, 2: 50}, shadow=(2, 100))
    num_a = [ask(core, 9) == [19] for _ in range(3)].count(True)  # the draw is 0: all go to version 1
    assert num_a == 3

    eventually(lambda: len(pairs) == 3)
    assert {pair.version_a for pair in pairs} == {1}


def test_the_share_is_a_share(core: ServingCore, draws: Draws, pairs: list[Pair]) -> None:
    core.set_shadow("net", 2, percent=20)
    for draw in (0.0, 0.19, 0.2, 0.5, 0.999):
        draws.value = draw
        ask(core, draw)

    eventually(lambda: len(pairs) == 2)
    assert [float(pair.inputs["x"][0, 0]) for pair in pairs] == [0.0, np.float32(0.19)]
    assert core.copies.num_dropped("net") == 0


def test_a_copy_that_fails_is_told_and_nothing_else(core: ServingCore, loader: FakeLoader, pairs: list[Pair]) -> None:
    def fail(signature: str, inputs: Tensors) -> Tensors:
        raise ZeroDivisionError("by B")

    loader.loaded[2].run = fail  # type: ignore[method-assign]
    assert [ask(core, number) for number in range(6)] == [[2 * number + 1] for number in range(6)]

    eventually(lambda: len(pairs) == 6)
    assert {(pair.outputs_b, pair.error) for pair in pairs} == {(None, "ZeroDivisionError: by B")}
    assert counts(core) == (0, 6, 0)
    assert core.model_metrics("net", 120, 2).versions[1].num_errors == 0


def test_a_request_that_failed_is_not_copied(core: ServingCore, pairs: list[Pair]) -> None:
    with pytest.raises(Exception, match="bad value"):
        ask(core, BAD)
    ask(core, 1)

    eventually(lambda: len(pairs) == 1)
    assert counts(core) == (1, 0, 0)


def test_a_version_that_takes_other_inputs_refuses_its_copies(
    core: ServingCore, loader: FakeLoader, pairs: list[Pair], tmp_path: Path
) -> None:
    class Other(FakeServable):
        def __init__(self) -> None:
            super().__init__(3)
            self.signatures = {"other": replace(SIGNATURE, name="other")}

        def run(self, signature: str, inputs: Tensors) -> Tensors:
            return super().run("serving_default", inputs)

    def load(path: Path, device: str | None) -> FakeServable:
        return Other()

    core._manager._loader = load  # noqa: SLF001 - the fixture's loader makes one kind of model
    deploy(core, tmp_path, 3, Placement(shadow=100))
    assert ask(core, 1) == [3]

    eventually(lambda: len(pairs) == 1)
    assert "not found in signature def" in pairs[0].error


def test_live_requests_go_on_while_copies_hang_and_each_gets_its_own_answer(
    loader: FakeLoader, core: ServingCore, num_threads: int, pairs: list[Pair]
) -> None:
    gate = hold(loader, 2)
    if num_threads == 1:
        outcomes: list[Outcome] = []
        handle = core.acquire(NET)
        for number in range(50):
            handle.submit(
                "serving_default", {"x": rows(number)}, deadline_s=time.perf_counter() + 10, on_done=outcomes.append
            )
        gate.set()
        eventually(lambda: len(outcomes) == 50)
        answers = [outcome.outputs["y"][0, 0] for outcome in outcomes if isinstance(outcome, Answer)]
        assert answers == [2 * number + 1 for number in range(50)]
        handle.release()
    else:
        assert [ask(core, number) for number in range(50)] == [[2 * number + 1] for number in range(50)]
        gate.set()
    eventually(lambda: sum(counts(core)) == 50)


@pytest.mark.parametrize("num_threads", [2])  # with one, the copy that hangs would hold up live requests to come
def test_copies_are_left_out_and_counted_when_too_many_wait(
    loader: FakeLoader, core: ServingCore, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "MAX_WAITING", 3)
    gate = hold(loader, 2)
    for number in range(20):
        assert ask(core, number) == [2 * number + 1]
    assert core.copies.num_dropped("net") >= 20 - 3 - shadow_module.MAX_RUNNING
    gate.set()

    eventually(lambda: sum(counts(core)) == 20)


def test_copies_are_left_out_when_they_take_too_much_memory(
    core: ServingCore, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "MAX_WAITING_BYTES", 40)
    assert ask(core, 1) == [3]
    assert len(ask(core, 1, 2, 3, 4)) == 4

    eventually(lambda: sum(counts(core)) == 2)
    assert counts(core) == (1, 0, 1)
    assert len(pairs) == 1


def test_arrays_that_callers_write_to_afterwards_do_not_change_a_copy(
    loader: FakeLoader, core: ServingCore, num_threads: int, pairs: list[Pair]
) -> None:
    mine = rows(1)
    answer = predict(core, NET, "serving_default", mine, rows=4, limit_s=10)["y"]
    mine[:] = -7
    answer[:] = -7

    eventually(lambda: len(pairs) == 1)
    np.testing.assert_array_equal(pairs[0].inputs["x"], rows(1))
    np.testing.assert_array_equal(pairs[0].outputs_a["y"], rows(3))


@pytest.mark.parametrize("num_threads", [2])
def test_ending_the_copies_lets_the_version_go_although_copies_wait(
    loader: FakeLoader, core: ServingCore, num_threads: int
) -> None:
    gate = hold(loader, 2)
    for number in range(10):
        ask(core, number)
    assert loader.loaded[2].has_begun.wait(60)  # copies that no run has begun with would all be dropped
    with pytest.raises(InvalidOption, match="copies of other versions' requests"):
        core.undeploy("net", 2)
    core.set_shadow("net", None)
    eventually(lambda: sum(counts(core)) == 9)  # all but the one that runs
    gate.set()
    core.undeploy("net", 2)

    eventually(lambda: sum(counts(core)) == 10)
    assert loader.loaded[2].is_closed
    assert {one.version: one.state for one in core.model_status("net").versions}[2] is VersionState.END
    assert ask(core, 1) == [3]


class BrokenPairs(Observer):
    """An observer with a defect."""

    def on_pair(self, pair: Pair) -> None:
        raise ZeroDivisionError


def test_an_observer_with_a_defect_does_not_stop_the_copies(
    core: ServingCore, caplog: pytest.LogCaptureFixture
) -> None:
    core.observers.add(BrokenPairs())
    kept = Pairs()
    core.observers.add(kept)
    assert [ask(core, number) for number in range(3)] == [[1], [3], [5]]

    eventually(lambda: len(kept.found) == 3)
    assert "BrokenPairs" in caplog.text
    caplog.clear()


def test_a_promoted_version_gets_no_copies_any_more(core: ServingCore, pairs: list[Pair]) -> None:
    core.promote("net", 2)

    assert core.model_status("net").shadow is None
    assert ask(core, 1) == [4]
    core.roll_back("net")
    assert ask(core, 1) == [3]
    assert counts(core) == (0, 0, 0)


def test_no_version_shadows_itself_and_unknown_versions_are_named(core: ServingCore) -> None:
    with pytest.raises(InvalidOption, match="gets all requests"):
        core.set_shadow("net", 1)
    with pytest.raises(VersionNotFound, match="no version 9"):
        core.set_shadow("net", 9)
    for percent in (0, -1, 101, True, "20"):
        with pytest.raises(InvalidOption, match="percentage"):
            core.set_shadow("net", 2, percent)  # type: ignore[arg-type]
    assert core.model_status("net").shadow == (2, 100.0)


def test_shadow_and_split_survive_the_process(
    core: ServingCore, loader: FakeLoader, tmp_path: Path, pairs: list[Pair]
) -> None:
    core.set_split(
        "net",
        {1: 90, 2: 10},
        salt="s",
        key_header="X-User",
        arms={1: "a", 2: "b"},
        shadow=(2, 20),
        progress=lambda _: None,
    )
    before = core._models["net"].routing  # noqa: SLF001 - what is stored
    core.stop()

    again = ServingCore(FakeLoader())
    again.start()
    try:
        assert again.resume(tmp_path) == {"net": []}
        assert again._models["net"].routing == before  # noqa: SLF001
        status = again.model_status("net")
        assert (status.shadow, status.key_header, status.traffic) == ((2, 20.0), "x-user", {1: 90.0, 2: 10.0})
        events = [(event.action, event.detail) for event in again.history("net")]
        assert events[1] == ("traffic", "version 1: 90 %, version 2: 10 %, copies of 20 % to version 2")
    finally:
        again.stop()


def test_without_its_files_a_shadow_ends(core: ServingCore, tmp_path: Path) -> None:
    core.stop()
    (tmp_path / "net" / "2").rmdir()

    again = ServingCore(FakeLoader())
    again.start()
    try:
        again.resume(tmp_path)
        assert again.model_status("net").shadow is None
        assert ask(again, 1) == [3]
    finally:
        again.stop()


def test_stopping_drops_copies_and_is_bounded(loader: FakeLoader, core: ServingCore, num_threads: int) -> None:
    gate = hold(loader, 2)
    for number in range(3 if num_threads == 2 else 1):
        ask(core, number)
    threading.Timer(0.1, gate.set).start()
    core.stop()
    core.stop()

    assert not [thread for thread in threading.enumerate() if thread.name == "tfserve-shadow"]


# --- the runner -------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_background_lanes_never_run_before_live_ones_that_have_work() -> None:
    order: list[str] = []
    gate, runs = threading.Event(), threading.Event()

    def run_live(inputs: Tensors) -> Tensors:
        runs.set()
        assert gate.wait(10)
        order.append("live")
        return {"y": inputs["x"]}

    def run_copy(inputs: Tensors) -> Tensors:
        order.append("copy")
        return {"y": inputs["x"]}

    runner = Runner()
    runner.start()
    try:
        options = BatchingOptions(max_batch_size=1)
        lanes = [runner.attach(BatchQueue(options), run_live) for _ in range(2)]
        background = runner.attach(BatchQueue(options), run_copy, is_background=True)
        done: list[Outcome] = []

        def submit(lane: object) -> None:
            runner.submit(lane, {"x": rows(1)}, 1, deadline_s=1e9, on_done=done.append)  # type: ignore[arg-type]

        submit(lanes[0])
        assert runs.wait(10)
        for number in range(30):
            submit(background)
            submit(lanes[number % 2])
        gate.set()
        eventually(lambda: len(done) == 61)
    finally:
        runner.stop()
    assert order == ["live"] * 31 + ["copy"] * 30


def test_a_live_request_that_waits_for_company_keeps_copies_waiting_too() -> None:
    class UntilNoon(BatchQueue):
        """Its requests may leave at 102."""

        def ready_at(self) -> float | None:
            return None if super().ready_at() is None else 102.0

    order: list[str] = []
    done: list[Outcome] = []
    clock = Clock()
    runner = Runner(now=clock)
    runner.start()

    def noting(name: str) -> Callable[[Tensors], Tensors]:
        def run(inputs: Tensors) -> Tensors:
            order.append(name)
            return {"y": inputs["x"]}

        return run

    try:
        live = runner.attach(UntilNoon(BatchingOptions()), noting("live"))
        background = runner.attach(BatchQueue(BatchingOptions()), noting("copy"), is_background=True)
        for lane in (live, background):
            runner.submit(lane, {"x": rows(1)}, 1, deadline_s=1e9, on_done=done.append)
        time.sleep(0.03)  # long enough for a runner that would take the copy
        assert order == []
        clock.now_s = 103.0
        runner.wake()
        eventually(lambda: len(done) == 2)
    finally:
        runner.stop()
    assert order == ["live", "copy"]


def test_a_copy_that_is_cancelled_or_whose_lane_is_closed_leaves_the_loop_running() -> None:
    runner = Runner()
    runner.start()
    try:
        gate = threading.Event()

        def slow(inputs: Tensors) -> Tensors:
            assert gate.wait(10)
            return {"y": inputs["x"]}

        live = runner.attach(BatchQueue(BatchingOptions()), slow)
        background = runner.attach(BatchQueue(BatchingOptions()), slow, is_background=True)
        done: dict[str, Outcome] = {}
        runner.submit(live, {"x": rows(1)}, 1, deadline_s=1e9, on_done=lambda one: done.update(live=one))
        copy = runner.submit(background, {"x": rows(1)}, 1, deadline_s=1e9, on_done=lambda one: done.update(copy=one))
        runner.submit(background, {"x": rows(1)}, 1, deadline_s=1e9, on_done=lambda one: done.update(other=one))
        copy.cancel()
        runner.detach(background)
        gate.set()
        eventually(lambda: len(done) == 3)
        assert isinstance(done["live"], Answer)
        assert isinstance(done["other"], NotAvailable)
        runner.submit(live, {"x": rows(1)}, 1, deadline_s=1e9, on_done=lambda one: done.update(last=one))
        eventually(lambda: "last" in done)
        assert isinstance(done["last"], Answer)
    finally:
        runner.stop()
