"""The clients of another server: what they share with the admin API's table, and their connections."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import NotAvailable
from tfserve_nb.experiment.admin import ExperimentAdmin
from tfserve_nb.server.admin import connection as connections
from tfserve_nb.server.admin.client import RemoteExperiments, RemoteModels
from tfserve_nb.server.admin.connection import ServerConnection
from tfserve_nb.server.admin.operations import EXPERIMENT_OPERATIONS, MODEL_OPERATIONS, Operation
from tfserve_nb.serving.admin import ModelAdmin
from tfserve_nb.serving.backend import ModelSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "admin-api.md"
DECLARED = [
    *((one, ModelAdmin, RemoteModels) for one in MODEL_OPERATIONS),
    *((one, ExperimentAdmin, RemoteExperiments) for one in EXPERIMENT_OPERATIONS),
]


class Scripted:
    """A server that answers what a test says, and counts connections.

    Attributes:
        asked: method and path of each request, with its header fields.
        bodies: what the requests carried.
        num_connections: those that were opened.
        num_open: those that are open now.
        answer: (method, path, fields) -> status, fields and JSON; None closes the connection without an answer.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.num_connections = self.num_open = 0
        self.answer: Callable[[str, str, dict[str, str]], tuple[int, dict[str, str], Any] | None] = lambda *_: (
            200,
            {},
            {"models": []},
        )
        self.changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer.note(1)

            def finish(self) -> None:
                super().finish()
                outer.note(-1)

            def do_GET(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                fields = dict(self.headers.items())
                outer.asked.append((self.command, self.path, fields))
                found = outer.answer(self.command, self.path, fields)
                if found is None:
                    self.close_connection = True
                    return
                status, more, value = found
                text = json.dumps(value).encode()
                self.send_response(status)
                for name, content in {**more, "Content-Length": str(len(text))}.items():
                    self.send_header(name, content)
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name="scripted", daemon=True)
        self.thread.start()

    def note(self, change: int) -> None:
        """A connection was opened or closed."""
        with self.changed:
            self.num_connections += max(0, change)
            self.num_open += change
            self.changed.notify_all()

    def wait_for_open(self, number: int) -> bool:
        """Whether so many connections are open in the end."""
        with self.changed:
            return self.changed.wait_for(lambda: self.num_open == number, 10)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


@pytest.fixture
def models(scripted: Scripted) -> Iterator[RemoteModels]:
    remote = RemoteModels(scripted.url, "token")
    yield remote
    remote.connection.close()


@pytest.mark.parametrize(("operation", "protocol", "client"), DECLARED, ids=[one[0].path for one in DECLARED])
def test_a_client_has_each_operation_with_the_protocols_signature(
    operation: Operation, protocol: type, client: type
) -> None:
    name = operation.call.__name__

    declared, offered = (inspect.signature(getattr(one, name)) for one in (protocol, client))

    assert [one.name for one in declared.parameters.values()] == [one.name for one in offered.parameters.values()]
    assert declared.return_annotation == offered.return_annotation
    assert getattr(client, name).__doc__


@pytest.mark.parametrize("operation", [one[0] for one in DECLARED], ids=lambda one: f"{one.http_method} {one.path}")
def test_each_operation_is_documented(operation: Operation) -> None:
    path = operation.path.replace("{name}", "NAME")
    assert f"`{operation.http_method} {path}`" in DOCUMENT.read_text(encoding="utf-8")


def test_no_two_operations_share_a_path() -> None:
    declared = [(one.http_method, one.path) for one, _, _ in DECLARED]
    assert len(set(declared)) == len(declared)


def test_a_connection_is_kept_and_closed(scripted: Scripted, models: RemoteModels) -> None:
    for _ in range(5):
        assert models.names == ()
    assert (len(scripted.asked), scripted.num_connections) == (5, 1)

    models.connection.close()
    models.connection.close()

    assert scripted.wait_for_open(0)
    assert models.names == ()
    assert scripted.num_connections == 2


def test_connections_end_with_the_object_that_owns_them(scripted: Scripted) -> None:
    remote = RemoteModels(scripted.url, None)
    assert remote.names == ()
    assert scripted.wait_for_open(1)

    del remote

    assert scripted.wait_for_open(0)


def test_a_forked_process_has_connections_of_its_own(scripted: Scripted, monkeypatch) -> None:
    remote = RemoteModels(scripted.url, None)
    assert remote.names == ()
    with monkeypatch.context() as patch:
        patch.setattr(connections.os, "getpid", lambda: -1)
        assert remote.names == ()
        assert scripted.num_connections == 2
        remote.connection.close()
        assert scripted.wait_for_open(1)  # the parent's

    del remote

    assert scripted.wait_for_open(0)


def test_only_a_read_is_sent_again_when_a_connection_breaks(scripted: Scripted, models: RemoteModels) -> None:
    assert models.names == ()
    usual, breaks = scripted.answer, [True]

    def break_once(*request: Any) -> Any:
        return None if breaks.pop() else usual(*request)

    breaks[:] = [False, True]
    scripted.answer = break_once
    assert models.names == ()
    assert [method for method, _, _ in scripted.asked] == ["GET", "GET", "GET"]

    breaks[:] = [False, True]
    with pytest.raises(NotAvailable, match=f"{scripted.url} cannot be reached"):
        models.promote("net", 1)
    assert [method for method, _, _ in scripted.asked[3:]] == ["POST"]


def test_a_server_that_is_not_there(scripted: Scripted) -> None:
    url = "http://127.0.0.1:1"
    with pytest.raises(NotAvailable, match=r"127.0.0.1:1 cannot be reached: .*Connection refused") as caught:
        assert RemoteModels(url, "token").names
    assert caught.value.hint == "is the server running?"
    with pytest.raises(NotAvailable, match="cannot be reached: it is being started again"):
        RemoteModels(url, "token", unavailable_reason=lambda: "it is being started again").base_path("net")


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://127.0.0.1:8501", {"http_proxy": "http://proxy:3128"}, None),
        ("http://localhost:8501", {"http_proxy": "http://proxy:3128"}, None),
        ("http://[::1]:8501", {"http_proxy": "http://proxy:3128"}, None),
        ("http://models.example:8501", {"http_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("http://models.example:8501", {"http_proxy": "proxy:3128"}, "http://proxy:3128"),
        ("https://models.example", {"http_proxy": "http://proxy:3128"}, None),
        ("https://models.example", {"https_proxy": "http://secure:3128"}, "http://secure:3128"),
        ("http://models.example", {"http_proxy": "http://proxy:3128", "no_proxy": "models.example"}, None),
        ("http://models.example", {"ALL_PROXY": "socks5://proxy:1080"}, None),
    ],
)
def test_proxies_are_those_that_urllib_finds(
    url: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        for one in (name, name.upper()):
            monkeypatch.delenv(one, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert connections.proxy_of(url) == proxy


def metadata(dtype: str, version: int) -> dict[str, Any]:
    """What REST tells of a version that adds two."""
    info = {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}], "unknown_rank": False}, "name": "x:0"}
    definition = {"inputs": {"x": info}, "outputs": {"y": info}, "method_name": "tensorflow/serving/predict"}
    return {
        "model_spec": {"version": str(version)},
        "metadata": {"signature_def": {"signature_def": {"serving_default": definition}}},
    }


def answered(dtype: str) -> dict[str, Any]:
    """The response to an inference request."""
    datatype = {"DT_FLOAT": "FP32", "DT_INT32": "INT32"}[dtype]
    return {"outputs": [{"name": "y", "datatype": datatype, "shape": [1], "data": [3]}]}


def test_signatures_are_asked_once_and_again_when_they_changed(scripted: Scripted, models: RemoteModels) -> None:
    now = {"mark": "a", "dtype": "DT_FLOAT"}

    def answer(method: str, path: str, fields: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if path.endswith("/metadata"):
            return 200, {"X-TFServe-Signatures": now["mark"]}, metadata(now["dtype"], 1)
        if fields.get("x-tfserve-signatures", fields.get("X-TFServe-Signatures")) != now["mark"]:
            return 412, {}, {"error": "other signatures"}
        return 200, {}, answered(now["dtype"])

    scripted.answer = answer
    spec = ModelSpec("net")
    for _ in range(3):
        assert models.predict(spec, "serving_default", np.ones(1), 5)["y"].dtype == np.float32
    assert [path.rpartition("/")[2] for _, path, _ in scripted.asked] == ["metadata"] + 3 * ["infer"]

    scripted.asked.clear()
    now.update(mark="b", dtype="DT_INT32")

    assert models.predict(spec, "serving_default", np.ones(1, np.int32), 5)["y"].dtype == np.int32
    assert [path.rpartition("/")[2] for _, path, _ in scripted.asked] == ["infer", "metadata", "infer"]


def test_a_server_that_does_not_name_its_signatures_is_asked_each_time(
    scripted: Scripted, models: RemoteModels
) -> None:
    scripted.answer = lambda _, path, __: (
        (200, {}, metadata("DT_FLOAT", 1)) if path.endswith("/metadata") else (200, {}, answered("DT_FLOAT"))
    )
    for _ in range(2):
        models.predict(ModelSpec("net"), "serving_default", np.ones(1, np.float32), 5)
    assert [method for method, _, _ in scripted.asked] == ["GET", "POST", "GET", "POST"]


@pytest.mark.parametrize(
    ("label", "sent"),
    [
        (3, 3),
        ("ä", "ä"),
        (b"a\0", "a\0"),
        ([b"\xff", "x"], ["\udcff", "x"]),
        (np.array([1.5, 2], np.float32), [1.5, 2.0]),
        ([np.int64(4), True], [4, True]),
        ({"kind": b"a", "price": np.array([7.0])}, {"kind": "a", "price": [7.0]}),
    ],
)
def test_labels_of_any_kind_are_sent(scripted: Scripted, label: Any, sent: Any) -> None:
    scripted.answer = lambda *_: (200, {}, {"is_known": True})
    experiments = RemoteExperiments(RemoteModels(scripted.url, "token"))

    assert experiments.feedback("net", "r-1", label)
    assert json.loads(scripted.bodies[-1])["label"] == sent
    experiments.connection.close()


def test_an_answer_that_is_no_json_is_no_answer(scripted: Scripted) -> None:
    connection = ServerConnection(scripted.url, None)
    scripted.answer = lambda *_: (404, {}, "no object")
    with pytest.raises(NotAvailable, match="has no admin API"):
        connection.call("GET", "/tfserve/v1/models", None, 5)
    connection.close()
