"""Observers come and go while requests run, and change nothing for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_servable import BAD, FakeLoader, rows

from tfserve_nb.errors import InvalidRequest, RunRejected
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.direct import predict
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.telemetry.capture import CaptureSettings
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import BatchRecord, RequestRecord, RequestTensors, WarmupRecord
from tfserve_nb.serving.versions.source import VersionSource

NET = ModelSpec("net")


class Notes(Observer):
    """Keeps what it gets."""

    def __init__(self, wanted: str = "") -> None:
        self.wanted = wanted
        self.requests: list[tuple[RequestRecord, RequestTensors | None]] = []
        self.batches: list[BatchRecord] = []
        self.resumed: list[str] = []

    def wants_tensors(self, model: str) -> bool:
        return model == self.wanted

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        self.requests.append((record, tensors))

    def on_batch(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def on_resumed(self, model: str) -> None:
        self.resumed.append(model)


class Broken(Observer):
    """Has a defect everywhere."""

    def wants_tensors(self, model: str) -> bool:
        raise ZeroDivisionError

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        raise ZeroDivisionError

    def on_batch(self, record: BatchRecord) -> None:
        raise ZeroDivisionError

    def on_warmup(self, record: WarmupRecord) -> None:
        raise ZeroDivisionError

    def on_resumed(self, model: str) -> None:
        raise ZeroDivisionError


class Silent(Observer):
    """Overrides nothing that requests or batches call."""

    def on_resumed(self, model: str) -> None: ...


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
    core.observers.add(notes)
    ask(core, 2, 3)
    core.observers.remove(notes)
    core.observers.remove(notes)
    ask(core, 4)

    ((record, tensors),) = notes.requests
    assert (record.num_rows, record.code, tensors) == (2, "OK", None)
    (batch,) = notes.batches
    assert (batch.task_rows, batch.execution_rows, batch.is_background) == ((2,), 2, False)
    assert batch.done_s == record.done_s


def test_what_no_observer_overrides_is_not_even_made(core: ServingCore) -> None:
    assert not core.observers.hears_requests
    assert not core.observers.hears_batches
    core.observers.add(Silent())
    assert not core.observers.hears_requests
    assert not core.observers.hears_batches
    notes = Notes()
    core.observers.add(notes)
    assert core.observers.hears_requests
    assert core.observers.hears_batches
    core.observers.remove(notes)
    assert not core.observers.hears_requests
    assert not core.observers.hears_batches


def test_an_observer_with_a_defect_changes_neither_requests_nor_what_others_get(
    core: ServingCore, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    notes = Notes("net")
    for observer in (Broken(), notes):
        core.observers.add(observer)

    assert [ask(core, number) for number in range(5)] == [[2 * number + 1] for number in range(5)]

    assert (len(notes.requests), len(notes.batches)) == (5, 5)
    assert all(tensors is not None for _, tensors in notes.requests)
    with pytest.raises(RunRejected):
        ask(core, BAD)
    core.undeploy("net")
    core.deploy(
        "net", 1, VersionSource(tmp_path / "net" / "1", BatchingOptions(max_batch_size=4)), tmp_path, Placement()
    )
    assert notes.resumed == ["net"]
    assert ask(core, 7) == [15]
    assert "Broken" in caplog.text
    caplog.clear()


def test_an_observer_gets_tensors_only_while_it_wants_them(core: ServingCore) -> None:
    notes = Notes()
    core.observers.add(notes)
    assert not core.observers.wants_tensors("net")
    ask(core, 1)

    notes.wanted = "net"
    assert core.observers.wants_tensors("net")
    assert not core.observers.wants_tensors("other")
    assert core.catalog()["net"].wants_tensors
    ask(core, 2)
    with pytest.raises(RunRejected):
        ask(core, BAD)
    with pytest.raises(InvalidRequest):
        core.predict(NET, "no_such_signature", rows(1), 10)
    core.observers.remove(notes)
    ask(core, 3)

    (_, none), (record, tensors), (failed, inputs_only), (refused, none_either) = notes.requests
    assert none is none_either is None
    assert tensors is not None
    assert tensors.outputs is not None
    assert (record.code, tensors.inputs["x"].tolist(), tensors.outputs["y"].tolist()) == (
        "OK", [[2.0, 2.0]], [[5.0, 5.0]],
    )  # fmt: skip
    assert inputs_only is not None
    assert (failed.code, inputs_only.outputs, inputs_only.message) == ("INVALID_ARGUMENT", None, "bad value")
    assert refused.code == "INVALID_ARGUMENT"
    assert not core.observers.wants_tensors("net")


def test_samples_and_captures_observe_only_while_they_are_on(core: ServingCore) -> None:
    core.sample_requests("net", is_on=True)
    core.capture("net", CaptureSettings())
    assert core.observers.wants_tensors("net")
    ask(core, 7)
    core.sample_requests("net", is_on=False)
    assert core.observers.wants_tensors("net")
    core.capture("net", None)

    assert not core.observers.hears_requests
    (sample,) = core.recent_samples("net").samples
    assert sample.outputs["y"].tolist() == [[15.0, 15.0]]
    (captured,) = core.captured("net")
    assert captured.outputs["y"].tolist() == [[15.0, 15.0]]


def test_a_model_that_is_gone_is_observed_no_more(core: ServingCore) -> None:
    core.sample_requests("net", is_on=True)
    core.undeploy("net")

    assert not core.observers.hears_requests
