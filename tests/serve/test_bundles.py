"""Whole bundles, written by `tfserve-nb bundle` and read by what will read them: protos, servers, schemas, tools."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.black_box import Served, Start, environment, free_port

import tfserve_nb
from tfserve_nb.errors import ConfigRejected
from tfserve_nb.scaleout.bundles.alerts import METRICS, RULES
from tfserve_nb.scaleout.bundles.bundle import Bundle
from tfserve_nb.scaleout.bundles.images import health_command
from tfserve_nb.scaleout.bundles.kubernetes_shapes import KINDS
from tfserve_nb.scaleout.bundles.shape import Keys, problem_of
from tfserve_nb.scaleout.bundles.targets.kserve import INFERENCE_SERVICE
from tfserve_nb.scaleout.bundles.targets.ray import RAY_SERVICE, SERVE
from tfserve_nb.scaleout.bundles.targets.tf_serving import COMPOSE
from tfserve_nb.scaleout.ray.replica_model import models_of
from tfserve_nb.server.config_files import read_batching, read_metrics_path, read_model_configs

TARGETS = ("tf-serving", "docker", "kubernetes", "kserve", "ray", "vertex", "sagemaker")
METRICS_PATH = "/monitoring/prometheus/metrics"
IN_NOTEBOOKS = ("IPython", "PIL", "ipykernel", "ipywidgets", "jupyterlab", "matplotlib")
"""Modules that an image of `tfserve-nb serve` does not have."""


@pytest.fixture(scope="module")
def bundles(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Target -> its bundle of `half_plus_two` as `hpt`, all written by one process that has no TensorFlow."""
    root = tmp_path_factory.mktemp("bundles")
    (root / "models.config").write_text(
        f'model_config_list {{ config {{ name: "hpt" base_path: "{store}/half_plus_two" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 123 } } }'
    )
    (root / "batching").write_text("max_batch_size { value: 16 } max_enqueued_batches { value: 7 }")
    code = f"""
import sys
from tfserve_nb.cli import main
from tfserve_nb.protos.postponed import loaded
for target in {TARGETS!r}:
    options = ["--target", target, "--model_config_file={root}/models.config"]
    code = main(["bundle", "{root}/" + target, *options, "--batching_parameters_file={root}/batching"])
    assert code == 0, target
assert loaded() is None, "TensorFlow was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=240)
    return {target: root / target for target in TARGETS}


def values(path: Path) -> Iterator[Any]:
    """The documents of a YAML file."""
    return iter(yaml.safe_load_all(path.read_text()))


def without_ports(flags: list[str]) -> list[str]:
    """Flags without those that `start` gives itself."""
    return [flag for flag in flags if not flag.startswith(("--port=", "--rest_api_port=", "--host="))]


# ---------------------------------------------------------------- servers


def test_the_files_for_tensorflow_serving_are_served_as_they_are(
    bundles: dict[str, Path], start: Start, tmp_path: Path
) -> None:
    folder = bundles["tf-serving"]
    flags = (folder / "flags.txt").read_text().split()

    served = start(*without_ports(flags))

    assert served.predict({"instances": [1.0, 2.0]}) == (200, {"predictions": [2.5, 3.0]})
    assert served.predict({"instances": [1.0]}, target="/labels/stable")[0] == 200
    assert served.predict({"instances": [1.0] * 17}) == (400, {"error": served_words(17, 16)})
    status, text, _ = served.rest("GET", METRICS_PATH)
    assert status == 200
    assert [name for name in METRICS if f"\n{name}{{" not in text] == []
    assert "/models/hpt" in (folder / "models.config").read_text()
    assert served.stop() == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "batching.config", "compose.yaml", "flags.txt", "models", "models.config", "monitoring.config",
        "prometheus-rules.yaml", "tensorflow-serving.service",
    ]  # fmt: skip
    (compose,) = values(folder / "compose.yaml")
    assert compose["services"]["serving"]["command"] == flags
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["serving"]["ports"])


def served_words(size: int, limit: int) -> str:
    """What TensorFlow Serving answers to a request with too many rows."""
    return f"Task size {size} is larger than maximum input batch size {limit}"


def test_the_image_of_this_package_has_all_that_it_needs(
    bundles: dict[str, Path], start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry point runs with the code and files of the bundle, and without what only notebooks need."""
    folder = shutil.copytree(bundles["docker"], tmp_path / "image")
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", (folder / "Dockerfile").read_text(), re.MULTILINE)[1])
    health = json.loads(re.search(r"CMD (\[.+\])$", (folder / "Dockerfile").read_text(), re.MULTILINE)[1])
    assert entry[:5] == ["python", "-m", "tfserve_nb", "serve", "--host=0.0.0.0"]
    config = folder / "config" / "models.config"
    config.write_text(config.read_text().replace('"/models/', f'"{folder}/models/'))
    (folder / "token").write_text("secret\n")
    (folder / "token").chmod(0o600)
    moved = {"/config/": f"{folder}/config/", "/run/secrets/tfserve/token": f"{folder}/token"}
    flags = without_ports(entry[4:])
    for there, here in moved.items():
        flags = [flag.replace(there, here) for flag in flags]
    blocked = f"import sys\nfor name in {IN_NOTEBOOKS!r}:\n    sys.modules[name] = None\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(blocked)
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'app'}:{tmp_path / 'site'}")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # not what lies in the folder that the tests run in
    shown = subprocess.run(
        [sys.executable, "-c", "import tfserve_nb; print(tfserve_nb.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(str(folder / "app"))

    served = start(*flags)

    assert served.predict({"instances": [1.0]})[0] == 401
    headers = {"Authorization": "Bearer secret"}
    answer = served.rest("POST", "/v1/models/hpt:predict", {"instances": [1.0]}, headers)
    assert answer[:2] == (200, {"predictions": [2.5]})
    assert served.rest("GET", "/v2/health/ready")[0] == 200, "a probe has no token"
    assert served.rest("GET", METRICS_PATH, headers=headers)[0] == 200
    asked = [word.replace("8501", str(served.rest_port)) for word in health]
    assert subprocess.run(asked, timeout=30, check=False).returncode == 0
    unanswered = health_command("/v1/models/hpt", served.rest_port)
    assert subprocess.run(unanswered, timeout=30, check=False).returncode != 0, "401 is not healthy"
    nobody = health_command("/healthz", free_port())
    assert subprocess.run(nobody, timeout=30, check=False, stderr=subprocess.DEVNULL).returncode != 0
    check_bundle_of_a_server_elsewhere(served, tmp_path)


def check_bundle_of_a_server_elsewhere(served: Served, tmp_path: Path) -> None:
    """A handle of `connect` bundles what its server serves from this machine's folders."""
    handle = tfserve_nb.connect(f"http://127.0.0.1:{served.rest_port}", token="secret")

    bundle = handle.bundle(tmp_path / "again", target="sagemaker")

    assert "label stable → 123" in (bundle.folder / "README.md").read_text()
    with pytest.raises(tfserve_nb.VersionNotFound, match="version 5 of model hpt"):
        handle.bundle(tmp_path / "no", target="sagemaker", versions=(5,))


def test_a_deployed_model_is_bundled_with_what_was_measured(
    start: Start, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setattr("tfserve_nb.bench.sweep.MAX_STEPS", 2)  # a short one
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    x = rng.random((8, 4), np.float32)
    try:
        d = tfserve_nb.deploy(model, "net", base_path=tmp_path / "models", label="stable", warmup=x[:2])
        unmeasured = d.bundle(tmp_path / "unmeasured", target="tf-serving")
        for _ in range(10):
            expected = d.predict(x)
        bundle = d.bundle(tmp_path / "out", target="tf-serving")
        sweep = d.benchmark(sweep=True, seconds=1, warmup_s=0.1, slo_ms=60_000)
        swept = d.bundle(tmp_path / "swept", target="tf-serving", sweep=sweep)
        other = dataclasses.replace(sweep, results=(dataclasses.replace(sweep.results[0], name="other"),))
        with pytest.raises(tfserve_nb.InvalidOption, match="the sweep is one of other, and net is bundled"):
            d.bundle(tmp_path / "no", target="docker", sweep=other)
        with pytest.raises(tfserve_nb.InvalidOption, match="sweep=BenchmarkResult: that is no result of a sweep"):
            d.bundle(tmp_path / "no", target="docker", sweep=sweep.results[0])
        tfserve_nb.deploy(model, "net", base_path=tmp_path / "models", stage=True)
        d.set_traffic({1: 90, 2: 10})
        split = d.bundle(tmp_path / "split", target="kserve")
        with pytest.raises(tfserve_nb.InvalidOption, match="is not empty"):
            d.bundle(tmp_path / "out", target="docker")
        with pytest.raises(tfserve_nb.InvalidOption, match="there is no target 'k8s'"):
            d.bundle(tmp_path / "no", target="k8s")
        np.testing.assert_allclose(d.predict(x), expected, rtol=1e-6)
    finally:
        tfserve_nb.shutdown()

    assert "defaults: no run was measured" in said_of_batching(unmeasured)
    told = said_of_batching(bundle)
    assert re.match(
        r"Measured: the pace that the queue has learned, of 10 runs .* 8 rows [\d.e-]+ ms \(10 runs\)", told
    )
    assert "No sweep was given" in told
    told = said_of_batching(swept)
    requests = sum(one.summary.num_due for one in sweep.results)
    assert told.startswith(f"Measured: a sweep of {len(sweep.results)} runs with {requests} requests")
    assert "The sweep kept p99 within 6e+04 ms" in told
    waiting = read_batching(swept.folder / "batching.config").max_enqueued_batches
    assert waiting != read_batching(bundle.folder / "batching.config").max_enqueued_batches == 100
    (canary,) = values(split.folder / "kserve" / "canary.yaml")
    assert canary["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Knative"}
    assert canary["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert canary["spec"]["predictor"]["model"]["storageUri"] == "pvc://tfserve-models/net-2"
    assert (split.folder / "storage" / "net-2" / "2" / "saved_model.pb").is_file()
    assert "Version 1 of net has a warm-up file." in (bundle.folder / "README.md").read_text()
    served = start(*without_ports((bundle.folder / "flags.txt").read_text().split()))
    assert "Number of warmup records read: 1." in served.text
    status, answer = served.predict({"instances": np.tile(x, (20, 1)).tolist()}, "net", "/labels/stable")
    assert status == 200, "more rows than a batch has are split, as in the notebook"
    np.testing.assert_allclose(answer["predictions"], np.tile(expected, (20, 1)), rtol=1e-5)


def said_of_batching(bundle: Bundle) -> str:
    """What its README says of where the values come from; the file of the values says it too."""
    told = (bundle.folder / "README.md").read_text().partition("## Batching\n\n")[2].partition("\n\n##")[0]
    assert told in (bundle.folder / "batching.config").read_text()
    return told


def test_an_isolated_server_is_bundled_as_the_kernels_is(tmp_path: Path, rng: np.random.Generator) -> None:
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    x = rng.random((8, 4), np.float32)
    found = {}
    try:
        for place, isolate in (("kernel", False), ("child", True)):
            d = tfserve_nb.deploy(
                model, "net", base_path=tmp_path / place / "models", label="stable", warmup=x[:2], isolate=isolate
            )
            assert d.is_isolated == isolate
            for _ in range(10):
                d.predict(x)
            bundle = d.bundle(tmp_path / place / "out", target="tf-serving")
            d.undeploy()
            texts = [file for file in bundle.files if file.parts[0] != "models"]
            found[place] = {
                "versions": [file for file in bundle.files if file.parts[0] == "models"],
                # What was measured differs, and how often it was measured does not.
                **{str(one): as_the_same(bundle.folder / one, tmp_path / place) for one in texts},
            }
    finally:
        tfserve_nb.shutdown()

    assert found["kernel"] == found["child"]
    assert "(10 runs)" in found["child"]["README.md"]


def as_the_same(file: Path, folder: Path) -> str:
    """A file's text without where it lies and how long runs took."""
    return re.sub(r"rows [\d.e-]+ ms", "rows SOME ms", file.read_text().replace(str(folder), "FOLDER"))


# ---------------------------------------------------------------- schemas and tools


SHAPES = {
    "tf-serving/compose.yaml": COMPOSE,
    "tf-serving/prometheus-rules.yaml": RULES,
    "kserve/kserve/tensorflow.yaml": INFERENCE_SERVICE,
    "kserve/kserve/tfserve-nb.yaml": INFERENCE_SERVICE,
    "ray/serve.yaml": SERVE,
    "ray/rayservice.yaml": RAY_SERVICE,
}
"""Files of YAML that are checked as they are written; objects of Kubernetes have their kind's shape."""

OBJECTS = ("kserve/kserve/volume.yaml", "kubernetes/kubernetes/*.yaml", "kubernetes/kubernetes/later/*.yaml")


def misspellings(value: Any, shape: Any) -> Iterator[Any]:
    """Copies of a document, each with another key misspelt; names that users choose are no keys."""
    if isinstance(shape, tuple):
        shape = next(one for one in shape if not problem_of(value, one, ""))
    if isinstance(shape, list):
        for place, one in enumerate(value):
            yield from ([*value[:place], wrong, *value[place + 1 :]] for wrong in misspellings(one, shape[0]))
    elif isinstance(shape, Keys | dict):
        for key, inner in value.items():
            of_inner = shape.value if isinstance(shape, Keys) else shape.get(key, shape.get(f"{key}!"))
            yield from ({**value, key: wrong} for wrong in misspellings(inner, of_inner))
            if not isinstance(shape, Keys):
                yield {f"{name}x" if name == key else name: one for name, one in value.items()}


@pytest.mark.parametrize("files", [*SHAPES, *OBJECTS])
def test_no_misspelt_key_of_a_file_passes(bundles: dict[str, Path], files: str) -> None:
    target, _, inside = files.partition("/")
    found = sorted(bundles[target].glob(inside))
    assert found
    for document in [one for file in found for one in values(file)]:
        shape = SHAPES.get(files) or KINDS[document["kind"]]
        assert problem_of(document, shape, "") == ""
        wrong = list(misspellings(document, shape))
        assert len(wrong) > 2
        assert [one for one in wrong if "has no key" not in problem_of(one, shape, "")] == []


def refused_by_protos(path: Path) -> str:
    """What the readers of `tfserve-nb serve` say of a file; "" when nothing is wrong."""
    readers = {"models": read_model_configs, "batching": read_batching, "monitoring": read_metrics_path}
    try:
        readers[path.stem](str(path))
    except ConfigRejected as error:
        return error.message
    return ""


def refused_by_kubernetes(path: Path) -> str:
    """What Kubernetes' schemas, the oldest that is meant and the newest, say of its objects."""
    import kubernetes_validate

    try:
        for one in values(path):
            for version in ("1.30", kubernetes_validate.latest_version()):
                kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def refused_by_promtool(path: Path) -> str:
    """What Prometheus' own tool says of rules."""
    return told_by("promtool", "check", "rules", path, is_fine=lambda done: done.returncode == 0)


def refused_by_systemd(path: Path) -> str:
    """What systemd says of a unit; the server's program need not be there."""
    path.write_text(path.read_text().replace("/usr/bin/tensorflow_model_server", "/bin/true"))
    return told_by("systemd-analyze", "verify", path, is_fine=lambda done: not done.stderr)


def told_by(*command: Any, is_fine: Callable[[subprocess.CompletedProcess[str]], bool]) -> str:
    """What a program writes about something that is wrong."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if is_fine(done) else done.stdout + done.stderr


@pytest.mark.parametrize(
    ("refused", "file", "key"),
    [
        (refused_by_protos, "tf-serving/models.config", "base_path"),
        (refused_by_protos, "tf-serving/models.config", "version_labels"),
        (refused_by_protos, "tf-serving/batching.config", "max_enqueued_batches"),
        (refused_by_protos, "tf-serving/monitoring.config", "prometheus_config"),
        (refused_by_promtool, "tf-serving/prometheus-rules.yaml", "expr"),
        (refused_by_promtool, "tf-serving/prometheus-rules.yaml", "annotations"),
        (refused_by_systemd, "tf-serving/tensorflow-serving.service", "Restart"),
        (refused_by_systemd, "tf-serving/tensorflow-serving.service", "DynamicUser"),
        (refused_by_kubernetes, "kubernetes/kubernetes/deployment.yaml", "readinessProbe"),
        (refused_by_kubernetes, "kubernetes/kubernetes/service.yaml", "targetPort"),
        (refused_by_kubernetes, "kubernetes/kubernetes/autoscaler.yaml", "averageUtilization"),
        (refused_by_kubernetes, "kubernetes/kubernetes/disruption-budget.yaml", "maxUnavailable"),
        (refused_by_kubernetes, "kubernetes/kubernetes/network-policy.yaml", "policyTypes"),
        (refused_by_kubernetes, "kubernetes/kubernetes/secret.yaml", "stringData"),
        (refused_by_kubernetes, "kubernetes/kubernetes/later/tensorflow-serving.yaml", "startupProbe"),
        (refused_by_kubernetes, "kubernetes/kubernetes/later/parity-job.yaml", "secretKeyRef"),
        (refused_by_kubernetes, "kserve/kserve/secret.yaml", "stringData"),
        (refused_by_kubernetes, "kserve/kserve/volume.yaml", "accessModes"),
        (refused_by_kubernetes, "kserve/kserve/volume.yaml", "claimName"),
    ],
)
def test_what_will_read_a_file_takes_it_and_refuses_a_misspelt_key(
    bundles: dict[str, Path], tmp_path: Path, refused: Callable[[Path], str], file: str, key: str
) -> None:
    target, _, inside = file.partition("/")
    copy = Path(shutil.copy(bundles[target] / inside, tmp_path))
    assert refused(copy) == ""

    text = copy.read_text()
    copy.write_text(re.sub(rf"\b{key}\b", f"{key}x", text, count=1))

    assert copy.read_text() != text
    assert f"{key}x" in refused(copy)


def test_ray_serve_reads_its_file(bundles: dict[str, Path]) -> None:
    """Ray's own schema takes it; of a misspelt key it says nothing, which is why ours is asked first."""
    code = (
        "import sys, yaml\nfrom ray.serve.schema import ServeDeploySchema\n"
        "told = ServeDeploySchema.model_validate(yaml.safe_load(open(sys.argv[1])))\n"
        "print(told.applications[0].deployments[0].user_config['models'][0]['name'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, bundles["ray"] / "serve.yaml"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "hpt\n"), done.stderr


def test_services_find_their_pods(bundles: dict[str, Path]) -> None:
    files = [*(bundles["kubernetes"] / "kubernetes").rglob("*.yaml"), bundles["kserve"] / "kserve" / "secret.yaml"]
    objects = [one for file in files for one in values(file)]
    theirs = {one["kind"] for one in objects}

    assert theirs == {
        "Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service",
        "ServiceMonitor",
    }  # fmt: skip
    (service,) = [one for one in objects if one["kind"] == "Service" and one["metadata"]["name"] == "hpt"]
    for one in objects:
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "hpt":
            assert one["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]


def test_pods_of_kserve_are_what_kubernetes_takes(bundles: dict[str, Path]) -> None:
    """KServe's own keys are checked while they are written; what it passes on is a pod's."""
    import kubernetes_validate

    (own,) = values(bundles["kserve"] / "kserve" / "tfserve-nb.yaml")
    spec = {key: own["spec"]["predictor"][key] for key in ("containers", "volumes")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hpt"}, "spec": spec}
    kubernetes_validate.validate(pod, "1.30", strict=True)

    (theirs,) = values(bundles["kserve"] / "kserve" / "tensorflow.yaml")
    address = theirs["spec"]["predictor"]["model"]["storageUri"]
    assert address == "pvc://tfserve-models/hpt-123"
    assert (bundles["kserve"] / "storage" / "hpt-123" / "123" / "saved_model.pb").is_file()


def test_ray_is_told_what_is_served(bundles: dict[str, Path]) -> None:
    import kubernetes_validate

    (config,) = values(bundles["ray"] / "serve.yaml")
    (service,) = values(bundles["ray"] / "rayservice.yaml")
    inside = yaml.safe_load(service["spec"]["serveConfigV2"])
    for told, base in ((config, bundles["ray"] / "models"), (inside, Path("/models"))):
        (deployment,) = told["applications"][0]["deployments"]
        (model,) = models_of(deployment["user_config"])
        assert (model.name, model.base_path, model.versions) == ("hpt", f"{base}/hpt", (123,))
        assert (dict(model.labels), dict(model.traffic)) == ({"stable": 123}, {123: 100.0})
    assert (bundles["ray"] / "models" / "hpt" / "123" / "saved_model.pb").is_file()
    assert "ray[" in (bundles["ray"] / "app" / "requirements.txt").read_text()
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.30", strict=True)


def test_tokens_are_new_and_private(bundles: dict[str, Path]) -> None:
    tokens = set()
    for target in ("kubernetes", "kserve"):
        file = bundles[target] / target / "secret.yaml"
        (secret,) = values(file)
        tokens.add(secret["stringData"]["token"])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"{target}/secret.yaml" in (bundles[target] / ".gitignore").read_text()
    assert len(tokens) == 2
    assert min(map(len, tokens)) > 40


def test_every_readme_has_its_lines_and_says_what_was_not_run(bundles: dict[str, Path]) -> None:
    for target, folder in bundles.items():
        readme = (folder / "README.md").read_text()
        block = re.search(r"```sh\n(.+?)\n```", readme, re.DOTALL)
        assert block, target
        assert 3 <= len(block[1].splitlines()) <= 6, target
        assert "## Not run" in readme, target
        assert "label stable → 123" in readme, target
    assert "(not run)" in (bundles["vertex"] / "README.md").read_text()


def test_a_command_that_cannot_be_carried_out_says_why_in_a_line(bundles: dict[str, Path], store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tfserve_nb", "bundle", bundles["docker"], f"--model_base_path={store}/half_plus_two"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"tfserve-nb bundle: {bundles['docker']} is not empty, and nothing in it is replaced "
        "(try: an empty or a new folder)\n"
    )
