"""What replicas on Ray are told: models, options of the deployment, flags, the environment; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tfserve_nb.cli.ray import IN_REPLICAS, RAY_FLAGS, _groups, plan_of
from tfserve_nb.cli.ray_replica import application, settings_of
from tfserve_nb.cli.serve_flags import GROUPS, parse_flags
from tfserve_nb.errors import ConfigRejected, InvalidOption, ServingError
from tfserve_nb.scaleout.ray.config import IMPORT_PATH, SERVICES, RayPlan
from tfserve_nb.scaleout.ray.replica_model import ReplicaModel, models_of
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.models.model_config import LoggingOptions, ModelConfig, VersionPolicy

LIMITS = BatchingOptions(8, 500, 10, (4, 8))
MODEL = ReplicaModel("m", "/models/m", (1, 2), {2: 90.0, 1: 10.0}, {"stable": 1}, (1, 2), {1: LIMITS})
ENTRY = {
    "name": "m", "base_path": "/models/m", "versions": [1, 2], "traffic": {"2": 90.0, "1": 10.0},
    "labels": {"stable": 1}, "promoted": [1, 2], "batching": {"1": {
        "max_batch_size": 8, "batch_timeout_micros": 500, "max_enqueued_batches": 10, "allowed_batch_sizes": [4, 8],
    }},
}  # fmt: skip


def test_a_model_and_its_entry_are_two_forms_of_one_thing() -> None:
    assert MODEL.to_json() == ENTRY
    assert models_of({"models": [ENTRY], "revision": "abc"}) == (MODEL,)
    assert models_of({"models": [{"name": "m", "base_path": "/m"}]}) == (ReplicaModel("m", "/m"),)
    assert ReplicaModel("m", "/m").to_json() == {"name": "m", "base_path": "/m"}
    assert models_of({"models": [{**ENTRY, "traffic": {2: 90, 1: 10}}]}) == (MODEL,), "YAML has numbers as keys"


@pytest.mark.parametrize(
    ("user_config", "message"),
    [
        (None, "user_config is None, needed is an object with models"),
        ({"models": []}, "user_config lists no models"),
        ({"model": [ENTRY]}, "user_config has no 'model'; it has models, revision"),
        (
            {"models": [{**ENTRY, "version_s": [1]}]},
            "an entry of models has no 'version_s'; it has base_path, batch",
        ),
        ({"models": [{"name": "m"}]}, "an entry of models needs 'base_path' as text"),
        ({"models": ["m"]}, "models holds 'm', needed is an object with name,"),
        ({"models": [ENTRY, ENTRY]}, "user_config lists model m more than once"),
        ({"models": [{**ENTRY, "base_path": "models"}]}, "base_path='models' must be an absolute path"),
        ({"models": [{**ENTRY, "versions": "newest"}]}, "versions='newest' must be numbers, 'all', 'latest' or"),
        ({"models": [{**ENTRY, "versions": []}]}, "versions is empty"),
        ({"models": [{**ENTRY, "versions": ["x"]}]}, "model 'm': invalid literal for int"),
        ({"models": [{**ENTRY, "traffic": {"2": 90}}]}, r"traffic \{2: 90.0\} sums to 90, it must sum to 100"),
        ({"models": [{**ENTRY, "traffic": {"3": 100}}]}, "version 3 has traffic or a label and is not among versions"),
        ({"models": [{**ENTRY, "labels": {"2": 1}}]}, "label '2' is a whole number, which names a version"),
        ({"models": [{**ENTRY, "name": "a/b"}]}, "name='a/b' cannot name a model"),
        ({"models": [{**ENTRY, "batching": {"1": {"max_batch": 8}}}]}, "an entry of batching has no 'max_batch'"),
        (
            {"models": [{**ENTRY, "batching": {"1": {"max_batch_size": 0}}}]},
            "model 'm': max_batch_size=0 must be",
        ),
        ({"models": [{**ENTRY, "batching": {"1": 8}}]}, "model 'm': 'int' object is not iterable"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused(user_config: object, message: str) -> None:
    with pytest.raises(ConfigRejected, match=message):
        models_of(user_config)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        (VersionPolicy(), "latest"),
        (VersionPolicy(latest=3), "latest 3"),
        (VersionPolicy(latest=None), "all"),
        (VersionPolicy(latest=None, specific=(2, 1)), (1, 2)),
    ],
)
def test_a_models_config_becomes_an_entry_with_the_same_policy(policy: VersionPolicy, versions: object) -> None:
    model = ReplicaModel.of(ModelConfig("m", "/models/m", policy))

    assert model.versions == versions
    assert model.policy.choose([1, 2, 3, 4]) == policy.choose([1, 2, 3, 4])


def test_logged_requests_are_refused() -> None:
    with pytest.raises(ConfigRejected, match="Model m logs requests, which replicas on Ray do not"):
        ReplicaModel.of(ModelConfig("m", "/models/m", logging=LoggingOptions("/log/m", 0.1)))


def test_a_change_lists_what_it_needs_and_a_rollback_takes_it_back() -> None:
    model = ReplicaModel("m", "/models/m")

    promoted = model.changed_to(model.routing([1]).promote(2))
    back = promoted.changed_to(promoted.routing([1, 2]).roll_back())
    split = back.changed_to(back.routing([1, 2]).with_traffic({2: 30, 3: 70}))

    assert (promoted.versions, promoted.traffic, promoted.promoted) == ((1, 2), {2: 100.0}, (1, 2))
    assert (back.versions, back.traffic, back.promoted) == ((1, 2), {1: 100.0}, (1,))
    assert (split.versions, split.traffic, split.promoted[-1]) == ((2, 3), {2: 30.0, 3: 70.0}, 3)
    assert ReplicaModel("m", "/m", "all").changed_to(model.routing([1, 2]).promote(1)).versions == "all"


def test_labels_keep_their_versions_loaded() -> None:
    model = ReplicaModel("m", "/models/m", (1, 2), {2: 100.0}, promoted=(1, 2))

    labelled = model.changed_to(model.routing([1, 2]).with_label("canary", 3))

    assert (labelled.versions, labelled.labels) == ((2, 3), {"canary": 3})


def test_the_configuration_is_what_ray_reads() -> None:
    plan = RayPlan((MODEL,), flags=("--enable_batching=true",), max_replicas=4, host="0.0.0.0", grpc_port=None)

    config = plan.with_models((MODEL,), "r1").as_config()

    (application_,) = config["applications"]
    (deployment,) = application_["deployments"]
    assert config["http_options"] == {
        "host": "0.0.0.0", "port": 8501, "request_timeout_s": 60.0, "keep_alive_timeout_s": 75,
    }  # fmt: skip
    assert "grpc_options" not in config
    assert (application_["import_path"], application_["args"]) == (
        IMPORT_PATH, {"flags": ["--host=0.0.0.0", "--enable_batching=true"]},
    )  # fmt: skip
    assert deployment["user_config"] == {"models": [ENTRY], "revision": "r1"}
    assert (deployment["autoscaling_config"]["max_replicas"], deployment["max_surge_percent"]) == (4, 100)
    assert RayPlan((MODEL,)).as_config()["grpc_options"]["grpc_servicer_functions"] == [SERVICES]


@pytest.mark.parametrize("path", [IMPORT_PATH.replace(":", "."), SERVICES])
def test_what_ray_imports_by_name_is_there(path: str) -> None:
    import importlib

    module, _, name = path.rpartition(".")

    assert callable(getattr(importlib.import_module(module), name))


def test_further_options_are_added_to_ours() -> None:
    options = {
        "max_queued_requests": 5,
        "autoscaling_config": {"upscale_delay_s": 9},
        "ray_actor_options": {"num_gpus": 1},
    }

    deployment = RayPlan((MODEL,), options=options).deployment()

    assert deployment["max_queued_requests"] == 5
    assert (deployment["autoscaling_config"]["upscale_delay_s"], deployment["autoscaling_config"]["min_replicas"]) == (
        9,
        1,
    )
    assert deployment["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {"max_ongoing_request": 5}}, "a deployment of Ray Serve has no 'max_ongoing_request'; it has"),
        ({"options": {"autoscaling_config": {"max_replica": 5}}}, "autoscaling_config has no 'max_replica'"),
        ({"options": {"ray_actor_options": {"cpus": 5}}}, "ray_actor_options has no 'cpus'"),
        ({"options": {"ray_actor_options": 5}}, "ray_actor_options=5 must hold options"),
        ({"options": {"user_config": {}}}, "user_config follows from the models and the replicas"),
        ({"min_replicas": 0}, "min_replicas=0 must be a whole number from 1"),
        ({"min_replicas": 4}, "max_replicas=3 must be a whole number from 4"),
        ({"max_replicas": 2.5}, "max_replicas=2.5 must be a whole number"),
        ({"port": 0}, "port=0 must be a whole number from 1 to 65535"),
    ],
)
def test_options_that_ray_would_pass_over_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigRejected, InvalidOption), match=message):
        RayPlan((MODEL,), **given)


def test_the_environment_turns_retries_on_where_haproxy_is() -> None:
    with_haproxy, without = RayPlan.environment(), RayPlan.environment(has_haproxy=False)

    assert with_haproxy["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    retried, waits = with_haproxy["RAY_SERVE_HAPROXY_RETRY_ON"].splitlines()
    assert ("empty-response" in retried, waits.strip()) == (True, "option http-buffer-request")
    assert not [name for name in without if "PROXY" in name]
    assert without.items() <= with_haproxy.items()


# ---------------------------------------------------------------- the command line


def plan_for(*flags: str) -> tuple[RayPlan, str | None]:
    return plan_of(parse_flags("tfserve-nb ray", "", _groups(), list(flags)))


def test_flags_of_serve_become_models_ports_and_flags_of_the_replicas(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc\n")

    plan, shown = plan_for(
        "--model_name=m", "--model_base_path=/models/m", "--enable_batching", "--port=0", "--max_replicas=5",
        f"--auth_token_file={token}", "--num_gpus=1", "--engine=tensorflow", "--rest_api_timeout_in_ms=90000",
    )  # fmt: skip

    assert plan.models == (ReplicaModel("m", "/models/m"),)
    assert plan.flags == ("--rest_api_timeout_in_ms=90000", "--enable_batching=true", f"--auth_token_file={token}")
    assert (plan.port, plan.grpc_port, plan.max_replicas, plan.request_timeout_s) == (8501, None, 5, 180.0)
    assert plan.options["ray_actor_options"] == {"num_gpus": 1.0}
    assert shown == "abc"
    assert settings_of([f"--host={plan.host}", *plan.flags]).server.token == "abc"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "Neither --model_base_path nor --model_config_file names a model"),
        (("--model_base_path=models/m",), "Expected model default to have an absolute path or URI"),
        (("--model_base_path=/m", "--ssl_config_file=/tls"), "--ssl_config_file does not work with replicas on Ray"),
        (("--model_base_path=/m", "--workers=2"), "--workers does not work with replicas on Ray"),
        (("--model_base_path=/m", "--max_replicas=0"), "max_replicas=0 must be a whole number from 1"),
        (("--model_base_path=/m", "--auth_token_file=/no"), "--auth_token_file=/no cannot be read"),
        (("--model_base_path=/m", "--enable_batching", "--batching_parameters_file=/no"), "/no.*No such file"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(ServingError, match=message):
        plan_for(*flags)


@pytest.mark.parametrize(
    ("flags", "in_replicas"),
    [
        (("--monitoring_config_file=/no",), ()),
        (
            ("--address=http://head:8265", "--enable_batching", "--batching_parameters_file=/no"),
            ("--enable_batching=true", "--batching_parameters_file=/no"),
        ),
    ],
)
def test_files_that_this_command_has_no_use_for_are_not_read(flags: tuple[str, ...], in_replicas: tuple[str]) -> None:
    plan, _ = plan_for("--model_base_path=/m", *flags)

    assert plan.flags == in_replicas


def test_every_flag_of_serve_has_a_place() -> None:
    known = {flag.name for flags in GROUPS.values() for flag in flags}

    assert known >= IN_REPLICAS
    assert not known & {flag.name for flag in RAY_FLAGS}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"flag": []}, "args has no 'flag'; it has flags"),
        ({"flags": "--x"}, "args.flags='--x' must be a list of texts"),
    ],
)
def test_other_arguments_of_the_application_are_refused(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigRejected, match=message):
        application(args)
