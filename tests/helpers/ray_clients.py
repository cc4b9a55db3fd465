"""Clients of replicas on Ray that look at every answer; the model's answers tell the version that gave them."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tfserve_nb.scaleout.ray.deploy import RayServer

from .eventually import eventually

OFFSETS = {1: 2.0, 2: 3.0, 3: 4.0}
"""What a version adds to half of its input."""
TOKEN = "secret-of-the-ring"
SETTLED_S = 120.0


def rest(server: RayServer, method: str, path: str, body: object = None, token: str | None = TOKEN) -> tuple[int, Any]:
    """Status and JSON of one request; a body that is bytes is sent as it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({} if token is None else {"Authorization": f"Bearer {token}"})}
    request = urllib.request.Request(f"{server.handle.url}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something holds, and ask now and then only: asking takes a while too."""

    def found() -> bool:
        if is_so():
            return True
        time.sleep(0.3)
        return False

    eventually(found, SETTLED_S)


@dataclass
class Load:
    """Clients that each send one request after the other, and look at every answer.

    Attributes:
        port: of REST.
        versions: answers of each version.
        problems: what went wrong, in words.
        slowest_s: the longest that an answer took.
    """

    port: int
    versions: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_answers(self) -> int:
        """Right answers so far."""
        return self.versions.total()

    @contextmanager
    def from_clients(self, number: int) -> Iterator[None]:
        """Send while the block runs."""
        self._stop.clear()
        threads = [threading.Thread(target=self._send, args=(one,), name=f"client-{one}") for one in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(90)

    def _send(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        value = float(number)
        while not self._stop.is_set():
            value += 8.0
            began_s = time.perf_counter()
            try:
                version, outcome = predict(connection, [value, value + 1])
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                self._note(f"{type(error).__name__} after {time.perf_counter() - began_s:.2f} s: {error}")
                self._stop.wait(0.05)
                continue
            took_s = time.perf_counter() - began_s
            expected = {"predictions": [0.5 * x + OFFSETS.get(version, 0.0) for x in (value, value + 1)]}
            if outcome != expected:
                self._note(f"version {version} answered {outcome}, not {expected}")
                continue
            with self._lock:
                self.versions[version] += 1
                self.slowest_s = max(self.slowest_s, took_s)
        connection.close()

    def _note(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)


def predict(connection: http.client.HTTPConnection, values: list[float]) -> tuple[int, Any]:
    """Version and JSON of an answer over REST; version 0 for an error."""
    return begin_to_predict(connection, values)()


def begin_to_predict(connection: http.client.HTTPConnection, values: list[float]) -> Callable[[], tuple[int, Any]]:
    """Send the head of a request; what is returned sends the body, and gives the version and JSON of the answer."""
    body = json.dumps({"instances": values}).encode()
    connection.putrequest("POST", "/v1/models/hpt:predict")
    for name, value in (("Authorization", f"Bearer {TOKEN}"), ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders()

    def finish() -> tuple[int, Any]:
        connection.send(body)
        response = connection.getresponse()
        return int(response.headers.get("X-TFServe-Version", 0)), json.loads(response.read())

    return finish
