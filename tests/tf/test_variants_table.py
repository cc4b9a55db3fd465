"""The table of variants: measured in processes of their own, on real models, with nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from helpers.converting import convert_here, probe_here

import tfserve_nb
from tfserve_nb.api.variants import variants_of_model
from tfserve_nb.errors import FailedPrecondition, InvalidOption
from tfserve_nb.types import ProgressEvent, no_progress
from tfserve_nb.variants.options import VariantOptions
from tfserve_nb.variants.probing import ProbeFailed, Subject, probing

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(100, 16)).astype(np.float32)

pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.timeout(300)]  # each process imports TensorFlow


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    convert_here(monkeypatch)
    yield
    assert [child for child in psutil.Process().children() if "variants.probe" in " ".join(child.cmdline())] == []
    assert list(Path(tempfile.gettempdir()).glob(f"tfserve-variants-{psutil.Process().pid}-*")) == []


def classifier() -> keras.Model:
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(1024, "relu")
    model = keras.Sequential([keras.Input((16,), name="x"), hidden, keras.layers.Dense(4, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def regression() -> keras.Model:
    """Eight bits are too few for numbers that are compared within a thousandth."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,), name="x"), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mean_squared_error")
    return model


def test_variants_of_a_model_in_memory_by_engine_with_labels() -> None:
    model, steps = classifier(), list[ProgressEvent]()
    before = [weight.copy() for weight in model.get_weights()]
    labels = model.predict(X, verbose=0).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 4
    options = VariantOptions(check=X, labels=labels, optimize="int8", engine="onnx")

    found = variants_of_model(model, "model", options, steps.append)

    assert [(row.variant, row.engine) for row in found] == [
        ("float32", "tensorflow"), ("float32", "onnx"), ("int8", "tensorflow"), ("int8", "onnx"),
    ]  # fmt: skip
    for row in found:
        assert row.is_usable, row.reason
        assert set(row.ms) == {1, 32}
        assert min(row.ms.values()) > 0
        assert row.load_s is not None
        assert row.memory_bytes is not None
        assert row.memory_bytes < 200 << 20  # what the version takes, and not what TensorFlow does
        assert row.agreement is not None
        assert row.agreement >= 0.99
        assert row.accuracy == pytest.approx(0.9, abs=0.011)
        assert row.in_tensorflow_serving == (row.engine == "tensorflow")
    plain, onnx, int8, _ = found
    assert plain.agreement == 1.0
    assert plain.largest_difference is not None
    assert plain.largest_difference < 1e-5
    assert int8.largest_difference is not None
    assert int8.largest_difference > plain.largest_difference
    assert int8.disk_bytes < plain.disk_bytes < onnx.disk_bytes
    assert found.chosen is not None
    assert found.num_rows == 100
    assert found.compared_with == "the model in memory"
    assert {step.phase for step in steps} == {"exporting", "optimizing", "measuring", "done"}
    assert [step.detail for step in steps if step.phase == "measuring"] == ["float32", "float32", "int8", ""]
    for kept, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)


def test_variants_of_a_served_version_leave_it_alone_and_know_no_agreement_without_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe_here(monkeypatch)
    handle = tfserve_nb.deploy(classifier(), "served")
    assert handle.base_path is not None
    folder = handle.base_path / "served"
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    predicted = handle.predict(X)

    found = handle.variants(optimize="float16", engine="tensorflow")

    assert [row.variant for row in found] == ["float32", "float16"]
    assert {row.agreement for row in found} == {None}
    assert {row.accuracy for row in found} == {None}
    assert found[0].is_chosen  # it cannot be known whether float16 predicts the same
    assert found.num_rows == 0
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before
    np.testing.assert_array_equal(handle.predict(X), predicted)
    assert handle.versions == (1,)


def test_a_variant_that_predicts_otherwise_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    probe_here(monkeypatch)
    options = VariantOptions(check=X, optimize="int8", engine="tensorflow")

    found = variants_of_model(regression(), "model", options, no_progress)

    plain, int8 = found
    assert plain.is_chosen
    assert not int8.is_usable
    assert "rows disagree" in int8.reason
    assert int8.ms


class Counter(tf.Module):
    """Adds the number of calls before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        return x + self.calls.assign_add(1.0)


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        (Counter, {}, FailedPrecondition, "changes its own state"),
        (classifier, {"check": X[:, :3]}, InvalidOption, "check: "),
        (classifier, {"check": X, "labels": [1, 2]}, InvalidOption, "labels has the shape .*100 rows"),
    ],
)
def test_what_cannot_be_measured_is_an_error_that_says_why(
    model: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    wanted = VariantOptions(**options, optimize="float16", engine="tensorflow")

    with pytest.raises(error, match=words):
        variants_of_model(model(), "model", wanted, no_progress)


def test_an_interrupt_leaves_nothing() -> None:
    seen: list[str] = []

    def interrupt(event: ProgressEvent) -> None:
        seen.append(event.phase)
        if seen.count("measuring") == 2:  # the process is there, and imports TensorFlow
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        variants_of_model(classifier(), "model", VariantOptions(optimize="float16", engine="tensorflow"), interrupt)


def test_a_process_that_dies_is_a_reason(tmp_path: Path) -> None:
    handle = tfserve_nb.deploy(classifier(), "served", engine="onnx")  # which a process needs no TensorFlow for
    assert handle.base_path is not None
    subject = Subject(handle.base_path / "served" / "1", "onnx", "serving_default", {1: {"x": X[:1]}})

    with probing("onnx") as probe, pytest.raises(ProbeFailed, match="does not appear to contain a SavedModel"):
        probe.load(replace(subject, path=tmp_path))
    with probing("onnx") as probe:
        probe.load(subject)
        assert len(probe.turn(1)) > 1
        (child,) = (one for one in psutil.Process().children() if "variants.probe" in " ".join(one.cmdline()))
        child.kill()
        with pytest.raises(ProbeFailed, match="ended by signal 9"):
            probe.turn(1)
