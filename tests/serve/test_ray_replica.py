"""A replica as Ray calls it, without Ray: configurations, HTTP requests, gRPC calls, the token and the limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.client_requests import predict_request

from tfserve_nb.cli.ray_replica import FlaggedReplica
from tfserve_nb.errors import VersionNotFound
from tfserve_nb.scaleout.ray import replica as module

TOKEN = "secret"
Use = Callable[[FlaggedReplica], Awaitable[None]]


class RayContext:
    """What a gRPC method gets from Ray, as far as it is used."""

    def __init__(self, token: str | None = TOKEN) -> None:
        self.metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self.code: Any = None
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.metadata

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


async def http(
    replica: FlaggedReplica, method: str, target: str, body: object = None, token: str | None = TOKEN
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and header fields of the response to one request."""
    from starlette.requests import Request

    path, _, query = target.partition("?")
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = [(b"host", b"127.0.0.1:8501"), (b"content-length", b"%d" % len(data))]
    headers += [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": headers, "http_version": "1.1",
    }  # fmt: skip
    parts = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive() -> Any:
        return next(parts)

    response = await replica(Request(scope, receive))
    return response.status_code, json.loads(response.body), dict(response.headers)


@pytest.fixture
def run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Use], None]:
    """Runs a coroutine with a replica that serves `two`, and ends the replica."""
    monkeypatch.setattr(module, "_replica_name", lambda: "replica-1")
    monkeypatch.setattr(module, "postpone", lambda: None)  # this process has TensorFlow
    (tmp_path / "token").write_text(TOKEN)

    def run(use: Use) -> None:
        async def main() -> None:
            replica = FlaggedReplica([f"--auth_token_file={tmp_path / 'token'}", "--max_request_bytes=1000"])
            try:
                await replica.reconfigure(user_config(store, traffic={"1": 100}, labels={"stable": 1}))
                await use(replica)
            finally:
                replica.__del__()

        asyncio.run(main())

    return run


def user_config(store: Path, **changes: Any) -> dict[str, Any]:
    model = {"name": "two", "base_path": str(store / "two_versions"), "versions": [1, 2], **changes}
    return {"models": [model], "revision": "r1"}


def test_http_requests_go_through_our_own_door(run: Callable[[Use], None]) -> None:
    async def use(replica: FlaggedReplica) -> None:
        status, answer, fields = await http(replica, "POST", "/v1/models/two:predict", {"instances": [1.0]})
        assert (status, answer, fields["x-tfserve-version"]) == (200, {"predictions": [2.5]}, "1")
        assert (await http(replica, "POST", "/v1/models/two/versions/2:predict", {"instances": [1.0]}))[1] == {
            "predictions": [3.5]
        }
        assert (await http(replica, "GET", "/v2/models/two"))[1]["versions"] == ["1", "2"]
        assert (await http(replica, "GET", "/healthz", token=None))[:2] == (200, {"status": "ok"})
        assert (await http(replica, "GET", "/nothing"))[0] == 404
        assert (await http(replica, "POST", "/v1/models/two:predict", b"x" * 2000))[0] == 413
        for target in ("/v1/models/two", "/v2/models/two", "/tfserve/v1/models", "/tfserve/v1/replica"):
            status, answer, fields = await http(replica, "GET", target, token="wrong")
            assert (status, answer, fields["www-authenticate"]) == (401, {"error": "The token is wrong"}, "Bearer")

    run(use)


def test_the_admin_api_reads_and_changes_nothing(run: Callable[[Use], None]) -> None:
    async def use(replica: FlaggedReplica) -> None:
        status, answer, fields = await http(replica, "GET", "/tfserve/v1/models/two")
        assert (status, answer["default_version"], fields["x-tfserve-replica"]) == (200, 1, "replica-1")
        assert (await http(replica, "GET", "/tfserve/v1/models/two/metrics?span_s=10&step_s=2"))[1]["span_s"] == 10
        assert (await http(replica, "GET", "/tfserve/v1/models/two/experiment"))[1] == {"experiment": None}
        about = (await http(replica, "GET", "/tfserve/v1/replica"))[1]
        assert (about["revision"], about["problem"], about["on_disk"]) == ("r1", "", {"two": [1, 2]})
        status, answer, _ = await http(replica, "POST", "/tfserve/v1/models/two/promote", {"version": 2})
        assert (status, answer["kind"]) == (501, "Unimplemented")
        assert (await http(replica, "GET", "/tfserve/v1/models/no"))[0] == 404

    run(use)


def test_grpc_calls_go_through_our_own_door(run: Callable[[Use], None]) -> None:
    async def use(replica: FlaggedReplica) -> None:
        answer = await replica.Predict(predict_request("two", [1.0]), RayContext())
        assert list(answer.outputs["y"].float_val) == [2.5]
        for request, token, code, text in (
            (predict_request("no"), TOKEN, "NOT_FOUND", "Servable not found for request: Latest(no)"),
            (predict_request("two"), None, "UNAUTHENTICATED", "A token is needed: send the metadata"),
            (predict_request("two"), "wrong", "UNAUTHENTICATED", "A token is needed"),
            (predict_request("two", [1.0] * 500), TOKEN, "RESOURCE_EXHAUSTED", "Received message larger than max"),
        ):
            context = RayContext(token)
            assert (await replica.Predict(request, context)).SerializeToString() == b""
            assert (context.code.name, text in context.details) == (code, True), context.details

    run(use)


def test_a_configuration_that_cannot_be_served_is_told_and_changes_nothing(
    run: Callable[[Use], None], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(replica: FlaggedReplica) -> None:
        await replica.reconfigure({**user_config(store, versions=[1, 7]), "revision": "r2"})
        about = replica.about()
        assert about["revision"] == "r2"
        assert "model two has no version 7" in about["problem"]
        assert (await http(replica, "POST", "/v1/models/two:predict", {"instances": [1.0]}))[1] == {
            "predictions": [2.5]
        }
        await replica.reconfigure({**user_config(store, traffic={"2": 100}), "revision": "r3"})
        assert (replica.about()["revision"], replica.about()["problem"]) == ("r3", "")
        assert (await http(replica, "POST", "/v1/models/two:predict", {"instances": [1.0]}))[1] == {
            "predictions": [3.5]
        }

    run(use)
    assert "The configuration r2 is not followed: model two has no version 7" in caplog.text


def test_the_first_configuration_must_be_served(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_replica_name", lambda: "replica-1")
    monkeypatch.setattr(module, "postpone", lambda: None)

    async def main() -> None:
        replica = FlaggedReplica([])
        try:
            await replica.reconfigure(user_config(store, versions=[7]))
        finally:
            replica.__del__()

    with pytest.raises(VersionNotFound, match="model two has no version 7"):
        asyncio.run(main())
