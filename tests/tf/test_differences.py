"""What two versions are found to differ in."""

from __future__ import annotations

import math
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.diff.result import VersionDiff
from tfserve_nb.errors import InvalidRequest, LabelNotFound, VersionNotFound
from tfserve_nb.export.provenance.code import Code
from tfserve_nb.export.provenance.provenance import PROVENANCE_FILE
from tfserve_nb.export.weights import Weights
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.text import to_text

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

layers = keras.layers


pytestmark = pytest.mark.usefixtures("own_folder")


def make(width: int = 3, *, scale: float = 1.0, extra: bool = False, features: int = 4) -> Any:
    """A model whose weights are all known; like a cell that is run again, with new names made up by Keras."""
    more = [layers.Dense(width, kernel_initializer="ones")] if extra else []
    model = keras.Sequential(
        [keras.Input((features,), name="x"), layers.Dense(width, kernel_initializer="ones", name="body"), *more,
         layers.Dropout(0.5), layers.Dense(2, kernel_initializer="ones")]
    )  # fmt: skip
    model.layers[-1].kernel.assign(model.layers[-1].kernel * scale)
    return model


def diff_of(first: Any, second: Any, rows: Any = None, **options: Any) -> VersionDiff:
    """Deploy two models as versions 1 and 2, and compare them."""
    handle = tfserve_nb.deploy(first, "net", **options)
    tfserve_nb.deploy(second, "net", **options)
    return handle.diff(1, 2, rows)


def changes(diff: VersionDiff) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.class_name, one.change, one.params_a, one.params_b) for one in diff.layers]


def test_the_same_model_deployed_twice_does_not_differ() -> None:
    model = make()

    diff = diff_of(model, model, np.ones((5, 4), np.float32))

    assert {one.change for one in diff.layers} == {one.change for one in diff.signatures} == {"same"}
    # None without a script, empty when the program that runs the tests is one.
    assert (diff.code or None, diff.packages, diff.notes) == (None, {}, ())
    found = diff.agreement["output_0"]
    assert (found.num_rows, found.num_same, found.largest_difference) == (5, 5, 0.0)


def test_layers_are_matched_although_keras_names_them_anew_in_each_run() -> None:
    diff = diff_of(make(), make(scale=1.1))

    assert [one.change for one in diff.layers] == ["same", "same", "changed"]
    assert diff.layers[2].weight_change == pytest.approx(0.1)
    assert diff.params_a == diff.params_b == 4 * 3 + 3 + 3 * 2 + 2


def test_the_relative_change_is_over_all_weights_of_the_layer() -> None:
    model = make()
    first = model.get_weights()
    handle = tfserve_nb.deploy(model, "net")
    model.set_weights([weight + 0.5 for weight in first])
    tfserve_nb.deploy(model, "net")

    diff = handle.diff(1, 2)

    # Kernel of ones (4 × 3) and bias of zeros (3): all 15 numbers moved by 0.5.
    assert diff.layers[0].weight_change == pytest.approx(0.5 * math.sqrt(15) / math.sqrt(12))


def test_weights_that_were_zero_moved_from_zero() -> None:
    diff = diff_of(make(scale=0.0), make())

    assert diff.layers[-1].weight_change == math.inf
    assert "from zero" in str(diff)


def test_added_removed_and_wider_layers_are_told() -> None:
    wider = diff_of(make(), make(width=5, extra=True))

    assert changes(wider) == [
        ("Dense", "changed", 15, 25),
        ("Dense", "added", None, 30),
        ("Dropout", "same", 0, 0),
        ("Dense", "changed", 8, 12),
    ]
    assert wider.layers[0].note == "shapes 4×3, 3 → 4×5, 5"
    narrower = tfserve_nb.deploy(make(), "net").diff(2, 3)
    assert ("Dense", "removed", 30, None) in changes(narrower)


def test_signatures_tell_what_their_tensors_were_and_are() -> None:
    inputs = keras.Input((4,), name="x")
    two = keras.Model(inputs, {"label": layers.Dense(2)(inputs), "risk": layers.Dense(1)(inputs)})
    diff = diff_of(make(features=6), two, np.ones((2, 6)))

    (found,) = diff.signatures
    assert found.change == "changed"
    assert found.details == (
        "input x: float32[?, 6] → float32[?, 4]",
        "output output_0: float32[?, 2] → none",
        "output label: none → float32[?, 2]",
        "output risk: none → float32[?, 1]",
    )
    assert not diff.agreement
    assert diff.rows_from == ""
    assert "do not fit version 2" in diff.notes[-1]


def test_code_metrics_seed_and_data_are_compared(rng: np.random.Generator) -> None:
    x = rng.standard_normal((10, 4))
    handle = tfserve_nb.deploy(
        make(), "net", data=x, seed=1, metrics={"acc": 0.8, "old": 1},
        code=Code("model = make()\nmodel.fit(x, epochs=2)", execution_count=3),
    )  # fmt: skip
    tfserve_nb.deploy(
        make(), "net", data=x + 1, seed=2, metrics={"acc": 0.9},
        code=Code("model = make()\nmodel.fit(x, epochs=5)", execution_count=7),
    )  # fmt: skip

    diff = handle.diff(1, 2)
    shown = str(diff)

    assert diff.code is not None
    assert diff.code.splitlines() == [
        "--- version 1, cell [3]",
        "+++ version 2, cell [7]",
        "@@ -1,2 +1,2 @@",
        " model = make()",
        "-model.fit(x, epochs=2)",
        "+model.fit(x, epochs=5)",
    ]
    assert diff.metrics == {"acc": (0.8, 0.9), "old": (1.0, None)}
    assert re.search(r"acc +0.8 +0.9 +\+12.5 %", shown)
    assert re.search(r"seed +1 +2", shown)
    assert diff.provenance_a is not None
    assert diff.provenance_b is not None
    assert diff.provenance_a.data != diff.provenance_b.data


def test_packages_that_differ_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tfserve_nb.deploy(make(), "net")
    file = folder_of(handle, 1) / PROVENANCE_FILE
    file.write_text(file.read_text().replace(f'"{keras.__version__}"', '"3.0.0"'))
    tfserve_nb.deploy(make(), "net")

    assert handle.diff(1, 2).packages == {"keras": ("3.0.0", keras.__version__)}


def test_rows_that_are_stored_for_warming_up_are_compared_by_themselves() -> None:
    diff = diff_of(make(), make(scale=2.0), warmup=np.ones((3, 4), np.float32))

    assert (diff.rows_from, diff.agreement.num_rows) == ("stored warm-up rows", 3)
    assert diff.agreement["output_0"].largest_difference == pytest.approx(12.0)


def test_flipped_classes_are_counted(rng: np.random.Generator) -> None:
    model = make()
    rows = rng.standard_normal((200, 4)).astype(np.float32)
    model.layers[-1].set_weights([np.array([[1, -1]] * 3, np.float32), np.zeros(2, np.float32)])
    handle = tfserve_nb.deploy(model, "net")
    model.layers[-1].set_weights([np.array([[-1, 1]] * 3, np.float32), np.zeros(2, np.float32)])
    tfserve_nb.deploy(model, "net")

    found = handle.diff(1, 2, rows, kind="classification").agreement["output_0"]

    assert (found.kind, found.num_rows, found.num_same) == ("scores", 200, 0)


@pytest.mark.parametrize("widths", [(1,), (3,), (1, 3)], ids=["one column", "three columns", "two outputs"])
def test_outputs_of_every_shape_are_compared_column_by_column(
    widths: tuple[int, ...], rng: np.random.Generator
) -> None:
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, {f"y{width}": layers.Dense(width, name=f"y{width}")(inputs) for width in widths})
    *others, last = (f"y{width}" for width in widths)
    handle = tfserve_nb.deploy(model, "net")
    bias = model.get_layer(last).bias
    bias.assign([0.0] * (widths[-1] - 1) + [2.0])  # the last column only
    tfserve_nb.deploy(model, "net")

    found = handle.diff(1, 2, rng.normal(size=(7, 4)).astype(np.float32)).agreement

    assert set(found) == {*others, last}
    for name in others:
        assert (found[name].num_rows, found[name].num_same, found[name].largest_difference) == (7, 7, 0.0)
    assert (found[last].num_rows, found[last].num_same) == (7, 0)
    assert found[last].largest_difference == pytest.approx(2.0)


def test_rows_that_fit_no_version_are_refused() -> None:
    handle = tfserve_nb.deploy(make(), "net")
    tfserve_nb.deploy(make(), "net")

    with pytest.raises(InvalidRequest, match="shape"):
        handle.diff(1, 2, np.ones((2, 9)))
    with pytest.raises(InvalidRequest, match="no rows"):
        handle.diff(1, 2, np.ones((0, 4)))


def test_plain_saved_models_are_compared_by_their_variables() -> None:
    class Plain(tf.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.w = tf.Variable(np.full((2, 2), factor, np.float32), name="dense/kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": x @ self.w}

    for factor in (1.0, 1.5):
        module = Plain(factor)
        tf.saved_model.save(module, f"plain{factor}", signatures=module.serve)
    diff = diff_of("plain1.0", "plain1.5", np.ones((2, 2)), provenance=False)

    assert [(one.name, one.change, one.weight_change) for one in diff.layers] == [("dense", "changed", 0.5)]
    assert diff.code is None
    assert [note.partition(" commit")[0] for note in diff.notes] == [
        "version 1 has no provenance: its code,",
        "version 2 has no provenance: its code,",
    ]
    assert diff.agreement["y"].largest_difference == 1.0


def test_one_version_without_provenance_is_compared_by_variables_too() -> None:
    handle = tfserve_nb.deploy(make(), "net", provenance=False)
    tfserve_nb.deploy(make(scale=2.0), "net")

    diff = handle.diff(1, 2)

    assert [(one.change, one.params_a, one.params_b) for one in diff.layers] == [("same", 15, 15), ("changed", 8, 8)]
    assert diff.layers[1].weight_change == pytest.approx(1.0)


def test_a_damaged_provenance_is_a_remark_and_the_rest_is_compared() -> None:
    handle = tfserve_nb.deploy(make(), "net")
    tfserve_nb.deploy(make(scale=2.0), "net")
    (folder_of(handle, 1) / PROVENANCE_FILE).write_text("{")

    diff = handle.diff(1, 2)

    assert "is damaged" in diff.notes[0]
    assert [one.change for one in diff.layers] == ["same", "changed"]


def test_labels_name_versions_and_what_is_not_there_is_named() -> None:
    handle = tfserve_nb.deploy(make(), "net", label="stable")
    tfserve_nb.deploy(make(), "net", label="canary")

    assert (handle.diff("stable", "canary").a, handle.diff("stable", 2).b) == (1, 2)
    with pytest.raises(VersionNotFound, match="version 9") as caught:
        handle.diff(1, 9)
    assert caught.value.hint == "on disk: 1, 2"
    with pytest.raises(LabelNotFound, match="nobody"):
        handle.diff("nobody", 1)


def test_latencies_of_live_traffic_are_compared() -> None:
    handle = tfserve_nb.deploy(make(), "net")
    tfserve_nb.deploy(make(), "net")
    for version in (1, 2):
        for _ in range(20):
            handle.predict(np.ones((1, 4)), version=version)

    before = handle.metrics(900).total
    found = {one.what: (one.a_ms, one.b_ms) for one in handle.diff(1, 2, np.ones((3, 4))).latency}

    assert {"a run of 1 rows", "p50 of requests"} <= set(found)
    assert all(value is not None and value > 0 for value in found["p50 of requests"])
    assert handle.metrics(900).total == before  # the comparison itself is no traffic


def test_weights_are_read_one_variable_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    handle = tfserve_nb.deploy(model, "net")
    tfserve_nb.deploy(model, "net")
    asked: list[str] = []
    read = Weights.read
    monkeypatch.setattr(Weights, "read", lambda self, key: (asked.append(key), read(self, key))[1])

    handle.diff(1, 2)

    assert len(asked) == 2 * 4
    assert asked[0::2] == asked[1::2]  # each with its counterpart, none kept for later


def test_a_model_without_variables_has_no_layers() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def twice(x: Any) -> Any:
        return 2 * x

    diff = diff_of(twice, twice)

    assert diff.layers == ()


class _Text(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_escapes_what_users_wrote_and_says_the_same_as_the_text() -> None:
    handle = tfserve_nb.deploy(make(), "net", code=Code("x = '<script>alert(1)</script>'"), metrics={"<b>": 1})
    tfserve_nb.deploy(make(scale=2.0), "net", code=Code("x = '<img src=a>'"), metrics={"<b>": 2})
    diff = handle.diff(1, 2)

    parser = _Text()
    parser.feed(to_html(diff.report))

    assert not parser.tags & {"script", "img"}
    assert "+x = '<img src=a>'" in parser.text
    assert "<b>" in parser.text
    assert str(diff) == repr(diff) == to_text(diff.report)


def test_subclassed_models_are_matched_by_their_layers() -> None:
    class Own(keras.Model):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.first = layers.Dense(3, kernel_initializer="ones")
            self.second = layers.Dense(3, kernel_initializer=keras.initializers.Constant(factor))

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    def built(factor: float) -> Any:
        model = Own(factor)
        model(np.ones((1, 2), np.float32))
        return model

    diff = diff_of(built(1.0), built(3.0), check=np.ones((1, 2), np.float32))

    assert [(one.change, one.weight_change) for one in diff.layers] == [("same", None), ("changed", pytest.approx(2.0))]


def test_versions_of_other_folders_can_be_copied_in(tmp_path: Path) -> None:
    handle = tfserve_nb.deploy(make(), "net")
    shutil.copytree(folder_of(handle, 1), folder_of(handle, 1).parent / "5")

    assert {one.change for one in handle.diff(1, 5).layers} == {"same"}


def folder_of(handle: Deployment, version: int) -> Path:
    assert handle.base_path is not None
    return handle.base_path / handle.name / str(version)
