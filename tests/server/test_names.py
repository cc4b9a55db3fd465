"""The admin API's names: what a client writes is decoded once, and the core decides what it may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_servable import FakeLoader

from tfserve_nb.server.settings import ServerSettings
from tfserve_nb.server.thread import ServerFeatures, ServerThread
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.versions.source import VersionSource

from .conftest import TOKEN, Server


@pytest.fixture
def administered() -> Iterator[tuple[Server, ServingCore]]:
    core = ServingCore(FakeLoader())
    core.start()
    thread = ServerThread(core, ServerSettings(port=0, token=TOKEN), ServerFeatures(admin=core))
    thread.start()
    yield Server(core, thread), core  # type: ignore[arg-type]
    thread.stop()
    core.stop()


@pytest.mark.parametrize(
    "name",
    [
        "..%252Fvictim", "..%2Fvictim", "%2e%2e", "%252e%252e", "..%5Cvictim", "a%00", "a%0Ab", "x" * 3000,
        "%EF%BC%8E%EF%BC%8E",
    ],
)  # fmt: skip
def test_no_name_of_the_admin_api_leads_out_of_the_folder(
    administered: tuple[Server, ServingCore], tmp_path: Path, name: str
) -> None:
    server, core = administered
    base, victim = tmp_path / "base", tmp_path / "victim" / "1"
    base.mkdir()
    victim.mkdir(parents=True)
    source = VersionSource(victim, BatchingOptions(max_batch_size=4)).to_json()
    body = {
        "version": 1, "path": str(victim), "base_path": str(base), "source": source,
        "placement": {"label": None, "stage": False, "canary": None, "shadow": None, "keep": 2},
    }  # fmt: skip

    deployed = server.call("POST", f"/tfserve/v1/models/{name}/deploy", body)
    deleted = server.call("POST", f"/tfserve/v1/models/{name}/undeploy", {"version": None, "delete": True})

    assert deployed.status in (400, 404), deployed.text
    assert deleted.status in (400, 404), deleted.text
    assert core.names == ()
    assert victim.is_dir()
    assert list(base.iterdir()) == []


def test_a_name_with_a_space_is_decoded_once(administered: tuple[Server, ServingCore], tmp_path: Path) -> None:
    server, core = administered
    path = tmp_path / "my net" / "1"
    path.mkdir(parents=True)
    source = VersionSource(path, BatchingOptions(max_batch_size=4)).to_json()
    body = {
        "version": 1, "path": str(path), "base_path": str(tmp_path), "source": source,
        "placement": {"label": None, "stage": False, "canary": None, "shadow": None, "keep": 2},
    }  # fmt: skip

    assert server.call("POST", "/tfserve/v1/models/my%20net/deploy", body).json == {"version": 1}
    assert core.names == ("my net",)


@pytest.mark.parametrize(
    ("left_out", "changed", "text"),
    [
        ("source", {}, "'source' is missing"),
        ("path", {}, "'path' is missing"),
        ("placement", {}, "'placement' is missing"),
        ("base_path", {}, "'base_path' is missing"),
        ("version", {}, "'version' is missing"),
        ("", {"source": None}, "source=null: needed is a JSON object"),
        ("", {"source": None, "placement": {}}, "source=null: needed is a JSON object"),
        ("", {"source": {}}, "'max_batch_size' is missing"),
        ("", {"placement": None}, "placement=null: needed is a JSON object"),
        ("", {"placement": {"labels": "a"}}, "Placement has no labels"),
        ("", {"base_path": None}, "base_path=null: None is no path"),
        ("", {"version": "x"}, "version=\"x\": 'x' is no integer"),
        ("", {"placement": {"label": ".."}}, "label '..' cannot be a label"),
    ],
)
def test_a_deploy_that_leaves_out_or_mistakes_a_field_is_told_which(
    administered: tuple[Server, ServingCore], tmp_path: Path, left_out: str, changed: dict[str, object], text: str
) -> None:
    server, core = administered
    path = tmp_path / "net" / "1"
    source = VersionSource(path, BatchingOptions(max_batch_size=4)).to_json()
    body = {"version": 1, "path": str(path), "base_path": str(tmp_path), "source": source, "placement": {}, **changed}

    answer = server.call(
        "POST", "/tfserve/v1/models/net/deploy", {name: value for name, value in body.items() if name != left_out}
    )

    assert answer.status == 400
    assert text in answer.json["error"]
    assert len(answer.json["error"].splitlines()) == 1
    assert core.names == ()
