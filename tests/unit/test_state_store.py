"""What outlives a kernel: real SQLite files, other processes, damage."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tfserve_nb.errors import ServingError
from tfserve_nb.serving.models.state_store import FILE_NAME, StateStore, new_event
from tfserve_nb.types import HistoryEvent


def test_nothing_is_written_by_looking(tmp_path: Path) -> None:
    store = StateStore(tmp_path)

    assert (store.load(), store.history("net")) == ({}, [])
    assert list(tmp_path.iterdir()) == []


def test_state_and_history_come_back_newest_first(tmp_path: Path) -> None:
    StateStore(tmp_path).save("net", {"a": 1}, new_event("deploy", 1))
    StateStore(tmp_path).save("net", {"a": 2}, new_event("promote", 2, "by hand"))
    StateStore(tmp_path).save("other", {})

    store = StateStore(tmp_path)
    assert store.load() == {"net": {"a": 2}, "other": {}}
    assert [(one.action, one.version, one.detail) for one in store.history("net")] == [
        ("promote", 2, "by hand"),
        ("deploy", 1, ""),
    ]
    assert len(store.history("net", limit=1)) == 1
    assert f"(pid {os.getpid()})" in store.history("net")[0].actor


def test_a_forgotten_model_keeps_its_history(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("net", {}, new_event("deploy", 1))

    store.forget("net", new_event("undeploy"))

    assert store.load() == {}
    assert [one.action for one in store.history("net")] == ["undeploy", "deploy"]


def test_state_and_event_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("net", {"a": 1}, new_event("deploy", 1))
    event = new_event("promote", 1)
    object.__setattr__(event, "action", None)  # violates NOT NULL

    with pytest.raises(ServingError, match="NOT NULL"):
        store.save("net", {"a": 2}, event)

    assert store.load() == {"net": {"a": 1}}


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database" * 100)

    with pytest.raises(ServingError, match="file is not a database") as caught:
        StateStore(tmp_path).load()

    assert str(tmp_path / FILE_NAME) in caught.value.message
    assert "move the file away" in (caught.value.hint or "")


def test_a_locked_file_is_an_error_and_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfserve_nb.serving.models.state_store.BUSY_S", 0.05)
    store = StateStore(tmp_path)
    store.save("net", {})
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(ServingError, match="locked"):
            store.save("net", {"a": 1})
    finally:
        other.close()

    assert store.load() == {"net": {}}


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tfserve_nb.serving.models.state_store import StateStore, new_event\n"
        "for number in range(25): StateStore(Path(sys.argv[1])).save(sys.argv[2], {}, new_event('deploy', number))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b", "c")]

    assert [one.wait(50) for one in running] == [0, 0, 0]

    store = StateStore(tmp_path)
    for name in ("a", "b", "c"):
        assert [one.version for one in store.history(name)] == list(range(24, -1, -1))


def test_benchmarks_are_numbered_over_all_models_and_stand_in_the_history(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    assert store.benchmarks() == {}

    numbers = [store.add_benchmark(name, {"of": name}, new_event("benchmark", 1)) for name in ("net", "other", "net")]

    assert numbers == [1, 2, 3]
    assert store.benchmarks() == {1: {"of": "net"}, 2: {"of": "other"}, 3: {"of": "net"}}
    assert [event.action for event in store.history("net")] == ["benchmark", "benchmark"]


def test_a_file_of_an_earlier_release_gets_the_table_of_benchmarks(tmp_path: Path) -> None:
    StateStore(tmp_path).save("net", {})
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("DROP TABLE benchmarks")
    connection.close()

    assert StateStore(tmp_path).benchmarks() == {}


def test_used_versions_are_remembered_whatever_became_of_them(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    assert store.used_versions("net") == set()

    for number in (1, 3, 2):
        store.save("net", {}, new_event("deploy", number))
    store.save("other", {}, new_event("deploy", 9))
    store.save("net", {}, new_event("delete", 3))
    store.forget("net", new_event("undeploy"))

    assert StateStore(tmp_path).used_versions("net") == {1, 2, 3}
    assert store.used_versions("unknown") == set()


ODD = [None, "abc", "", b"\xff\xfe", -1, 0, 2**63 - 1, 2.5, float("inf"), "[" * 100_000, "9" * 5000, "null", "[]"]


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("column", ["at", "version", "action", "detail", "actor"])
def test_damaged_events_hide_no_others(tmp_path: Path, column: str, value: object) -> None:
    store = StateStore(tmp_path)
    for version in (1, 2):
        store.save("m", {}, HistoryEvent(float(version), "deployed", version, "", "me"))
    _loosen(store, "history")
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE history SET {column} = ? WHERE id = 2", (value,))  # noqa: S608 - a name of ours

    assert store.history("m")[-1].version == 1
    assert all(isinstance(event.at, float) for event in store.history("m"))
    assert {1} <= store.used_versions("m") <= {0, 1, 2}


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("column", ["id", "state"])
def test_a_damaged_experiment_is_named(tmp_path: Path, column: str, value: object) -> None:
    store = StateStore(tmp_path)
    store.save_experiment("m", {"x": 1}, None)
    _loosen(store, "experiments")
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE experiments SET {column} = ?", (value,))  # noqa: S608 - a name of ours

    if column == "state":
        with pytest.raises(ServingError, match=r"experiment 1 in .* cannot be read: .* is no JSON object"):
            store.latest_experiment("m")
    else:
        assert store.latest_experiment("m") in (None, (value, {"x": 1}))


def _loosen(store: StateStore, table: str) -> None:
    """Let anything stand in the columns of a table."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute(f"CREATE TABLE other AS SELECT * FROM {table}")  # noqa: S608 - a name of ours
        connection.executescript(f"DROP TABLE {table}; ALTER TABLE other RENAME TO {table};")
