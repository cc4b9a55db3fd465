"""What each version remembers of where it comes from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import FailedPrecondition, InvalidOption, VersionNotFound
from tfserve_nb.export.provenance.code import Code
from tfserve_nb.export.provenance.provenance import PROVENANCE_FILE, read_provenance
from tfserve_nb.export.weights import Weights
from tfserve_nb.types import ProgressEvent

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

layers = keras.layers


pytestmark = pytest.mark.usefixtures("own_folder")


def make() -> Any:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="first"), layers.BatchNormalization()], name="in")
    return keras.Sequential([keras.Input((4,), name="x"), inner, layers.Dropout(0.5), layers.Dense(2)], name="net")


def folder_of(handle: Deployment, version: int) -> Path:
    assert handle.base_path is not None
    return handle.base_path / handle.name / str(version)


def test_a_version_knows_code_data_seed_metrics_and_packages(rng: np.random.Generator) -> None:
    model, x = make(), rng.standard_normal((20, 4)).astype(np.float32)

    handle = tfserve_nb.deploy(
        model, data=x, seed=np.int64(42), metrics={"val_loss": np.float32(0.5)},
        code=Code("fit(token='hunter2')", cell_id="abc", execution_count=3),
    )  # fmt: skip
    found = handle.provenance(1)

    assert found.code == Code("fit(token='[redacted]')", cell_id="abc", execution_count=3, num_redacted=1)
    assert (found.seed, found.metrics, found.model) == (42, {"val_loss": 0.5}, "Sequential 'net'")
    assert found.data is not None
    assert (found.data.kind, found.data.dtype, found.data.shape) == ("ndarray", "float32", (20, 4))
    assert found.packages["keras"] == keras.__version__
    assert found.packages["numpy"] == np.__version__
    assert found.packages["tensorflow"] == tf.__version__
    assert found.packages["tfserve_nb"] == tfserve_nb.__version__
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert "hunter2" not in (folder_of(handle, 1) / PROVENANCE_FILE).read_text()


def test_layers_are_those_of_the_model_with_their_place_in_the_file() -> None:
    model = make()
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)

    handle = tfserve_nb.deploy(model)
    found = handle.provenance(1)
    weights = Weights(folder_of(handle, 1))

    assert [(one.name, one.class_name, one.is_named, one.num_params) for one in found.layers] == [
        ("in/first", "Dense", True, 15),
        (f"in/{model.layers[0].layers[1].name}", "BatchNormalization", False, 12),
        (model.layers[1].name, "Dropout", False, 0),
        (model.layers[2].name, "Dense", False, 8),
    ]
    assert found.num_params == model.count_params() == sum(one.num_values for one in weights.model_variables)
    for facts, layer in zip(found.layers, [*model.layers[0].layers, *model.layers[1:]], strict=True):
        for variable, weight in zip(facts.variables, layer.weights, strict=True):
            np.testing.assert_array_equal(weights.read(variable.key), weight.numpy())
        squares = sum(float((weight.numpy().astype(np.float64) ** 2).sum()) for weight in layer.weights)
        assert facts.norm == (pytest.approx(squares**0.5) if layer.weights else None)


def test_the_last_epoch_and_the_seed_of_keras_are_found_by_themselves() -> None:
    keras.utils.set_random_seed(123)
    model = make()
    model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=2, verbose=0)

    found = tfserve_nb.deploy(model).provenance(1)

    assert found.seed == 123
    assert found.metrics == {"loss": pytest.approx(history.history["loss"][-1])}


def test_equal_weights_have_equal_checksums_and_others_do_not() -> None:
    model = make()
    handle = tfserve_nb.deploy(model)
    tfserve_nb.deploy(model)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + 1])
    tfserve_nb.deploy(model)

    one, two, three = ([layer.checksum for layer in handle.provenance(number).layers] for number in (1, 2, 3))

    assert one == two
    assert [a == b for a, b in zip(one, three, strict=True)] == [True, True, True, False]


def test_without_provenance_there_is_no_file_not_even_that_of_the_copied_version() -> None:
    handle = tfserve_nb.deploy(make(), code=Code("secret"))
    tfserve_nb.deploy(folder_of(handle, 1), "net", provenance=False)
    tfserve_nb.deploy(make(), "net", provenance=False)

    assert (folder_of(handle, 1) / PROVENANCE_FILE).is_file()
    for version in (2, 3):
        assert not (folder_of(handle, version) / PROVENANCE_FILE).exists()
        assert not (folder_of(handle, version) / PROVENANCE_FILE.parent).exists()
        with pytest.raises(FailedPrecondition, match=f"version {version} of net has no provenance") as caught:
            handle.provenance(version)
        assert "--no-provenance" in caught.value.hint


def test_a_copied_version_keeps_the_layers_and_gets_its_own_story() -> None:
    handle = tfserve_nb.deploy(make(), code=Code("train()"))
    tfserve_nb.deploy(folder_of(handle, 1), "net", code=Code("copy()"))

    first, second = handle.provenance(1), handle.provenance(2)

    assert second.layers == first.layers
    assert second.code == Code("copy()")


def test_functions_and_modules_have_provenance_without_layers() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def twice(x: Any) -> Any:
        return 2 * x

    found = tfserve_nb.deploy(twice, "twice").provenance(1)

    assert found.layers == ()
    assert found.num_params == 0


def test_tensorflow_reads_the_folder_as_before_and_the_warm_up_file_stays() -> None:
    x = np.ones((2, 4), np.float32)
    model = make()
    handle = tfserve_nb.deploy(model, warmup=x)
    folder = folder_of(handle, 1)

    loaded = tf.saved_model.load(str(folder))

    assert {path.name for path in (folder / "assets.extra").iterdir()} == {
        "tf_serving_warmup_requests",
        "tfserve_nb.json",
    }
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](x=tf.constant(x))["output_0"], model(x, training=False), rtol=1e-5
    )


def test_an_isolated_model_has_the_same_provenance() -> None:
    handle = tfserve_nb.deploy(make(), isolate=True, code=Code("train()"), seed=1)

    found = handle.provenance(1)

    assert (found.code, found.seed, len(found.layers)) == (Code("train()"), 1, 4)


def test_a_damaged_file_serves_and_is_named() -> None:
    handle = tfserve_nb.deploy(make())
    file = folder_of(handle, 1) / PROVENANCE_FILE
    good = json.loads(file.read_text())
    tfserve_nb.shutdown()

    for text, complaint in (
        ("{", "is damaged: Expecting property name"),
        ("[]", "is damaged: TypeError"),
        (json.dumps({**good, "layers": 3}), "is damaged: TypeError"),
        (json.dumps({**good, "at": "soon"}), "is damaged: ValueError"),
        (json.dumps({**good, "format": 99}), "newer tfserve_nb"),
        ("[" * 100_000, "is damaged"),
        ("\x00\xff", "is damaged"),
    ):
        file.write_text(text, encoding="latin-1")
        (resumed,) = tfserve_nb.resume()
        assert resumed.predict([[1.0, 2, 3, 4]]).shape == (1, 2)
        with pytest.raises(FailedPrecondition, match=complaint) as caught:
            resumed.provenance(1)
        assert str(file) in str(caught.value)
        tfserve_nb.shutdown()


def test_what_a_later_format_adds_is_ignored() -> None:
    handle = tfserve_nb.deploy(make())
    file = folder_of(handle, 1) / PROVENANCE_FILE
    value = json.loads(file.read_text())
    file.write_text(json.dumps({**value, "weather": "fine", "git": {"commit": "a", "branch": "b", "is_dirty": True,
                                                                    "remote": "c"}}))  # fmt: skip

    assert str(handle.provenance(1).git) == "a b (dirty)"


def test_a_provenance_that_cannot_be_written_is_told_and_the_model_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    events: list[ProgressEvent] = []
    monkeypatch.setattr("pathlib.Path.write_text", full)
    handle = tfserve_nb.deploy(make(), progress=events.append)
    monkeypatch.undo()

    assert handle.predict([[1.0, 2, 3, 4]]).shape == (1, 2)
    assert read_provenance(folder_of(handle, 1)) is None
    assert "rows agree; provenance is not stored: No space left on device" in [
        event.detail.split(" ", 1)[1] for event in events if event.phase == "checking" and event.detail
    ]


def test_a_missing_version_is_named() -> None:
    handle = tfserve_nb.deploy(make())

    with pytest.raises(VersionNotFound, match="version 7 of model net") as caught:
        handle.provenance(7)
    assert caught.value.hint == "on disk: 1"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seed": 1.5}, "seed=1.5 must be an integer"),
        ({"metrics": 0.97}, "metrics is a float"),
        ({"metrics": {"acc": "good"}}, "metrics\\['acc'\\] is 'good'"),
        ({"data": iter([1])}, "cannot be hashed without using it up"),
        ({"data": object()}, "object is no array"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        tfserve_nb.deploy(make(), **options)

    assert not Path("tfserve_models").exists()


def test_the_commit_of_the_users_folder_is_noted(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                    "GIT_COMMITTER_EMAIL": "a@b"}  # fmt: skip
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, env={**os.environ, **identity})

    git("init", "--initial-branch=work")
    Path("train.py").write_text("x = 1\n")
    git("add", "train.py")
    git("commit", "-m", "first")
    clean = tfserve_nb.deploy(make()).provenance(1).git
    Path("train.py").write_text("x = 2\n")
    dirty = tfserve_nb.deploy(make()).provenance(2).git

    assert clean is not None
    assert dirty is not None
    assert (clean.branch, clean.is_dirty, len(clean.commit)) == ("work", False, 40)
    assert (dirty.commit, dirty.is_dirty) == (clean.commit, True)


def test_a_script_is_noted_with_its_text(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import keras, tfserve_nb\n"
        "model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name='net')\n"
        "password = 'hunter2'\n"
        "tfserve_nb.deploy(model)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tfserve_nb.__file__).parents[1])}
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True, timeout=60)

    found = read_provenance(tmp_path / "tfserve_models" / "net" / "1")

    assert found is not None
    assert found.code is not None
    assert (found.code.kind, found.code.path, found.code.cell_id) == ("script", "train.py", "")
    assert found.code.source == script.read_text().replace("hunter2", "[redacted]")


def test_a_served_model_answers_over_http_with_the_file_beside_it() -> None:
    handle = tfserve_nb.deploy(make())

    answer = requests.post(
        f"{handle.rest_url}:predict", json={"instances": [[1, 2, 3, 4]]}, timeout=10,
        headers={"Authorization": f"Bearer {handle.token}"},
    )  # fmt: skip

    assert answer.status_code == 200
