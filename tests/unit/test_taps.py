"""Who looks on while requests run: observers and taps come and go, and harm nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_servable import BAD, FakeLoader, rows

from tfserve_nb.errors import RunRejected
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.direct import predict
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.metrics import RequestRecord
from tfserve_nb.serving.telemetry.observer import BatchRecord, WarmupRecord
from tfserve_nb.serving.telemetry.taps import Seen, Taps
from tfserve_nb.serving.versions.source import VersionSource

NET = ModelSpec("net")


class Notes:
    """An observer and a tap that keeps what it gets."""

    def __init__(self, wanted: str = "") -> None:
        self.wanted = wanted
        self.requests: list[RequestRecord] = []
        self.batches: list[BatchRecord] = []
        self.tapped: list[tuple[RequestRecord, Seen]] = []

    def on_request(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def on_batch(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def on_warmup(self, record: WarmupRecord) -> None: ...

    def wants(self, model: str) -> bool:
        return model == self.wanted

    def add(self, record: RequestRecord, seen: Seen) -> None:
        self.tapped.append((record, seen))


class Broken:
    """An observer and a tap with a defect."""

    def on_request(self, record: RequestRecord) -> None:
        raise ZeroDivisionError

    def on_batch(self, record: BatchRecord) -> None:
        raise ZeroDivisionError

    def on_warmup(self, record: WarmupRecord) -> None:
        raise ZeroDivisionError

    def wants(self, model: str) -> bool:
        return True

    def add(self, record: RequestRecord, seen: Seen) -> None:
        raise ZeroDivisionError


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ServingCore]:
    serving = ServingCore(FakeLoader())
    serving.start()
    path = tmp_path / "net" / "1"
    path.mkdir(parents=True)
    serving.deploy("net", 1, VersionSource(path, BatchingOptions(max_batch_size=4)), tmp_path, Placement())
    yield serving
    serving.stop()


def ask(core: ServingCore, *values: float) -> list[float]:
    answer = predict(core, NET, "serving_default", rows(*values), rows=4, limit_s=10)
    return [float(value) for value in answer["y"][:, 0]]


def test_an_observer_comes_and_goes_while_the_model_is_served(core: ServingCore) -> None:
    notes = Notes()
    ask(core, 1)
    core.observers.add(notes)
    ask(core, 2, 3)
    core.observers.remove(notes)
    core.observers.remove(notes)
    ask(core, 4)

    assert [(one.num_rows, one.code) for one in notes.requests] == [(2, "OK")]
    (batch,) = notes.batches
    assert (batch.task_rows, batch.execution_rows, batch.is_background) == ((2,), 2, False)
    assert batch.done_s == notes.requests[0].done_s
    assert not core.observers.is_on


def test_an_observer_or_tap_with_a_defect_harms_neither_requests_nor_others(core: ServingCore, caplog) -> None:
    notes, broken = Notes("net"), Broken()
    for one in (broken, notes):
        core.observers.add(one)
        core.taps.attach(one)

    assert [ask(core, number) for number in range(5)] == [[2 * number + 1] for number in range(5)]

    assert (len(notes.requests), len(notes.batches), len(notes.tapped)) == (5, 5, 5)
    assert "an observer failed" in caplog.text
    assert "a tap failed" in caplog.text
    caplog.clear()


def test_a_tap_gets_requests_with_their_tensors_only_while_it_wants_them(core: ServingCore) -> None:
    notes = Notes()
    core.taps.attach(notes)
    ask(core, 1)
    assert not core.taps.is_on

    notes.wanted = "net"
    core.taps.refresh()
    assert core.taps.is_on
    ask(core, 2)
    with pytest.raises(RunRejected):
        ask(core, BAD)
    core.taps.detach(notes)
    ask(core, 3)

    (record, seen), (failed, seen_too) = notes.tapped
    assert (record.code, seen.inputs["x"].tolist(), seen.outputs["y"].tolist()) == ("OK", [[2.0, 2.0]], [[5.0, 5.0]])
    assert (failed.code, seen_too.outputs, seen_too.message) == ("INVALID_ARGUMENT", None, "bad value")
    assert not core.taps.is_on


def test_a_tap_may_want_a_model_before_it_is_served_and_is_asked_no_more_when_it_is_gone(core: ServingCore) -> None:
    notes = Notes("net")
    taps = Taps(lambda: names)
    names: list[str] = []
    taps.attach(notes)
    assert not taps.is_on
    names.append("net")
    taps.refresh()
    assert taps.is_on
    assert (taps.wants("net"), taps.wants("other")) == (True, False)

    core.taps.attach(notes)
    core.undeploy("net")
    assert not core.taps.is_on


def test_samples_are_a_tap_among_others(core: ServingCore) -> None:
    core.sample_requests("net", is_on=True)
    assert core.taps.is_on
    ask(core, 7)
    core.sample_requests("net", is_on=False)

    assert not core.taps.is_on
    (sample,) = core.recent_samples("net").samples
    assert sample.outputs["y"].tolist() == [[15.0, 15.0]]
