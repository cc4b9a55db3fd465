"""`tfserve-nb serve` as a black box; see `black_box.Served`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.black_box import Served, command, environment, free_port
from helpers.saved_models import write_half_plus_two, write_many_types


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Start servers; they are ended after the last test."""
    started: list[Served] = []

    def begin(*flags: str, wait: bool = True, rest: bool = True) -> Served:
        grpc_port, rest_port = free_port(), free_port()
        log = tmp_path_factory.mktemp("log") / "log.txt"
        ports = [] if any(flag.startswith("--port") for flag in flags) else [f"--port={grpc_port}"]
        ports += [f"--rest_api_port={rest_port}"] if rest else []
        with log.open("w") as out:
            process = subprocess.Popen(
                command(*ports, *flags), stdout=out, stderr=subprocess.STDOUT, text=True, env=environment()
            )
        served = Served(process, log, grpc_port, rest_port)
        started.append(served)
        if wait:
            served.wait_for("Entering the event loop")
        return served

    yield begin
    for served in started:
        served.stop()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of SavedModels: `half_plus_two/00000123`, `two_versions/{1,2}`, `many/1`."""
    root = tmp_path_factory.mktemp("store")
    write_half_plus_two(root / "half_plus_two" / "00000123")
    write_half_plus_two(root / "two_versions" / "1")
    write_half_plus_two(root / "two_versions" / "2", offset=3.0)
    write_many_types(root / "many" / "1")
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
    start: Callable[..., Served],
    store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
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
        }}
        """
    )
    return start(
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        "--enable_grpc_healthcheck_service",
        "--rest_api_enable_cors_support=true",
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
