"""A running server in front of a fake core, and a small HTTP client."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from helpers.fake_serving import FakeServing

from tfserve_nb.server.settings import ServerSettings
from tfserve_nb.server.thread import ServerThread

TOKEN = "right-token"


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Server:
    """A server and how to call it."""

    serving: FakeServing
    thread: ServerThread

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Answered:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.thread.port, timeout=40)
        try:
            sent = {"Authorization": f"Bearer {token}"} if token is not None else {}
            data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Answered(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def predict(self, body: object, path: str = "/v1/models/double:predict", **options: Any) -> Answered:
        """A predict call."""
        return self.call("POST", path, body, **options)

    def connect(self) -> socket.socket:
        """A raw connection; close it after use."""
        return socket.create_connection(("127.0.0.1", self.thread.port), timeout=40)


@pytest.fixture
def serving() -> Iterator[FakeServing]:
    fake = FakeServing()
    yield fake
    fake.close()


@pytest.fixture(params=[0, 1], ids=["one-process", "worker"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers the servers of a test have: whoever asks shall see no difference."""
    return int(request.param)


@pytest.fixture
def make_server(serving: FakeServing, workers: int) -> Iterator[Callable[..., Server]]:
    """Start servers with settings of their own; they are stopped after the test."""
    started: list[ServerThread] = []

    def make(**settings: Any) -> Server:
        thread = ServerThread(serving, replace(ServerSettings(token=TOKEN, workers=workers), **settings))
        thread.start()
        started.append(thread)
        return Server(serving, thread)

    yield make
    for thread in started:
        thread.stop()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server()


@pytest.fixture(scope="module", params=[0, 1], ids=["one-process", "worker"])
def common(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One for all tests of a module that look at nothing but answers: workers take longer to start than to answer."""
    fake = FakeServing()
    thread = ServerThread(fake, ServerSettings(token=TOKEN, workers=request.param))
    thread.start()
    yield Server(fake, thread)
    thread.stop()
    fake.close()
