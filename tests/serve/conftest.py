"""`tfserve-nb serve` as a black box; see `black_box.Served`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.black_box import Served, Start, servers
from helpers.saved_models import write_half_plus_two, write_many_types, write_quick_half_plus_two, write_until_file


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers that end with the test."""
    with servers(lambda: tmp_path_factory.mktemp("log")) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers that end with the tests of the module."""
    with servers(lambda: tmp_path_factory.mktemp("log")) as begin:
        yield begin


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `{half_plus_two,quick}/00000123`, `two_versions/{1,2}`, `many/1`, `until_file/1`."""
    root = tmp_path_factory.mktemp("store")
    write_half_plus_two(root / "half_plus_two" / "00000123")
    write_quick_half_plus_two(root / "quick" / "00000123")
    write_half_plus_two(root / "two_versions" / "1")
    write_half_plus_two(root / "two_versions" / "2", offset=3.0)
    write_many_types(root / "many" / "1")
    write_until_file(root / "until_file" / "1")
    return root


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture
def served(common: Served) -> Iterator[Served]:
    """The common server; the test's channels are closed after it."""
    yield common
    common.close_channels()


@pytest.fixture(scope="session", params=[0, 2], ids=["one-process", "workers"])
def common(
    request: pytest.FixtureRequest,
    store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A server with all the models; tests do not change it, and see no difference when it has workers."""
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(
        f"""
        model_config_list {{
          config {{ name: "hpt" base_path: "{store}/half_plus_two" model_platform: "tensorflow" }}
          config {{
            name: "two" base_path: "{store}/two_versions" model_platform: "tensorflow"
            model_version_policy {{ all {{}} }}
            version_labels {{ key: "stable" value: 1 }}
            version_labels {{ key: "canary" value: 2 }}
          }}
          config {{ name: "many" base_path: "{store}/many" model_type: TENSORFLOW }}
          config {{ name: "until_file" base_path: "{store}/until_file" model_platform: "tensorflow" }}
        }}
        """
    )
    with servers(lambda: tmp_path_factory.mktemp("log")) as start:
        yield start(
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models",
            "--enable_grpc_healthcheck_service",
            "--rest_api_enable_cors_support=true",
            "--allow_ops=MatchingFiles",
            f"--workers={request.param}",
        )


@pytest.fixture
def refused() -> Callable[..., tuple[str, str]]:
    """Call a method that must fail; its status code's name and its text."""

    def call(method: Callable[..., Any], request: Any, **options: Any) -> tuple[str, str]:
        import grpc

        try:
            method(request, timeout=30, **options)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        pytest.fail("the call was answered")

    return call
