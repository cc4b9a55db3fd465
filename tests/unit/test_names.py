"""Names come from clients, files and configurations; the core lets none lead out of the folder of its models."""

from __future__ import annotations

import json
import os
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

import pytest
from helpers.fake_servable import FakeLoader
from hypothesis import given
from hypothesis import strategies as st

import tfserve_nb
from tfserve_nb.errors import InvalidOption, VersionNotFound
from tfserve_nb.export.layout import check_name, delete_version
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.models.state_store import FILE_NAME, StateStore
from tfserve_nb.serving.versions.source import VersionSource

BAD_NAMES = [
    "", ".", "..", "../victim", "a/../../victim", "/victim", "..\\victim", "a\\b", "C:victim", "a\nb", "a\rb", "a\tb",
    "a\0b", "\0", "%2e%2e", "..%2Fvictim", "a ", " a", "a\u00a0", "x" * 201, "é" * 150,
    "\u2024\u2024\uff0fvictim", "a\uff0fb", "a\uff1ab", "a\uff3cb", "\u2025",  # look-alikes of dots and separators
    "a\u202eb", "a\u200bb", "cafe\u0301",
]  # fmt: skip


@pytest.fixture
def core() -> Iterator[ServingCore]:
    serving = ServingCore(FakeLoader())
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of the models, beside which others' version folders lie."""
    (tmp_path / "victim" / "1").mkdir(parents=True)
    (tmp_path / "victim" / "1" / "kept").write_text("kept")
    (tmp_path / "1").mkdir()
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


def deploy(core: ServingCore, base: Path, name: str, version: int = 1) -> None:
    path = base / name / str(version)
    if "\0" not in name and len(name) < 100:
        path.mkdir(parents=True, exist_ok=True)
    core.deploy(name, version, VersionSource(path, BatchingOptions(max_batch_size=4)), base, Placement())


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_allowed_is_refused_before_anything_happens(
    core: ServingCore, base: Path, name: str
) -> None:
    source = VersionSource(base / "net" / "1", BatchingOptions())

    with pytest.raises(InvalidOption, match="cannot name a model: needed is"):
        core.deploy(name, 1, source, base, Placement())
    with pytest.raises(InvalidOption, match="cannot name a model"):
        core.follow(name, base)
    with pytest.raises(InvalidOption, match="cannot name a model"):
        delete_version(base, name, 1)

    assert core.names == ()
    assert list(base.iterdir()) == []
    assert (base.parent / "victim" / "1" / "kept").exists()
    assert (base.parent / "1").exists()


@pytest.mark.parametrize("name", ["digits", "café", "模型", "a b", "v1.2_x-3", "ﬁt", "x²"])
def test_names_that_mean_nothing_else_are_allowed(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=8) | st.text("./\\:%\u2024\u2025\uff0e\uff0f\uff3ca\u0301\0\n ", max_size=6))
def test_an_allowed_name_is_one_folder_however_it_is_rewritten(name: str) -> None:
    try:
        check_name(name)
    except InvalidOption as error:
        check_name(error.hint.removeprefix("--name "))
        return

    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        again = unicodedata.normalize(form, name)
        assert Path(os.path.normpath(f"/base/{again}")).parent == Path("/base")
        assert PureWindowsPath(again).parts == (again,)
        assert unquote(again) == again
    assert name.encode().decode() == name


@pytest.mark.parametrize("version", [-1, 0, 2**63, True])
def test_a_version_that_is_none_is_refused(core: ServingCore, base: Path, version: int) -> None:
    source = VersionSource(base / "net" / "1", BatchingOptions())

    with pytest.raises(InvalidOption, match="must be an integer from 1"):
        core.deploy("net", version, source, base, Placement())

    assert core.names == ()


def test_a_folder_with_a_nul_is_refused(core: ServingCore, base: Path) -> None:
    source = VersionSource(base / "net" / "1", BatchingOptions())
    bad = Path(f"{base}/\0")

    for call in (
        lambda: core.deploy("net", 1, source, bad, Placement()),
        lambda: core.deploy("net", 1, replace(source, path=bad), base, Placement()),
        lambda: core.resume(bad),
        lambda: tfserve_nb.resume(bad),
    ):
        with pytest.raises(InvalidOption, match="cannot be a folder: it has a NUL"):
            call()
    assert core.names == ()


def test_an_error_about_a_very_long_name_is_short() -> None:
    with pytest.raises(InvalidOption) as caught:
        check_name("x" * 1_000_000)

    assert len(caught.value.message) < 1000


def test_rows_of_a_state_file_that_somebody_else_wrote_reach_no_folder_outside(core: ServingCore, base: Path) -> None:
    deploy(core, base, "good")
    state = StateStore(base).load()["good"]
    store = StateStore(base)
    for name in ("../victim", "..", str(base.parent / "victim"), "a\0", "victim/../../victim"):
        store.save(name, {**state, "versions": {"1": {**state["versions"]["1"], "path": str(base.parent / "1")}}})
    core.stop()
    again = ServingCore(loader := FakeLoader())
    again.start()
    try:
        problems = again.resume(base)

        assert again.names == ("good",)
        assert problems.pop("good") == []
        assert len(problems) == 5
        assert all("cannot name a model" in text for (text,) in problems.values())
        again.undeploy("good", delete=True)
    finally:
        again.stop()
    assert list(loader.loaded) == [1]
    assert (base.parent / "victim" / "1" / "kept").exists()
    assert (base.parent / "1").exists()


def test_links_that_lead_out_of_the_folder_are_not_deleted_through(core: ServingCore, base: Path) -> None:
    deploy(core, base, "net", 1)
    (base / "net" / "2").symlink_to(base.parent / "victim" / "1")
    (base / "alias").symlink_to(base / "net")
    (base / "away").symlink_to(base.parent / "victim")

    for name, version in (("net", 2), ("alias", 1), ("away", 1)):
        with pytest.raises(InvalidOption, match="is a link or lies behind one"):
            delete_version(base, name, version)
    with pytest.raises(InvalidOption, match="is not removed"):
        core.undeploy("net", delete=True)
    assert core.available("net") == (1,)  # nothing was unloaded either
    with pytest.raises(VersionNotFound):
        delete_version(base, "net", 3)
    core.undeploy("net")

    assert (base / "net" / "1").is_dir()
    assert (base.parent / "victim" / "1" / "kept").exists()


def test_a_base_folder_that_is_a_link_is_as_good_as_any(core: ServingCore, base: Path) -> None:
    link = base.parent / "link"
    link.symlink_to(base)
    deploy(core, link, "net", 1)

    core.undeploy("net", delete=True)

    assert list((base / "net").iterdir()) == []


DAMAGED = {
    "no JSON": "{",
    "another kind": "[1, 2]",
    "null": "null",
    "nothing": "{}",
    "deep": "[" * 100_000,
    "not UTF-8": b"\xff\xfe",
    "a number": "17",
    "no options": json.dumps({"keep": 2, "routing": {"promoted": [1], "traffic": {"1": 100}}, "versions": {"1": {}}}),
    "infinite": '{"keep": 1e999, "routing": {"promoted": [1], "traffic": {"1": 100}}, "versions": {}}',
    "shares": '{"keep": 2, "routing": {"promoted": [1], "traffic": {"1": null}}, "versions": {}}',
    "no whole": '{"keep": 2, "routing": {"promoted": [1], "traffic": {"1": 30}}, "versions": {}}',
    "copies": '{"keep": 2, "routing": {"traffic": {"1": 100}, "shadow": [1, 0]}, "versions": {}}',
    "option": '{"keep": 2, "routing": {"traffic": {"1": 100}}, "versions": {"1": {"max_batch_size": -1, '
    '"batch_timeout_micros": 0, "max_enqueued_batches": 1, "allowed_batch_sizes": [], "device": null, '
    '"deployed_at": null}}}',
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_row_costs_its_model_only_and_is_named(core: ServingCore, base: Path, damage: str | bytes) -> None:
    for name in ("a", "bad", "z"):
        deploy(core, base, name)
    with closing(sqlite3.connect(base / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE models SET state = CAST(? AS TEXT) WHERE name = 'bad'", (damage,))
        connection.execute("INSERT INTO models VALUES (NULL, '{}', 0)")
        connection.execute("INSERT INTO models VALUES (CAST(x'ff' AS TEXT), '{}', 0)")
    again = ServingCore(FakeLoader())
    again.start()
    try:
        problems = again.resume(base)

        assert again.names == ("a", "z")
        assert (problems.pop("a"), problems.pop("z")) == ([], [])
        (text,) = problems.pop("bad")
        assert len(text) < 500
        assert sorted(problems) == ["<None>", "<b'\\xff'>"]
        deploy(again, base, "bad", 2)  # starts anew, and mends the row
        assert again.model_status("bad").problem == ""
    finally:
        again.stop()
    third = ServingCore(FakeLoader())
    third.start()
    try:
        assert third.resume(base, "bad") == {"bad": []}
    finally:
        third.stop()
