"""What bundles hold and how they are written, without any server's messages; tests/serve reads whole ones."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tfserve_nb.bench.sweep import SweepResult
from tfserve_nb.errors import ExportFailed, FailedPrecondition, InvalidOption, ServingError
from tfserve_nb.scaleout.bundles.app import NOTEBOOK_ONLY, requirements
from tfserve_nb.scaleout.bundles.batching import DEFAULTS, OFF, measured, unbatched
from tfserve_nb.scaleout.bundles.bundle import TARGETS, write_bundle
from tfserve_nb.scaleout.bundles.cluster import object_name
from tfserve_nb.scaleout.bundles.contents import BundleContents, BundledModel, BundledVersion
from tfserve_nb.scaleout.bundles.gather import contents_of_configs
from tfserve_nb.scaleout.bundles.kubernetes_shapes import check_object
from tfserve_nb.scaleout.bundles.options import BundleOptions
from tfserve_nb.scaleout.bundles.serving_files import check_for_tensorflow_serving, models_text, notes_on, served_models
from tfserve_nb.scaleout.bundles.shape import Keys, problem_of
from tfserve_nb.scaleout.bundles.systemd import check_unit, unit_text
from tfserve_nb.scaleout.bundles.targets.kubernetes import service
from tfserve_nb.serving.models.model_config import ModelConfig, VersionPolicy
from tfserve_nb.serving.telemetry.model_metrics import BatchSummary


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model's folder with versions 1, 2 and 10, of which the last is a TensorFlow Lite file."""
    for number, file in ((1, "saved_model.pb"), (2, "saved_model.pb"), (10, "model.tflite")):
        folder = tmp_path / "models" / "digits" / str(number)
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"content of " + str(number).encode())
    return tmp_path / "models" / "digits"


def contents(base: Path, *versions: int) -> BundleContents:
    policy = VersionPolicy(latest=None, specific=versions or (2,))
    return contents_of_configs([ModelConfig("digits", str(base), policy, {"stable": (versions or (2,))[0]})], OFF)


# ---------------------------------------------------------------- what is bundled


def test_the_versions_that_a_configuration_chooses_are_bundled(base: Path) -> None:
    model = contents(base, 1, 2).model

    assert [version.number for version in model.versions] == [1, 2]
    assert (model.default_version, dict(model.labels), model.default.file) == (2, {"stable": 1}, "")
    (latest,) = contents_of_configs([ModelConfig("digits", str(base))], OFF).model.versions
    assert (latest.number, latest.file) == (10, "model.tflite")


@pytest.mark.parametrize(
    ("config", "versions", "message"),
    [
        (lambda base: ModelConfig("digits", f"{base}-gone"), (), "digits, .*-gone, is not visible on this machine"),
        (lambda base: ModelConfig("digits", str(base)), (7,), "Could not find version 7 of model digits"),
        (
            lambda base: ModelConfig("digits", str(base), labels={"a": 3}),
            (),
            "Could not find version 3 of model digits",
        ),
        (lambda base: ModelConfig("digits", str(base.parent)), (), "Could not find any version of model digits"),
        (lambda base: ModelConfig("a/b", str(base)), (), "cannot name a model"),
    ],
)
def test_what_is_not_there_is_named(base: Path, config: Any, versions: tuple[int, ...], message: str) -> None:
    with pytest.raises(ServingError, match=message) as error:
        contents_of_configs([config(base)], OFF, versions)
    assert error.value.hint


def test_a_target_for_one_model_names_the_models(base: Path) -> None:
    configs = [ModelConfig(name, str(base), VersionPolicy(1)) for name in ("b", "a")]

    with pytest.raises(InvalidOption, match="takes one model; these are a, b"):
        _ = contents_of_configs(configs, OFF).model


# ---------------------------------------------------------------- batching


def sweep(slo_ms: float) -> SweepResult:
    return SweepResult((), slo_ms, "given", 340.0)


@pytest.mark.parametrize(
    ("run_ms", "found", "rows", "sizes", "enqueued", "words"),
    [
        ({}, None, 64, (1, 2, 4, 8, 16, 32, 64), 100, "no run was measured"),
        ({}, sweep(20.0), 64, (1, 2, 4, 8, 16, 32, 64), 100, "no run was measured"),
        ({1: 1.0, 8: 2.0, 32: 4.0, 64: 8.0}, None, 32, (1, 8, 32), 100, "more than 32 rows hardly do more"),
        ({1: 1.0, 8: 2.0, 32: 4.0, 64: 8.0}, sweep(6.0), 8, (1, 8), 3, "up to 340 requests/s"),
        ({1: 1.0, 8: 1.5}, None, 64, (1, 2, 4, 8, 16, 32, 64), 100, "64 rows is a default"),
        ({1: 1.0, 16: 1.0}, sweep(20.0), 64, (1, 2, 4, 8, 16, 32, 64), 5, "64 rows is a default"),
        ({1: 50.0}, sweep(20.0), 64, (1, 2, 4, 8, 16, 32, 64), 1, "1 row 50 ms"),
        ({1: 1.0, 128: 4.0}, None, 128, (1, 128), 100, "No run of more than 128 rows"),
    ],
)
def test_batching_values_come_from_what_was_measured(
    run_ms: dict[int, float], found: Any, rows: int, sizes: tuple[int, ...], enqueued: int, words: str
) -> None:
    batching = measured(BatchSummary(num_batches=7, run_ms=run_ms), found)

    assert batching.options is not None
    assert batching.options.max_batch_size == rows
    assert batching.options.allowed_batch_sizes == sizes
    assert batching.options.max_enqueued_batches == enqueued
    assert words in batching.origin
    assert (batching == DEFAULTS) == (not run_ms)


def test_requests_that_may_not_share_a_run_turn_batching_off() -> None:
    version = BundledVersion(3, Path("/x/3"), alone={"serving_default": "its answer depends on other rows"})

    off = unbatched((BundledVersion(2, Path("/x/2")), version))

    assert off is not None
    assert off.options is None
    assert "version 3 runs each request of signature serving_default alone, since its answer depends" in off.origin
    assert unbatched((BundledVersion(2, Path("/x/2")),)) is None


# ---------------------------------------------------------------- what a server of the bundle serves


def test_a_version_above_the_promoted_one_is_left_out_unless_it_is_asked_for(base: Path) -> None:
    versions = tuple(BundledVersion(number, base / str(number)) for number in (1, 2))
    held = BundleContents((BundledModel("digits", versions, {"new": 2}, 1, {1: 90.0, 2: 10.0}, base),), OFF)

    (served,) = served_models(held, BundleOptions(), "/models")
    (asked,) = served_models(held, BundleOptions(versions=(1, 2)), "/models")

    assert [version.number for version in served.versions] == [1]
    assert (served.base_path, served.labels) == ("/models/digits", {})
    assert "Version 2 of digits is not in this bundle" in " ".join(notes_on((served,)))
    assert "The split of the traffic (version 1 90 %, version 2 10 %) stays behind" in " ".join(notes_on((served,)))
    assert asked.labels == {"new": 2}
    assert "answered by version 2, the highest; here it is version 1" in " ".join(notes_on((asked,)))


def test_what_tensorflow_serving_does_not_serve_is_named(base: Path) -> None:
    models = served_models(contents(base, 10), BundleOptions(), "/models")

    with pytest.raises(FailedPrecondition, match="version 10 of digits is a TensorFlow Lite file, which TensorFlow"):
        check_for_tensorflow_serving(models)


def test_texts_with_quotes_stay_texts() -> None:
    text = models_text((ModelConfig('a "b"', "/x\\y", VersionPolicy(latest=None, specific=(1,))),))

    assert 'name: "a \\"b\\""' in text
    assert 'base_path: "/x\\\\y"' in text


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": 1}, ""),
        ({"a": 1, "list": ["x"], "free": {"any": True}, "port": "http"}, ""),
        ({"a": 1, "lisst": []}, "it has no key 'lisst'; did you mean list?"),
        ({"list": []}, "it lacks the key 'a'"),
        ({"a": True}, "it.a is True, and no int"),
        ({"a": 1, "list": "x"}, "it.list is 'x', and no list"),
        ({"a": 1, "list": ["x", 2]}, "it.list[1] is 2, and no str"),
        ({"a": 1, "free": {"any": 1}}, "it.free.any is 1, and no bool"),
        ({"a": 1, "port": 1.5}, "it.port is 1.5, and no int"),
        ({"a": 1, "mode": "of"}, "it.mode is 'of', and not one of off, on"),
        ([], "it is [], and no mapping of texts"),
    ],
)
def test_a_shape_finds_what_does_not_fit(value: Any, problem: str) -> None:
    shape = {"a!": int, "list": [str], "free": Keys(bool), "port": (int, str), "mode": frozenset({"on", "off"})}

    assert problem_of(value, shape, "it") == problem


def test_a_misspelt_key_of_an_object_cannot_pass() -> None:
    good = service("digits")
    check_object(good, "service.yaml")

    bad = service("digits")
    bad["spec"]["ports"][0]["targetport"] = bad["spec"]["ports"][0].pop("targetPort")
    with pytest.raises(ExportFailed, match=r"spec.ports\[0\] has no key 'targetport'; did you mean targetPort\?"):
        check_object(bad, "service.yaml")


def test_a_misspelt_line_of_a_unit_cannot_pass() -> None:
    unit = unit_text("Serving 100 %", ["/usr/bin/server", "--flag=a b", "--name=$x"])
    check_unit(unit)

    assert "Description=Serving 100 %%\n" in unit
    assert 'ExecStart=/usr/bin/server \\\n    "--flag=a b" \\\n    --name=$$x\n' in unit
    with pytest.raises(ExportFailed, match="no line 'Restrat=on-failure'"):
        check_unit(unit.replace("Restart=", "Restrat="))


@pytest.mark.parametrize(
    ("name", "object_"),
    [("digits", "digits"), ("Digits_v2", "digits-v2"), ("2nd", "m-2nd"), ("ü", "model"), ("a" * 80, "a" * 50)],
)
def test_names_of_objects(name: str, object_: str) -> None:
    assert object_name(name) == object_


# ---------------------------------------------------------------- writing


def test_a_bundle_is_written_whole_with_its_readme(base: Path, tmp_path: Path) -> None:
    bundle = write_bundle(contents(base), tmp_path / "new" / "out", "sagemaker", BundleOptions())

    assert [str(path) for path in bundle.files] == ["README.md", "endpoint-config.json", "model.tar.gz"]
    with tarfile.open(bundle.folder / "model.tar.gz") as archive:
        assert "digits/2/saved_model.pb" in archive.getnames()
    readme = (bundle.folder / "README.md").read_text()
    for words in ("# digits on SageMaker (not run)", "- digits: version 2, label stable → 2", OFF.origin, "## Not run"):
        assert words in readme
    assert f"cd {bundle.folder}" in repr(bundle)
    assert all(command in readme and command in repr(bundle) for command in bundle.readme.commands)
    assert list(bundle.folder.parent.iterdir()) == [bundle.folder]


def test_an_empty_folder_is_taken_and_a_full_one_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")

    write_bundle(contents(base), tmp_path / "empty", "sagemaker", BundleOptions())

    for place, words in (("full", "is not empty, and nothing in it is replaced"), ("file", "is a file")):
        with pytest.raises(InvalidOption, match=words):
            write_bundle(contents(base), tmp_path / place, "sagemaker", BundleOptions())
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "kept"


def test_nothing_is_left_of_a_bundle_that_failed(base: Path, tmp_path: Path) -> None:
    held = contents(base, 1, 2)
    (base / "2" / "saved_model.pb").unlink()
    (base / "2" / "saved_model.pb").symlink_to("gone")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(ExportFailed, match="the bundle cannot be written to .*out"):
        write_bundle(held, tmp_path / "out", "sagemaker", BundleOptions(versions=(1, 2)))

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("kubernetez", "target='kubernetes', or --target kubernetes"),
        ("mlflw", "target='mlflow', or --target mlflow"),
        ("nomad", "target='tf-serving', or --target tf-serving"),
    ],
)
def test_an_unknown_target_names_those_that_there_are(base: Path, tmp_path: Path, target: str, hint: str) -> None:
    words = f"there is no target {target!r}; there are {', '.join(TARGETS)}"
    with pytest.raises(InvalidOption, match=words) as error:
        write_bundle(contents(base), tmp_path / "out", target, BundleOptions())
    assert error.value.hint == hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"versions": (0,)}, "0 is no version"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas=3 and max_replicas=2"),
        ({"root": "models"}, "root='models' must be an absolute path"),
        ({"storage": "bucket"}, "storage='bucket' must be an address"),
    ],
)
def test_options_that_are_not_allowed(options: Any, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        BundleOptions(**options)


def test_requirements_are_the_versions_that_are_installed() -> None:
    lines = requirements(("onnx",))

    names = {line.partition("==")[0].lower() for line in lines}
    assert all("==" in line for line in lines)
    assert {"tensorflow", "tornado", "tensorflow-serving-api", "onnxruntime"} <= names
    assert not names & NOTEBOOK_ONLY
    assert "onnxruntime" not in {line.partition("==")[0] for line in requirements()}
