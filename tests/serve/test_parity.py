"""Real servers compared: two of the same files, and all homes that a notebook's model can have; one changed weight."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from helpers.black_box import Served, Start, environment
from helpers.second_server import second_server

import tfserve_nb
from tfserve_nb.api.deployment import Deployment

MODELS = ("digits", "half_plus_two", "many", "two_versions")
LABELLED = ("digits", "two_versions")
DOORS = ["REST, rows", "REST, columns", "V2", "gRPC"]
ASKS = """
import sys
from tfserve_nb.cli import main
from tfserve_nb.protos.postponed import loaded
code = main(["parity", *sys.argv[1:]])
assert loaded() is None, "TensorFlow was imported"
sys.exit(code)
"""


def compared(a: Served, b: Served, models: str, *more: str) -> tuple[int, str]:
    """Exit code and words of a comparison, in a process that must not import TensorFlow."""
    urls = [f"http://127.0.0.1:{one.rest_port}" for one in (a, b)]
    grpc = [f"127.0.0.1:{one.grpc_port}" for one in (a, b)]
    done = subprocess.run(
        [sys.executable, "-c", ASKS, *urls, "--grpc", *grpc, "--model", models, "--labels", "stable", *more],
        capture_output=True, text=True, check=False, timeout=200, env=environment(),
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


class Home(NamedTuple):
    """A server of the version that the notebook serves."""

    url: str
    token: str | None
    grpc_address: str


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Deployment]]:
    """`same`: this kernel's `digits`, with the label `stable`; `changed`: the same with one weight changed."""
    import keras

    folder = tmp_path_factory.mktemp("digits")
    model = keras.Sequential(
        [keras.layers.Input((64,), name="pixels"), keras.layers.Dense(16, "sigmoid"), keras.layers.Dense(10)]
    )
    try:
        same = tfserve_nb.deploy(model, "digits", base_path=folder / "models", grpc_port=0, label="stable")
        weights = model.get_weights()
        weights[2][5, 3] += 0.1
        model.set_weights(weights)
        tfserve_nb.deploy(model, "changed", base_path=folder / "models")
        versions = {1: folder / "models" / "changed" / "1"}
        with second_server(folder / "other", "digits", versions, stable=1) as changed:
            yield {"same": same, "changed": changed}
    finally:
        tfserve_nb.shutdown()


@pytest.fixture(scope="module")
def config(notebooks: dict[str, Deployment], store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a server of all models; those of the store, and the notebook's."""
    folders = {name: store / name for name in MODELS} | {"digits": notebooks["same"].status().base_path / "digits"}
    labels = 'version_labels { key: "stable" value: 1 }'
    path = tmp_path_factory.mktemp("config") / "models.config"
    path.write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" '
            f"model_version_policy {{ all {{}} }} {labels if name in LABELLED else ''} }}"
            for name, folder in folders.items()
        )
        + "}"
    )
    return path


@pytest.fixture(scope="module")
def a(config: Path, start_for_module: Start) -> Served:
    return start_for_module(f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models")


@pytest.fixture(scope="module")
def b(config: Path, start_for_module: Start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """What the README of a bundle says to type for `tfserve-nb serve`, but for the ports, and with a worker."""
    folder = tmp_path_factory.mktemp("bundle") / "out"
    bundles = [sys.executable, "-m", "tfserve_nb", "bundle", str(folder), "--target", "tf-serving"]
    subprocess.run([*bundles, f"--model_config_file={config}"], check=True, env=environment(), timeout=200)
    (line,) = re.findall("^tfserve-nb serve ([^#]+)", (folder / "README.md").read_text(), re.MULTILINE)
    words = subprocess.check_output(["bash", "-c", f"echo {line}"], cwd=folder, text=True).split()
    flags = [word for word in words if not word.startswith(("--port=", "--rest_api_port="))]
    return start_for_module(*flags, "--workers=1")


@pytest.fixture(scope="module")
def isolated(notebooks: dict[str, Deployment], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("isolated")
    versions = {1: notebooks["same"].status().base_path / "digits" / "1"}
    with second_server(folder, "digits", versions, stable=1, isolate=True) as d:
        yield Home(d.rest_url.partition("/v1")[0], d.token, d.grpc_address)


@pytest.fixture(scope="module")
def bundled(b: Served) -> Home:
    return Home(f"http://127.0.0.1:{b.rest_port}", None, f"127.0.0.1:{b.grpc_port}")


def test_two_servers_of_the_same_files_are_the_same(a: Served, b: Served) -> None:
    code, text = compared(a, b, ",".join(MODELS), "--requests", "20")

    assert code == 0, text
    assert "the same: " in text
    assert "many 1 half both refuse, 16 both refuse, 16 same, 16 same, 16" in text
    assert "half_plus_two gRPC" in text
    assert "label two_versions, stable same version 1" in text


def test_the_calls_for_examples_are_the_same(a: Served, b: Served, tmp_path: Path) -> None:
    """With rows that the model takes; those that are made up it refuses."""
    (tmp_path / "rows.json").write_text(
        '{"signature_name": "classify_labels", "examples": [{"x": 1.0}, {"x": [2.0]}, {"x": 5.0, "x2": 0.5}]}'
    )

    code, text = compared(a, b, "half_plus_two", "--rows", str(tmp_path / "rows.json"), "--requests", "0")

    assert code == 0, text
    assert "half_plus_two 123 classify_labels same, 3 same, 3 same, 3 same, 3" in text
    assert "half_plus_two 123 classify_labels classify same, 3 same, 3" in text
    assert "half_plus_two 123 regress_x_to_y regress both refuse, 16 both refuse, 16" in text


@pytest.fixture(scope="module", params=["isolated", "bundled"])
def home(request: pytest.FixtureRequest) -> Home:
    found: Home = request.getfixturevalue(request.param)
    return found


def test_every_home_answers_as_the_notebook_and_a_changed_weight_is_named(
    notebooks: dict[str, Deployment], home: Home, rng: np.random.Generator
) -> None:
    x = rng.random((8, 64), np.float32)
    found = {
        name: notebook.parity(home.url, token=home.token, grpc_address=home.grpc_address, rows=x, requests=0)
        for name, notebook in notebooks.items()
    }
    away = np.abs(notebooks["changed"].predict(x) - notebooks["same"].predict(x))

    assert found["same"].is_same, str(found["same"])
    assert {one.where.door: one.num_rows for one in found["same"].predictions} == dict.fromkeys(DOORS, len(x))
    assert found["changed"].exit_code == 1
    differing = list(found["changed"].differing())
    assert [one.where.door for one in differing] == DOORS, f"predictions alone: {found['changed']}"
    for one in differing:
        assert one.num_different == len(x)
        for row in one.rows_that_differ:
            assert row.output == "output_0[3]"
            assert row.difference == pytest.approx(away[row.row, 3], rel=1e-3)


def test_the_job_of_a_bundle_compares_both_servers(
    notebooks: dict[str, Deployment], bundled: Home, tmp_path: Path
) -> None:
    """Its command line as it is written, but for the names that only a cluster knows."""
    d = notebooks["same"]
    folder = d.bundle(tmp_path / "out", target="kubernetes").folder
    job = yaml.safe_load((folder / "kubernetes" / "later" / "parity-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    own, other = d.rest_url.partition("/v1")[0], bundled.url
    places = {
        "http://digits:8501": own, "http://digits-tensorflow-serving:8501": other,
        "digits:8500": d.grpc_address, "digits-tensorflow-serving:8500": bundled.grpc_address,
    }  # fmt: skip
    assert set(places) < set(container["args"])
    command = [*container["command"], *(places.get(word, word) for word in container["args"])]

    done = subprocess.run(
        [sys.executable, *command[1:]],
        capture_output=True, text=True, check=False, timeout=200, env={**environment(), variable["name"]: d.token},
    )  # fmt: skip

    assert command[0] == "python"
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "digits gRPC" in " ".join(done.stdout.split())
