"""What the flags of `tfserve-nb serve` mean, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfserve_nb.cli.serve_flags import parse_serve
from tfserve_nb.cli.serve_plan import make_plan
from tfserve_nb.errors import ConfigRejected
from tfserve_nb.serving.engines.engine import EngineKind


@pytest.mark.parametrize(
    ("flags", "is_enabled", "rows", "threads_a_core"),
    [
        ((), True, 1000, 1),
        (("--enable_batching",), True, 1000, 1),
        (("--enable_batching=true",), True, 1000, 1),
        (("--enable_batching=false",), False, 1, 4),
        (("--enable_batching", "false"), False, 1, 4),
    ],
)
def test_requests_share_runs_unless_that_is_turned_off(
    flags: tuple[str, ...], is_enabled: bool, rows: int, threads_a_core: int
) -> None:
    plan = make_plan(parse_serve(["--model_base_path=/x", *flags]))
    batching = plan.follow.batching(Path("/x/1"))

    assert batching.is_enabled == is_enabled
    assert batching.max_batch_size == rows
    assert batching.batch_timeout_micros == 0, "nothing waits"
    assert plan.num_run_threads == threads_a_core * (os.cpu_count() or 1)


def test_without_a_word_about_batching_no_request_is_too_large_or_padded() -> None:
    batching = make_plan(parse_serve(["--model_base_path=/x"])).follow.batching(Path("/x/1"))

    assert batching.input_batch_size_limit is None
    assert batching.padded_size(3) == 3
    assert batching.max_enqueued_rows == 10_000
    assert not batching.checks_shapes


def test_the_engine_is_that_of_all_models_and_has_to_be_one() -> None:
    assert make_plan(parse_serve(["--model_base_path=/x"])).follow.engine == "tensorflow"
    assert make_plan(parse_serve(["--model_base_path=/x", "--engine=auto"])).follow.engine == "auto"
    with pytest.raises(ConfigRejected, match="--engine='onyx' must be one of tensorflow, auto, onnx, litert"):
        make_plan(parse_serve(["--model_base_path=/x", "--engine=onyx"]))


def test_an_engine_that_is_not_installed_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineKind, "missing", property(lambda kind: f"{kind.name} is not installed"))

    with pytest.raises(ConfigRejected, match="--engine='litert': litert is not installed") as error:
        make_plan(parse_serve(["--model_base_path=/x", "--engine=litert"]))
    assert error.value.hint == "pip install 'tfserve_nb[litert]'"


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("", ()),
        ("models.example.org", ("models.example.org",)),
        (" A.example.org , b.example.org,", ("a.example.org", "b.example.org")),
    ],
)
def test_names_of_a_proxy(flag: str, names: tuple[str, ...]) -> None:
    plan = make_plan(parse_serve(["--model_base_path=/x", "--rest_api_port=8501", f"--allowed_hosts={flag}"]))

    assert plan.settings.allowed_hosts == names


@pytest.mark.parametrize("flag", ["models.example.org:443", "https://models.example.org", "*"])
def test_what_is_no_name_of_a_host_is_named(flag: str) -> None:
    with pytest.raises(ConfigRejected, match=r"--allowed_hosts: .* is no name of a host"):
        make_plan(parse_serve(["--model_base_path=/x", f"--allowed_hosts={flag}"]))
