"""Engines: the same answers from other runtimes, chosen by comparison and measurement, with TensorFlow behind them."""

from __future__ import annotations

import errno
import json
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from helpers import converting
from helpers.converting import convert_here
from helpers.eventually import eventually

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidOption, InvalidRequest, ServingError
from tfserve_nb.export.warmup_requests import write_warmup_requests
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.engines import accelerated, artefacts, conversion, kinds, litert, selection
from tfserve_nb.serving.engines.artefacts import FOLDER, RECORD_FILE, EngineFolder
from tfserve_nb.serving.engines.onnx import open_session

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def _converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)


pytestmark = pytest.mark.usefixtures("own_folder")


def dense() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3, "relu")])


def servable_of(handle: Deployment) -> Any:
    """What runs the promoted version of a model of this kernel."""
    core: Any = handle._server.models  # noqa: SLF001
    pinned = core.acquire(ModelSpec(handle.name))
    pinned.release()
    return pinned.servable


def newest(handle: Deployment) -> Any:
    return handle.status().versions[0]


def test_the_engine_that_was_asked_for_answers_as_tensorflow_does(caplog: pytest.LogCaptureFixture) -> None:
    model = dense()
    caplog.set_level("INFO", "tfserve_nb")

    handle = tfserve_nb.deploy(model, "dense", engine="onnx", check=X)

    assert handle.engine == "onnx"
    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    status = newest(handle)
    assert {row.engine for row in status.engines} == {"tensorflow", "onnx"}
    assert {row.batch_size for row in status.engines} == {1, 2, 4, 8, 16, 32, 64}
    assert all(row.agrees and row.ms > 0 for row in status.engines)
    assert [row.is_chosen for row in status.engines] == [row.engine == "onnx" for row in status.engines]
    assert any("the rows of --check" in note for note in status.notes)
    assert caplog.text.count("No warmup data file found") == 1
    assert [one.message for one in caplog.records if one.levelname == "WARNING"] == []


@pytest.mark.usefixtures("_converted_here")
def test_auto_measures_every_engine_and_takes_the_fastest_or_says_why_not() -> None:
    handle = tfserve_nb.deploy(dense(), "dense", engine="auto")

    status = newest(handle)
    assert {row.engine for row in status.engines} == {"tensorflow", "onnx", "litert"}
    (chosen,) = {row.engine for row in status.engines if row.is_chosen}
    assert chosen == handle.engine
    assert all(row.reason for row in status.engines if not row.is_chosen)
    assert any("made-up rows" in note for note in status.notes)


@pytest.mark.usefixtures("_converted_here")
def test_a_version_is_loaded_again_without_converting_and_keeps_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    tfserve_nb.deploy(dense(), "dense", engine="onnx")
    tfserve_nb.shutdown()
    monkeypatch.setattr(conversion, "convert", None)
    monkeypatch.setattr(accelerated, "has_tensorflow", lambda: False)

    (handle,) = tfserve_nb.resume()

    assert handle.engine == "onnx"
    assert handle.predict(X).shape == (3, 3)
    assert servable_of(handle)._session is None  # noqa: SLF001 - nothing else tells


@pytest.mark.usefixtures("_converted_here")
def test_an_artefact_that_is_damaged_is_converted_anew(caplog: pytest.LogCaptureFixture) -> None:
    handle = tfserve_nb.deploy(dense(), "dense", engine="onnx")
    folder = handle.base_path / "dense" / "1" / FOLDER
    expected = handle.predict(X)
    tfserve_nb.shutdown()
    (file,) = (folder / "onnx").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    (handle,) = tfserve_nb.resume()

    assert handle.engine == "onnx"
    np.testing.assert_array_equal(handle.predict(X), expected)
    assert "is damaged" in caplog.text


def test_what_could_not_be_converted_is_tried_again_when_engines_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "convert", lambda jobs: ["too little memory"] * len(jobs))
    handle = tfserve_nb.deploy(dense(), "dense", engine="auto")
    assert handle.engine == "tensorflow"
    assert "onnx and litert: too little memory" in newest(handle).notes[-1]
    handle.set_engine("auto")
    assert handle.engine == "tensorflow"

    convert_here(monkeypatch)
    rows = handle.measure_engines()

    assert {row.engine for row in rows if row.agrees} == {"tensorflow", "onnx", "litert"}


@pytest.mark.usefixtures("_converted_here")
def test_without_cuda_a_version_for_a_gpu_says_that_onnx_runtime_uses_the_processor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = tfserve_nb.deploy(dense(), "dense", engine="onnx")
    version = handle.base_path / "dense" / "1"
    (file,) = (version / FOLDER / "onnx").iterdir()

    session = open_session(file, 1, accelerated.EngineServable(version, "/GPU:0").gpu)

    assert session.get_providers() == ["CPUExecutionProvider"]
    assert "runs on the processor: CUDAExecutionProvider is not in this onnxruntime" in caplog.text


@pytest.mark.usefixtures("_converted_here")
def test_a_record_that_is_no_json_or_of_another_graph_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    handle = tfserve_nb.deploy(dense(), "dense", engine="onnx")
    version = handle.base_path / "dense" / "1"
    record = version / FOLDER / RECORD_FILE
    whole = record.read_text()

    record.write_text(whole[:100])
    assert EngineFolder(version).read() is None
    record.write_text(json.dumps({**json.loads(whole), "fingerprint": "x"}))
    assert EngineFolder(version).read() is None
    record.write_text(json.dumps({**json.loads(whole), "format": 99}))
    assert EngineFolder(version).read() is None
    assert caplog.text.count("ignored") == 3


class Text(tf.Module):
    """Texts in capitals."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.strings.upper(x)


class Counter(tf.Module):
    """Adds the number of calls before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        return x + self.calls.assign_add(1.0)


class Counted(tf.Module):
    """A loop as long as a request wants."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
    def __call__(self, x: Any) -> Any:
        total = tf.zeros_like(x)
        while tf.reduce_any(total < x):
            total += 1
        return total


class Inverse(tf.Module):
    """Something that no engine has an operation for."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.linalg.svd(x, compute_uv=False)


@pytest.mark.usefixtures("_converted_here")
@pytest.mark.parametrize(
    ("model", "words"),
    [(Text, "is text"), (Counter, "changes its own state"), (Counted, "loop"), (Inverse, "Svd")],
)
def test_what_no_engine_can_run_stays_with_tensorflow_and_says_why(model: type[tf.Module], words: str) -> None:
    handle = tfserve_nb.deploy(model(), "odd", engine="auto")

    assert handle.engine == "tensorflow"
    assert words in " ".join(newest(handle).notes)
    with pytest.raises(InvalidOption, match=f"engine='onnx' cannot run this model: .*{words}") as error:
        tfserve_nb.deploy(model(), "odd", engine="onnx")
    assert error.value.hint == "--engine auto, or --engine tensorflow"
    assert handle.versions == (1,)


def test_an_engine_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kinds.EngineKind, "missing", property(lambda kind: f"{kind.name} is not installed: {kind.installation}")
    )

    with pytest.raises(InvalidOption, match="onnx is not installed") as error:
        tfserve_nb.deploy(dense(), "dense", engine="onnx")
    handle = tfserve_nb.deploy(dense(), "dense", engine="auto")

    assert error.value.hint == "pip install 'tfserve_nb[onnx]'"
    assert handle.engine == "tensorflow"
    assert "pip install 'tfserve_nb[onnx]'" in newest(handle).notes[0]


def test_an_unknown_engine_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InvalidOption, match="engine='onyx' must be one of tensorflow, auto, onnx, litert"):
        tfserve_nb.deploy(dense(), "dense", engine="onyx")


def test_too_little_memory_and_too_little_time_to_convert_are_said(tmp_path: Path) -> None:
    job = conversion.Job("onnx", str(tmp_path), ("serve",), "serving_default", str(tmp_path / "x.onnx"))

    assert conversion.convert([job], free_bytes=100 << 20) == [
        "converting may take 900 MiB of memory, and 100 MiB are free"
    ]
    assert conversion.convert([job], limit_s=0.0) == ["it took too long to convert"]


class Broken:
    """An engine that runs nothing, or answers what it likes."""

    name, num_threads = "onnx", 2

    def __init__(self, answer: np.ndarray | None = None) -> None:
        self.answer = answer

    def run(self, inputs: Any) -> Any:
        if self.answer is None:
            raise RuntimeError("out of order")
        return {"output_0": np.resize(self.answer, (len(inputs["x"]), 3)).astype(np.float32)}


def test_a_converter_that_is_ended_costs_its_own_job_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the conversions, played by a shell: it dies at the second job, whoever begins with it."""
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        'grep -q "\\"first\\"" "$3" && echo \'""\' >> "$4" && echo words && kill -ABRT $$\n'
        'grep -q "\\"second\\"" "$3" && printf \'"half of a\' >> "$4" && echo why >&2 && exit 3\n'
        'echo \'"no op"\' >> "$4"\n'
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    jobs = [conversion.Job("onnx", str(tmp_path), (), name, "") for name in ("first", "second", "third")]

    assert conversion.convert(jobs) == ["", "the converter was ended by signal 6", "no op"]
    assert conversion.convert(jobs[1:]) == ["the converter ended: why", "no op"]


@pytest.mark.usefixtures("_converted_here")
def test_what_an_engine_fails_on_is_answered_by_tensorflow_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    model = dense()
    handle = tfserve_nb.deploy(model, "dense", engine="onnx")
    servable = servable_of(handle)
    servable.use({"serving_default": Broken()}, servable.measurements)

    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)

    assert handle.engine == "tensorflow"
    assert (
        "no longer by onnx: it failed where TensorFlow answers: RuntimeError: out of order" in newest(handle).notes[-1]
    )
    assert [row.engine for row in newest(handle).engines if row.is_chosen] == ["tensorflow"] * 7
    assert "no longer by onnx" in caplog.text


@pytest.mark.usefixtures("_converted_here")
def test_answers_that_differ_at_work_give_the_signature_back_to_tensorflow(caplog: pytest.LogCaptureFixture) -> None:
    model = dense()
    handle = tfserve_nb.deploy(model, "dense", engine="onnx")
    servable = servable_of(handle)
    servable.use({"serving_default": Broken(np.array([7.0]))}, servable.measurements)

    assert handle.predict(X).tolist() == [[7.0] * 3] * 3
    eventually(lambda: handle.engine == "tensorflow")

    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    assert "output 'output_0' of onnx differs from TensorFlow" in newest(handle).notes[-1]
    assert "no longer by onnx" in caplog.text
    tfserve_nb.shutdown()
    (handle,) = tfserve_nb.resume()  # who has no TensorFlow to compare with must not use it either
    assert handle.engine == "tensorflow"
    assert "output 'output_0' of onnx differs from TensorFlow" in newest(handle).notes[-1]
    assert {row.agrees for row in newest(handle).engines if row.engine == "onnx"} == {False}
    handle.measure_engines()
    assert handle.engine == "onnx"


@pytest.mark.usefixtures("_converted_here")
def test_after_the_first_runs_no_session_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerated, "RUNS_TO_CHECK", 3)
    handle = tfserve_nb.deploy(dense(), "dense", engine="onnx")
    servable = servable_of(handle)
    session = weakref.ref(servable._session._session)  # noqa: SLF001 - nothing else tells
    assert session() is not None

    for _ in range(3):
        handle.predict(X)

    eventually(lambda: session() is None)
    assert servable._session is None  # noqa: SLF001
    assert handle.engine == "onnx"


@pytest.mark.usefixtures("_converted_here")
def test_a_thread_that_must_not_wait_opens_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerated, "RUNS_TO_CHECK", 0)
    model = dense()
    handle = tfserve_nb.deploy(model, "dense", engine="onnx")
    servable = servable_of(handle)
    answer = servable.run_at_once("serving_default", {"x": X})
    servable.use({"serving_default": Broken()}, servable.measurements)

    with pytest.raises(RuntimeError, match="out of order"):
        servable.run_at_once("serving_default", {"x": X})

    assert servable._session is None  # noqa: SLF001 - nothing else tells
    np.testing.assert_allclose(answer["output_0"], model(X), rtol=1e-5, atol=1e-6)


def test_an_engine_is_changed_while_a_version_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)
    model = dense()
    handle = tfserve_nb.deploy(model, "dense")
    assert (handle.engine, newest(handle).engines) == ("tensorflow", ())

    stop = threading.Event()
    failures: list[Exception] = []
    known: dict[str, dict[str, str]] = {}

    def ask() -> None:
        while not stop.is_set():
            try:
                np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
            except Exception as error:  # noqa: BLE001 - the test shows it
                failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for engine in ("onnx", "litert", "tensorflow", "onnx"):
            assert handle.set_engine(engine).engine == engine
            known[engine] = {row.engine: row.reason for row in newest(handle).engines if row.batch_size == 1}
    finally:
        stop.set()
        client.join()

    assert failures == []
    assert known["onnx"]["litert"] == "onnx was asked for"  # what was tried before stays in the table
    assert known["tensorflow"] == {
        "tensorflow": "", "onnx": "tensorflow was asked for", "litert": "tensorflow was asked for",
    }  # fmt: skip
    assert next(event.detail for event in handle.history() if event.action == "engine") == "onnx"
    rows = handle.measure_engines()
    assert {row.engine for row in rows} == {"tensorflow", "onnx", "litert"}
    assert handle.engine == "onnx"
    assert {row.reason for row in rows if row.engine == "litert"} == {"onnx was asked for"}
    tfserve_nb.shutdown()
    (handle,) = tfserve_nb.resume()
    assert handle.engine == "onnx"


class Lookup(tf.Module):
    """A row of a table for each number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable([[1.0], [2.0], [3.0]])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.gather(self.table, x)


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """A version of `Lookup` that ONNX Runtime has run in a server."""
    module = Lookup()
    call: Any = tf.function(lambda x: {"y": module(x)}, input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=call)
    with converting.loaded(tmp_path / "1", "onnx", BatchingOptions()):
        return tmp_path / "1"


def older(record: Any) -> Any:
    return {name: value for name, value in record.items() if name not in ("tags", "options", "decisions")}


def decided(record: Any, **changed: Any) -> Any:
    """The record with other decisions."""
    (decision,) = record["decisions"]["serving_default"]
    return {**record, "decisions": {"serving_default": [{**decision, **changed}]}}


@pytest.mark.parametrize(
    ("change", "opens_tensorflow", "converts"),
    [
        (lambda record: record, False, False),
        (lambda record: decided(record, sizes=[*range(1, 65)], rows=["more than was known"]), False, False),
        (lambda record: decided(record, package="0.0"), True, False),
        (lambda record: decided(record, engine="litert"), True, False),
        (lambda record: decided(record, sizes=[1, 2]), True, False),
        (older, True, True),
        (lambda record: {**record, "tags": ["serve", "gpu"]}, True, True),
        (lambda record: {**record, "options": {"onnx": {"opset": "17"}}}, True, True),
        (lambda record: {**record, "versions": {**record["versions"], "tensorflow": "2.1"}}, True, True),
        (lambda record: {**record, "fingerprint": "x"}, True, True),
        (lambda record: {**record, "decisions": {"serving_default": [{}]}}, True, True),
        (lambda record: json.dumps(record)[:200], True, True),
    ],
    ids=[
        "as-it-was", "more-was-tried", "decided-by-another-version", "decided-for-another-engine",
        "decided-for-other-sizes", "older", "other-tags", "other-opset", "other-tensorflow", "another-graph",
        "decisions-damaged", "cut-off",
    ],
)  # fmt: skip
def test_only_what_was_found_out_for_the_same_needs_no_tensorflow(
    lookup: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Any,
    *,
    opens_tensorflow: bool,
    converts: bool,
) -> None:
    path = lookup / FOLDER / RECORD_FILE
    found = change(json.loads(path.read_text()))
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    used = []
    convert = converting.convert_jobs_here
    monkeypatch.setattr(converting, "convert_jobs_here", lambda jobs: used.append("converter") or convert(jobs))
    kind = accelerated.SavedModelServable
    monkeypatch.setattr(accelerated, "SavedModelServable", lambda *a: used.append("tensorflow") or kind(*a))
    monkeypatch.setattr(accelerated, "has_tensorflow", lambda: False)  # nor has a server that needs none

    with converting.loaded(lookup, "onnx", BatchingOptions()) as servable:
        assert servable.run("serving_default", {"x": np.int32([2, 0])})["y"].tolist() == [[3.0], [1.0]]
        assert servable.engine_of("serving_default") == "onnx"

    assert ("tensorflow" in used, "converter" in used) == (opens_tensorflow, converts)
    used.clear()
    with converting.loaded(lookup, "onnx", BatchingOptions()):
        assert used == []  # it was noted
    assert all("is ignored" in one.message for one in caplog.records if one.levelname == "WARNING")


def test_rows_that_were_not_known_are_tried_with_tensorflow(lookup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    kind = accelerated.SavedModelServable
    monkeypatch.setattr(accelerated, "SavedModelServable", lambda *a: used.append("tensorflow") or kind(*a))
    monkeypatch.setattr(accelerated, "has_tensorflow", lambda: False)
    write_warmup_requests(lookup, "lookup", {"x": np.int32([1, 2, 0])})

    for expected in (["tensorflow"], []):
        with converting.loaded(lookup, "onnx", BatchingOptions()):
            assert used == expected
        used.clear()


@pytest.mark.usefixtures("_converted_here")
@pytest.mark.parametrize("rows", [[0, 7], [0, -1]])
def test_errors_are_those_of_tensorflow(rows: list[int]) -> None:
    handle = tfserve_nb.deploy(Lookup(), "lookup", engine="onnx", check=np.array([0, 1, 2], np.int32))
    tfserve_nb.deploy(Lookup(), "plain", check=np.array([0, 1, 2], np.int32))

    def error(name: str) -> str:
        with pytest.raises(ServingError) as caught:
            tfserve_nb.deployment(name).predict(np.array(rows, np.int32))
        return caught.value.message

    assert error("lookup") == error("plain")
    assert handle.engine == "onnx"


def test_an_isolated_server_runs_what_was_converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)
    model = dense()

    handle = tfserve_nb.deploy(model, "dense", engine="auto", isolate=True)

    assert handle.engine == next(row.engine for row in newest(handle).engines if row.is_chosen)
    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    (child,) = psutil.Process().children()
    assert "/site-packages/tensorflow/" not in Path(f"/proc/{child.pid}/maps").read_text()
    handle.set_engine("tensorflow")
    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    assert "/site-packages/tensorflow/" in Path(f"/proc/{child.pid}/maps").read_text()
    handle.set_engine("litert")
    assert handle.engine == "litert"
    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    assert {row.engine for row in handle.measure_engines()} == {"tensorflow", "onnx", "litert"}
    with pytest.raises(InvalidOption, match="engine='onyx' must be one of"):
        handle.set_engine("onyx")


@pytest.mark.parametrize("home", ["kernel", "isolated", "remote"])
def test_rows_that_were_given_are_compared_for_as_long_as_the_version_is_loaded(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    convert_here(monkeypatch)
    # All engines are converted here: an isolated server would begin a process for those that it measures.
    handle = tfserve_nb.deploy(dense(), "dense", engine="auto", check=X, isolate=home == "isolated")
    handle.set_engine("onnx")
    if home == "remote":
        handle = tfserve_nb.connect(handle.rest_url, handle.token)

    handle.measure_engines()
    assert newest(handle).notes[-1].endswith("with the same outputs on the rows that were given")
    with pytest.raises(InvalidRequest, match="expected float32"):
        handle.measure_engines(rows=np.zeros((2, 5), np.float32))
    with pytest.raises(ServingError, match="7"):
        handle.measure_engines(7, rows=X)
    rows = handle.measure_engines(rows={"x": X[:2]})

    assert {row.agrees for row in rows if row.engine == "onnx"} == {True}
    handle.stage(1)
    handle.set_engine("litert")
    assert newest(handle).notes[-1].endswith("with the same outputs on the rows that were given")


@pytest.mark.usefixtures("_converted_here")
def test_what_was_converted_is_used_where_it_can_no_longer_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tfserve_nb.deploy(dense(), "dense", engine="onnx")
    tfserve_nb.shutdown()
    monkeypatch.setattr(conversion, "convert", lambda jobs: [1 / 0 for _ in jobs])  # none is left
    monkeypatch.setattr(artefacts.os, "access", lambda *_: False)
    monkeypatch.setattr(selection, "this_machine", lambda: "another one")

    (handle,) = tfserve_nb.resume()

    assert handle.engine == "onnx"
    assert handle.predict(X).shape == (3, 3)


def test_where_a_version_cannot_be_written_what_is_converted_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)
    handle = tfserve_nb.deploy(dense(), "dense")
    monkeypatch.setattr(artefacts.os, "access", lambda *_: False)

    handle.set_engine("onnx")

    assert handle.engine == "onnx"
    assert handle.predict(X).shape == (3, 3)
    assert not (handle.base_path / "dense" / "1" / FOLDER / RECORD_FILE).exists()


@pytest.mark.usefixtures("_converted_here")
@pytest.mark.parametrize("file", ["store", "write"])
def test_a_full_disk_keeps_no_version_from_being_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    model = dense()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EngineFolder, file, full)

    handle = tfserve_nb.deploy(model, "dense", engine="auto", check=X)

    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)
    assert ("no place for what is converted: No space left" in newest(handle).notes[-1]) == (file == "store")
    assert {row.agrees for row in newest(handle).engines if row.engine == "onnx"} == {None if file == "store" else True}
    assert ("what was found of engines cannot be noted: No space left" in caplog.text) == (file == "write")


def test_captured_requests_are_compared_before_made_up_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)
    handle = tfserve_nb.deploy(dense(), "dense")
    handle.capture()
    handle.predict(X)

    handle.set_engine("onnx")
    assert newest(handle).notes[-1].endswith("on captured requests")
    tfserve_nb.deploy(dense(), "dense", engine="onnx")
    assert newest(handle).notes[-1].endswith("on captured requests")


def test_a_run_in_litert_needs_an_interpreter_for_each_shape_and_keeps_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)
    model = dense()
    handle = tfserve_nb.deploy(model, "dense", engine="litert")
    (engine,) = servable_of(handle)._answering.values()  # noqa: SLF001 - its pool is nobody else's business
    rows = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)

    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda size: engine.run({"x": rows[:size]})["output_0"], [*range(1, 41)] * 3))

    for size, outputs in zip([*range(1, 41)] * 3, found, strict=True):
        np.testing.assert_allclose(outputs, model(rows[:size]), rtol=1e-5, atol=1e-6)
    assert sum(map(len, engine._engine._idle.values())) == litert.MAX_IDLE  # noqa: SLF001


def test_what_looks_at_all_objects_does_not_take_a_signature_from_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a memory profiler does: LiteRT refuses to run an interpreter that something else refers to."""
    convert_here(monkeypatch)
    model = dense()
    handle = tfserve_nb.deploy(model, "dense", engine="litert")
    (engine,) = servable_of(handle)._answering.values()  # noqa: SLF001 - its pool is nobody else's business
    handle.predict(X)
    held = [one._interpreter for idle in engine._engine._idle.values() for one in idle]  # noqa: SLF001

    np.testing.assert_allclose(handle.predict(X), model(X), rtol=1e-5, atol=1e-6)

    assert held
    assert handle.engine == "litert"


@pytest.mark.parametrize("engine", ["onnx", "auto"])
def test_requests_without_rows_reach_no_engine(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """ONNX Runtime would end the process."""
    convert_here(monkeypatch)
    model = keras.Sequential([keras.Input((5, 3), name="x"), keras.layers.LSTM(4)])
    rows = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)

    handle = tfserve_nb.deploy(model, "lstm", engine=engine, max_batch_size=4)

    assert handle.predict(rows[:0]).shape == (0, 4)
    np.testing.assert_allclose(handle.predict(rows), model(rows), rtol=1e-4, atol=1e-5)
    litert_row = [row for row in newest(handle).engines if row.engine == "litert"]
    assert all("TensorListReserve" in row.reason for row in litert_row)
    assert handle.engine in {"onnx", "tensorflow"} if engine == "auto" else handle.engine == "onnx"
