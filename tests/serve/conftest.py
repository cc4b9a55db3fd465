"""`tfserve-nb serve` as a black box: a process, its ports, and the clients that TensorFlow Serving's users have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from saved_models import write_half_plus_two, write_many_types

START_S = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass
class Served:
    """A running server process."""

    process: subprocess.Popen[str]
    log: Path
    grpc_port: int
    rest_port: int
    channels: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text()

    def wait_for(self, words: str, limit_s: float = START_S) -> None:
        """Wait until it has printed some words."""
        until_s = time.perf_counter() + limit_s
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.perf_counter() < until_s, f"{words!r} did not come:\n{self.text}"
            time.sleep(0.05)

    def rest(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """(status, parsed JSON or text, headers) of one request."""
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}{path}", data, headers or {}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, _parsed(response.read()), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read()), error.headers

    def predict(self, body: object, model: str = "hpt", target: str = "") -> tuple[int, Any]:
        """Status and parsed JSON of a REST predict."""
        status, value, _ = self.rest("POST", f"/v1/models/{model}{target}:predict", body)
        return status, value

    def stub(self, service: str = "prediction", address: str | None = None, credentials: Any = None) -> Any:
        """A real stub of tensorflow-serving-api."""
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        where = address or f"127.0.0.1:{self.grpc_port}"
        channel = grpc.insecure_channel(where) if credentials is None else grpc.secure_channel(where, credentials)
        self.channels.append(channel)
        if service == "model":
            return model_service_pb2_grpc.ModelServiceStub(channel)
        return prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def close_channels(self) -> None:
        """Close what `stub` opened."""
        for channel in self.channels:
            channel.close()
        self.channels.clear()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; its exit code."""
        self.close_channels()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()


def command(*flags: str) -> list[str]:
    """The command line of a server."""
    return [sys.executable, "-m", "tfserve_nb", "serve", *flags]


def environment() -> dict[str, str]:
    """Quiet TensorFlow, and no GPU that tests could fight over."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}


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


@pytest.fixture(scope="session")
def common(start: Callable[..., Served], store: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """One server with all the models; tests do not change it."""
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
