"""Versions as MLflow models and back, with MLflow's own store on this machine."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.onnx_models import linear
from helpers.saved_models import write_half_plus_two

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import ModelNotServable, NotAvailable
from tfserve_nb.scaleout.mlflow.fetch import fetched
from tfserve_nb.scaleout.mlflow.model import save
from tfserve_nb.scaleout.mlflow.registry import RegisteredVersion, register
from tfserve_nb.scaleout.mlflow.tracking import tracking
from tfserve_nb.types import no_progress

# What MLflow does with SQLAlchemy is MLflow's to change.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def dense(seed: int) -> Any:
    """`x` float32 `(n, 3)` to `(n, 2)`."""
    import keras

    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty store of MLflow, which is where this process logs to."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield folder
        tfserve_nb.shutdown()


@pytest.fixture(scope="module")
def served(store: Path) -> Deployment:
    """Two versions, the first of which is stable."""
    tfserve_nb.deploy(dense(1), "lin", warmup=X, label="stable", metrics={"loss": 0.25})
    return tfserve_nb.deploy(dense(2), "lin", warmup=X, label="eu.west")


@pytest.fixture(scope="module")
def mlflow(store: Path) -> ModuleType:
    """Imported late: collecting tests stays fast."""
    with tracking("begin") as found:
        return found


def folders(served: Deployment) -> dict[int, Path]:
    assert served.base_path is not None
    return {version: served.base_path / "lin" / str(version) for version in served.versions}


@pytest.fixture(scope="module")
def registered(served: Deployment, store: Path) -> list[RegisteredVersion]:
    return register("lin", folders(served), served.labels, store / "bundle")


def test_mlflow_predicts_what_the_server_answers(
    registered: list[RegisteredVersion], served: Deployment, mlflow: ModuleType
) -> None:
    import pandas as pd

    stable = mlflow.pyfunc.load_model("models:/lin@stable")
    expected = served.predict(X, label="stable")

    for rows in (X, {"x": X}, pd.DataFrame({"x": list(X)})):
        np.testing.assert_array_equal(stable.predict(rows), expected)
    assert [one.remark for one in registered] == [
        "mlflow.pyfunc's predict answers rows of its warm-up as the server does"
    ] * 2
    assert stable.metadata.get_input_schema().inputs[0].name == "x"
    np.testing.assert_array_equal(stable.input_example["x"], X)


def test_a_version_keeps_its_number_its_metrics_and_the_label_that_can_be_an_alias(
    registered: list[RegisteredVersion], mlflow: ModuleType
) -> None:
    client = mlflow.MlflowClient()

    assert [(one.version, one.uri, one.aliases) for one in registered] == [
        (1, "models:/lin/1", ("stable",)),
        (2, "models:/lin/2", ()),
    ]
    assert client.get_model_version("lin", "1").tags["tfserve_nb.version"] == "1"
    assert client.get_run(registered[0].run_id).data.metrics == {"loss": 0.25}


def test_a_version_that_was_registered_is_not_logged_again_and_its_alias_moves(
    registered: list[RegisteredVersion], served: Deployment, store: Path, mlflow: ModuleType
) -> None:
    again = register("lin", {2: folders(served)[2]}, {"other": 2}, store / "again")

    assert [(one.uri, one.run_id) for one in again] == [(registered[1].uri, registered[1].run_id)]
    assert str(mlflow.MlflowClient().get_model_version_by_alias("lin", "other").version) == "2"


def test_a_version_comes_back_with_where_it_was(registered: list[RegisteredVersion], served: Deployment) -> None:
    steps: list[str] = []
    back = tfserve_nb.deploy(
        "models:/lin@stable", "back", workers="auto", progress=lambda event: steps.append(event.detail)
    )

    np.testing.assert_array_equal(back.predict(X), served.predict(X, label="stable"))
    found = back.provenance(1)
    assert found is not None
    assert found.model.startswith("MLflow model models:/lin/1 of sqlite:")
    assert found.model.endswith("asked for as models:/lin@stable")
    assert [layer.name for layer in found.layers], "what was known of it came along"
    assert any(step.startswith("workers: none (auto: in the kernel") for step in steps)


@pytest.mark.parametrize("uri", ["models:/lin/2", "runs:/{run}/model"])
def test_every_name_of_a_model_leads_to_its_version(registered: list[RegisteredVersion], uri: str) -> None:
    with fetched(uri.format(run=registered[1].run_id), no_progress) as given:
        assert given.model.name == "2"
        assert (given.model / "saved_model.pb").is_file()
        assert (given.model / "assets.extra" / "tf_serving_warmup_requests").is_file()
    assert not given.model.exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' saving on NumPy 2
def test_models_that_others_logged_are_served(mlflow: ModuleType) -> None:
    import tensorflow as tf

    class Doubling(tf.Module):
        """`y = 2 x`."""

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            """Twice."""
            return 2.0 * x

    model = dense(3)
    signature = mlflow.models.infer_signature(X, X[:, :2])
    with mlflow.start_run() as run:
        mlflow.keras.log_model(model, name="theirs", signature=signature, pip_requirements=["keras"])
        mlflow.tensorflow.log_model(Doubling(), name="twice", signature=signature, pip_requirements=["tensorflow"])

    theirs = tfserve_nb.deploy(f"runs:/{run.info.run_id}/theirs")
    twice = tfserve_nb.deploy(f"runs:/{run.info.run_id}/twice")

    np.testing.assert_allclose(theirs.predict(X), model(X).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(twice.predict(X), 2 * X)
    assert theirs.name == "theirs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavors: {sklearn: {pickled_model: model.pkl}, python_function: {loader_module: mlflow.sklearn}}", "sklearn"),
        ("flavors: {python_function: {loader_module: mlflow.pyfunc.model}}", "mlflow.pyfunc.model"),
        ("flavors: {onnx: {data: OUTSIDE}}", "onnx"),
    ],
    ids=["sklearn", "code", "outside"],
)
def test_a_flavour_that_cannot_be_served_is_named(mlflow: ModuleType, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "outside.onnx").write_bytes(b"a file that is there")
    (tmp_path / "sk").mkdir()
    (tmp_path / "sk" / "MLmodel").write_text(text.replace("OUTSIDE", f"{tmp_path}/outside.onnx"))
    client = mlflow.MlflowClient()
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(tmp_path / "sk"), "sk")

    with pytest.raises(ModelNotServable, match=f"is a model of MLflow's flavour {message}, which cannot be served"):
        tfserve_nb.deploy(f"runs:/{run.info.run_id}/sk")


@pytest.mark.parametrize(
    ("listens", "message"),
    [
        (False, r"MLflow at http://127.0.0.1:\d+ does not answer: Connection refused, after \d+\.\d s"),
        (True, r"MLflow at http://127.0.0.1:\d+ does not answer: nothing came after \d+\.\d s"),
    ],
    ids=["refused", "silent"],
)
def test_a_server_that_does_not_answer_is_one_line_and_what_is_served_goes_on(
    served: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listens: bool, message: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:  # bound; connections are refused unless it listens, and then nobody reads
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(NotAvailable, match=f"^{message}$"):
            served.bundle(tmp_path / "out", target="mlflow")
        with pytest.raises(NotAvailable, match=f"^{message}$"):
            tfserve_nb.deploy("models:/lin@stable")

    assert list(tmp_path.iterdir()) == []
    assert served.predict(X).shape == (4, 2)


def test_a_store_that_mlflow_skinny_cannot_use_names_the_whole_package(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sqlalchemy" else find_spec(name))

    with pytest.raises(NotAvailable, match="it needs sqlalchemy, which mlflow-skinny lacks") as error:
        tfserve_nb.deploy("models:/lin@stable")
    assert error.value.hint.startswith("pip install mlflow;")


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("models:/lni@stable", "there is no such model; there are lin"),
        ("models:/lin@nobody", "lin has version 1, 2, and @"),
        ("models:/lin/7", "lin has version 1, 2, and @"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "see what that server holds: mlflow ui"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(registered: list[RegisteredVersion], uri: str, hint: str) -> None:
    with pytest.raises(NotAvailable, match=f"could not give {uri}: .*") as error:
        tfserve_nb.deploy(uri, "gone")
    assert error.value.hint.startswith(hint)


def text_and_number(path: Path) -> Path:
    """`s` text `(n, 1)` and `n` int64 `(n,)` to `longer` text and `twice` int64."""
    import tensorflow as tf

    class Both(tf.Module):
        """Two in, two out."""

        @tf.function(input_signature=[
            tf.TensorSpec([None, 1], tf.string, name="s"), tf.TensorSpec([None], tf.int64, name="n"),
        ])  # fmt: skip
        def both(self, s: Any, n: Any) -> Any:
            """A bit more of each."""
            return {"longer": tf.strings.join([s, "!"]), "twice": 2 * n}

    module = Both()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.both})
    return path


def noise(path: Path) -> Path:
    """`x` and as much noise."""
    import tensorflow as tf

    class Noise(tf.Module):
        """Another answer each time."""

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def noisy(self, x: Any) -> Any:
            """Drawn."""
            return {"y": x + tf.random.normal(tf.shape(x))}

    module = Noise()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.noisy})
    return path


@pytest.mark.parametrize(
    ("write", "remark"),
    [
        (write_half_plus_two, "mlflow.pyfunc's predict answers made-up rows as the server does"),
        (text_and_number, "mlflow.pyfunc's predict answers made-up rows as the server does"),
        (noise, "mlflow.pyfunc's predict runs made-up rows; answers differ each time and were not compared"),
    ],
)
def test_any_saved_model_can_be_an_mlflow_model(mlflow: ModuleType, tmp_path: Path, write: Any, remark: str) -> None:
    assert save(mlflow, write(tmp_path / "1"), tmp_path / "model", {}) == remark
    assert (tmp_path / "model" / "code" / "tfserve_nb_pyfunc.py").is_file()


def test_a_version_of_another_runtime_is_refused(mlflow: ModuleType, tmp_path: Path) -> None:
    import onnx

    folder = tmp_path / "1"
    folder.mkdir()
    onnx.save(linear(), folder / "model.onnx")

    with pytest.raises(ModelNotServable, match="holds model.onnx, which MLflow loads as its own flavour"):
        save(mlflow, folder, tmp_path / "model", {})


def test_a_bundle_names_what_was_registered(
    registered: list[RegisteredVersion], served: Deployment, tmp_path: Path
) -> None:
    bundle = served.bundle(tmp_path / "out", target="mlflow")

    assert {Path("1/MLmodel"), Path("2/MLmodel"), Path("2/serving_input_example.json")} <= set(bundle.files)
    text = (bundle.folder / "README.md").read_text()
    assert f"Version 1 is models:/lin/1, logged in run {registered[0].run_id}, with the alias stable." in text
    assert "The label 'eu.west' cannot be an alias of MLflow" in text
    assert "mlflow models serve --model-uri 'models:/lin/2'" in text
    assert "--data @2/serving_input_example.json" in text
