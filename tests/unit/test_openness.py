"""The line of `tfserve-nb serve` that says what is open, and which folders reloads may name then."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tfserve_nb.cli.openness import openness
from tfserve_nb.cli.serve_flags import parse_serve
from tfserve_nb.cli.serve_plan import ServePlan, make_plan
from tfserve_nb.serving.models.model_config import ModelConfig

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"


def plan_of(*flags: str) -> ServePlan:
    return make_plan(parse_serve(["--model_base_path=/models/m", *flags]))


def line(plan: ServePlan, *paths: str) -> str:
    return openness(plan, [ModelConfig(f"m{number}", path) for number, path in enumerate(paths)])[1]


@pytest.fixture
def tls(tmp_path: Path) -> str:
    path = tmp_path / "tls.config"
    path.write_text(f"server_key: {json.dumps(PEM)} server_cert: {json.dumps(PEM)} client_verify: true")
    return str(path)


def test_what_is_open_without_a_token() -> None:
    who = "Every user of this machine may call the models. Open without a token: "
    grpc = f"{who}predictions, states and metadata over gRPC; "

    assert line(plan_of(), "/models/m") == (
        f"{grpc}reloads of the configuration with models below /models/m. --auth_token_file asks for a token"
    )
    assert "over gRPC and REST" in line(plan_of("--rest_api_port=8501"), "/models/m")
    assert "web pages of any origin" in line(plan_of("--rest_api_port=8501", "--rest_api_enable_cors_support"))
    assert "models below /a, /b, /c and 2 more." in line(plan_of(), "/a", "/b", "/c", "/d", "/e", "/a")
    assert "models in any folder." in line(plan_of("--reload_base_paths=/"), "/a")
    assert "models nowhere" in line(plan_of())
    named = plan_of("--rest_api_port=8501", "--allowed_hosts=a.example.org,b.example.org")
    assert "requests that a proxy sends for a.example.org, b.example.org" in line(named)
    level, text = openness(plan_of("--host=0.0.0.0"), [])
    assert level == logging.WARNING
    assert text.startswith("Every machine that can reach this one may call the models. Open without a token: predict")


def test_a_token_or_clients_certificates_close_it(tmp_path: Path, tls: str) -> None:
    (tmp_path / "token").write_text("secret")
    closed = "Open without a token or certificate: nothing but health checks"

    by_token = plan_of("--rest_api_port=8501", f"--auth_token_file={tmp_path}/token")
    by_certificate = plan_of(f"--ssl_config_file={tls}")
    half = plan_of(f"--ssl_config_file={tls}", "--rest_api_port=8501")

    assert (line(by_token), line(by_certificate)) == (closed, closed)
    assert [plan.reload_base_paths for plan in (by_token, by_certificate, half)] == [None, None, None]
    assert "over REST" in line(half)
    assert "reloads" not in line(half)


def test_folders_for_reloads_and_origins_of_web_pages() -> None:
    assert plan_of("--reload_base_paths=/a,/b/,rel").reload_base_paths == ("/a", "/b", str(Path("rel").absolute()))
    assert plan_of().reload_base_paths == ()
    assert plan_of("--rest_api_port=8501").settings.checks_origin
    assert not plan_of("--rest_api_port=8501", "--rest_api_enable_cors_support").settings.checks_origin
