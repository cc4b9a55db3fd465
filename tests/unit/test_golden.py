"""What version 0.1 wrote is still read, and what a newer version wrote is refused; see tests/golden/README.md."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.api.benchmark import stored_runs
from tfserve_nb.bench.result import load_result
from tfserve_nb.errors import FailedPrecondition, InvalidOption, ServingError
from tfserve_nb.experiment.engine.running import Running
from tfserve_nb.experiment.state import ExperimentState
from tfserve_nb.export.provenance.provenance import read_provenance
from tfserve_nb.serialization import from_json
from tfserve_nb.serving.models.model import read_stored_model
from tfserve_nb.serving.models.state_store import FILE_NAME, StateStore
from tfserve_nb.serving.telemetry.capture import CapturedRequests, CaptureSettings, load_captured
from tfserve_nb.serving.telemetry.model_metrics import ModelMetrics
from tfserve_nb.serving.telemetry.request_samples import Samples
from tfserve_nb.serving.telemetry.resources import Resources
from tfserve_nb.types import HistoryEvent, ModelStatus, VersionState

GOLDEN = Path(__file__).parents[1] / "golden" / "v0.1"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the state file and versions 1 and 2 of `net`; its version 3 came since."""
    shutil.copy(GOLDEN / "models" / FILE_NAME, tmp_path)
    for version in (1, 2, 3):
        (tmp_path / "net" / str(version)).mkdir(parents=True)
        (tmp_path / "net" / str(version) / "saved_model.pb").touch()
    return tmp_path


@pytest.fixture
def answers() -> Any:
    return json.loads((GOLDEN / "admin.json").read_text())


def test_how_models_were_served(models: Path) -> None:
    states = StateStore(models).load()
    net, plain = (read_stored_model(name, models, states[name]) for name in ("net", "plain"))

    assert net.routing.traffic == {1: 50.0, 2: 50.0}
    assert net.routing.arms == {1: "a", 2: "b"}
    assert net.routing.shadow == (2, 50)
    assert net.routing.labels == {"stable": 1}
    assert net.routing.promoted == (1,)
    assert (net.routing.name, net.keep) == ("net", 2)
    assert net.versions[1].options.max_batch_size == 8
    assert net.versions[1].path == models / "net" / "1"
    assert net.versions[3].options.max_batch_size == 64
    assert (plain.routing.labels, plain.versions) == ({"stable": 3}, {})


def test_the_history(models: Path) -> None:
    events = StateStore(models).history("net")

    assert events[-1].action == "deploy"
    assert {"experiment", "label", "deploy", "benchmark", "replay"} <= {one.action for one in events}


def test_benchmarks_of_the_history_and_of_a_file(models: Path) -> None:
    first, second = stored_runs(models).values()
    saved = load_result(GOLDEN / "benchmark.npz")

    assert first.summary == saved.summary
    assert (first.load, first.curve.shape) == (saved.load, saved.curve.shape)
    assert saved.samples is not None
    assert len(saved.samples) == 120
    assert second.summary.percentiles == ()
    assert (second.summary.mean_ms, second.summary.num_ok) == (pytest.approx(500), 1)
    assert np.isnan(second.timeline.p99_ms).all()


def test_replays_are_kept_as_they_were(models: Path) -> None:
    with closing(sqlite3.connect(models / FILE_NAME)) as connection:
        (text,) = connection.execute("SELECT result FROM replays").fetchone()
    value = json.loads(text)

    assert value["agreement"]["flips"] == [[1, 2, 3]]
    assert value["decision"] == "rollback"


def test_where_an_experiment_stood(models: Path) -> None:
    found = StateStore(models).latest_experiment("net")
    assert found is not None
    state = from_json(found[1]["state"], ExperimentState)

    assert (state.phase, state.plan.a, state.plan.b, state.plan.margin) == ("running", 1, 2, 0.0002)
    assert state.plan.limits.output_range == (-math.inf, 10.0)
    assert sum(state.reading.samples.values()) == 230
    assert state.reading.agreement is not None
    assert state.moments[0].num_requests <= state.moments[-1].num_requests
    assert state.latencies is not None
    assert sum(map(sum, state.latencies.values())) > 100


def test_a_running_experiment_goes_on(models: Path) -> None:
    found = StateStore(models).latest_experiment("net")
    assert found is not None
    state = from_json(found[1]["state"], ExperimentState)

    running = Running.from_json(state, found[1]["running"], lambda: 1000.0)

    assert 1.0 < running.elapsed_s < 60.0
    assert dict(running.reading.samples) == dict(state.reading.samples)
    now, then = running.reading.latency, state.reading.latency
    assert now is not None
    assert then is not None
    assert now.value == pytest.approx(then.value)
    assert now.low <= then.low <= then.high <= now.high  # 0.1 took the batches of a busy moment for independent
    assert (running.phase, len(running.moments)) == ("running", len(state.moments))


def test_provenance() -> None:
    told = read_provenance(GOLDEN / "1")

    assert told is not None
    assert told.metrics["loss"] == math.inf
    assert math.isnan(told.metrics["nan"])
    assert told.metrics["acc"] == 0.5
    assert told.layers[0].norm == math.inf
    assert told.layers[0].variables[0].shape == (2, 3)
    assert told.layers[1].norm is None
    assert (told.code and told.code.execution_count, told.data and told.data.shape) == (3, (3, 2))


def test_captured_requests() -> None:
    captured, texts = (load_captured(GOLDEN / name) for name in ("captured.parquet", "captured_text.parquet"))

    assert len(captured) == 5
    assert [one.inputs["x"].tolist() for one in captured] == [[[0.0, 0.0]]] * 5
    assert texts[0].inputs["t"].tolist() == [b"a", b"\xff"]
    assert texts[0].outputs["y"].dtype == np.float16


def test_answers_of_the_admin_api(answers: Any) -> None:
    status = from_json(answers["status"], ModelStatus)
    metrics = from_json({**answers["metrics"], "versions": {}}, ModelMetrics)
    samples = from_json(answers["samples"], Samples)
    captured = from_json(answers["capture"], CapturedRequests)
    resources = from_json(answers["resources"], Resources)

    assert (status.used, status.highest_version, status.base_path) == ((1, 2), 2, Path("/models"))
    assert {one.state for one in status.versions} == {VersionState.AVAILABLE}
    assert (metrics.total, metrics.age_s[-1]) == (230, 0.0)
    assert samples.is_on
    assert samples.samples[0].inputs["x"].tolist() == [[3.0, 1.0]]
    assert captured.settings == CaptureSettings(max_requests=5, redact=("x",))
    assert resources.children == (0, 0.0, 0)
    assert from_json(answers["history"]["events"], list[HistoryEvent])[0].action == "experiment"
    assert from_json(answers["experiment"]["experiment"], ExperimentState).plan.name == "net"
    assert len(from_json(answers["disagreements"]["disagreements"], list[Disagreement])) <= 2


def test_a_state_file_of_a_newer_version_is_refused_and_left_alone(models: Path) -> None:
    with closing(sqlite3.connect(models / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (models / FILE_NAME).read_bytes()
    store = StateStore(models)

    for use in (store.load, lambda: store.history("net"), store.benchmarks, lambda: store.save("net", {})):
        with pytest.raises(ServingError, match="has the format 99, and this version of tfserve_nb reads") as caught:
            use()
        assert "upgrade" in caught.value.hint
    assert (models / FILE_NAME).read_bytes() == before


def test_a_state_that_is_damaged_is_refused_by_name(models: Path) -> None:
    state = StateStore(models).load()["net"]
    for damage in ({"keep": None}, {"routing": {"traffic": {"x": 1}}}, {"versions": {"1": {}}}):
        with pytest.raises(ServingError, match="the stored state of model 'net' in .* cannot be read"):
            read_stored_model("net", models, {**state, **damage})


def test_a_benchmark_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with np.load(GOLDEN / "benchmark.npz") as file:
        value = json.loads(str(file["result"]))
    np.savez_compressed(tmp_path / "new.npz", result=np.array(json.dumps({**value, "format": 7})))
    with pytest.raises(ServingError, match="new.npz has the format 7"):
        load_result(tmp_path / "new.npz")
    np.savez_compressed(tmp_path / "bad.npz", result=np.array(json.dumps({**value, "summary": {}})))
    with pytest.raises(InvalidOption, match="bad.npz is no saved benchmark"):
        load_result(tmp_path / "bad.npz")


def test_provenance_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "1", tmp_path / "1")
    path = tmp_path / "1" / "assets.extra" / "tfserve_nb.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 8'))
    with pytest.raises(FailedPrecondition, match="format 8 was written by a newer tfserve_nb"):
        read_provenance(tmp_path / "1")
