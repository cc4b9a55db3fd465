"""A server process, its ports, and the clients that TensorFlow Serving's users have."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .eventually import eventually
from .server_logs import shown_on_failure

START_S = 120.0
"""How long a server may take to import TensorFlow and load its models."""

STOP_S = 60.0
"""How long it may take to end when it is told to."""


PORTS = range(12_000, 32_000)
"""Below those that Linux gives out for port 0, so no other socket of the run takes one between choosing and binding."""


def free_port() -> int:
    """A port that nobody listens on now."""
    while True:
        port: int = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
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

    @property
    def dashboard_file(self) -> Path:
        """The file with the dashboard's link."""
        found = re.search(r"Open the link in (\S+),", self.text)
        assert found, self.text
        return Path(found[1])

    @property
    def dashboard_link(self) -> str:
        """The dashboard's link, with its token."""
        return self.dashboard_file.read_text().strip()

    def wait_for(self, words: str, limit_s: float = START_S) -> None:
        """Wait until it has printed some words."""

        def has_printed() -> bool:
            has_ended = self.process.poll() is not None  # looked at first: what it printed before its end counts
            assert words in self.text or not has_ended, f"it ended without having printed {words!r}:\n{self.text}"
            return words in self.text

        eventually(has_printed, limit_s)

    def rest(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """(status, parsed JSON or text, headers) of one request."""
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.rest_port}{path}", data, headers or {}, method=method)
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
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise


Start = Callable[..., Served]
"""`start(*flags, wait=True, rest=True)`: a server with ports of its own and these flags.

It returns once the server answers, with `wait=False` at once; with `rest=False` no REST port is given.
"""


@contextmanager
def servers(folder: Callable[[], Path]) -> Iterator[Start]:
    """Start servers; what still runs of them is ended with the block, and failing tests show their logs.

    Args:
        folder: makes an empty folder for a log.
    """
    with ExitStack() as at_end:

        def start(*flags: str, wait: bool = True, rest: bool = True) -> Served:
            grpc_port, rest_port, log = free_port(), free_port(), folder() / "log.txt"
            ports = [] if any(flag.startswith("--port") for flag in flags) else [f"--port={grpc_port}"]
            ports += [f"--rest_api_port={rest_port}"] if rest else []
            with log.open("w") as out:
                process = subprocess.Popen(
                    command(*ports, *flags), stdout=out, stderr=subprocess.STDOUT, text=True, env=environment()
                )
            served = Served(process, log, grpc_port, rest_port)
            at_end.enter_context(shown_on_failure(f"tfserve-nb serve, process {process.pid}", log))
            at_end.callback(served.stop)
            if wait:
                served.wait_for("Entering the event loop")
            return served

        yield start


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
