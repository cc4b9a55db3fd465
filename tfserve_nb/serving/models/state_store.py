"""The state that outlives a kernel: how each model was served, and the history. One SQLite file beside the models.

Thread: any; every call opens its own connection, so kernels that share a folder do not disturb each other.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any  # JSON

from ...errors import ModelNotFound, ServingError
from ...export.layout import MAX_VERSION
from ...serialization import check_format
from ...types import HistoryEvent

FORMAT = 1
"""Of the file, as SQLite's `user_version`. 0: written before there was a number, and read the same way."""
FILE_NAME = "tfserve_nb.sqlite3"
BUSY_S = 2.0

_KEPT = "id INTEGER PRIMARY KEY, at REAL NOT NULL, name TEXT NOT NULL"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, state TEXT NOT NULL, updated_at REAL NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS history ({_KEPT}, action TEXT NOT NULL, version INTEGER, "
    "detail TEXT NOT NULL, actor TEXT NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS benchmarks ({_KEPT}, result TEXT NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS experiments ({_KEPT}, state TEXT NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS replays ({_KEPT}, result TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS history_by_name ON history (name, id)",
)

_IS_TIME = "at BETWEEN 0 AND 253402300799"
"""That a row can have happened: SQLite takes whatever stands in a column, and orders texts above all numbers."""
_IS_VERSION = f"(typeof(version) = 'integer' AND version BETWEEN 0 AND {MAX_VERSION - 1})"
"""That a version has a next one."""


class StateStore:
    """The stored state of the models below one folder.

    Args:
        base_path: the folder that holds `NAME/VERSION` folders; the file is made with the first write.
    """

    def __init__(self, base_path: Path) -> None:
        self.path = base_path / FILE_NAME

    def save(self, name: str, state: Mapping[str, Any], event: HistoryEvent | None = None) -> None:
        """Replace the stored state of a model and append an event, both or neither.

        Raises:
            ServingError: if the file cannot be written (full disk, no permission, damaged file).
        """
        with self._open(writes=True) as connection:
            connection.execute(
                "INSERT INTO models VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET state = excluded.state, updated_at = excluded.updated_at",
                (name, json.dumps(state), time.time()),
            )
            if event is not None:
                _append(connection, name, event)

    def forget(self, name: str, event: HistoryEvent) -> None:
        """Remove the stored state of a model; its history stays."""
        with self._open(writes=True) as connection:
            connection.execute("DELETE FROM models WHERE name = ?", (name,))
            _append(connection, name, event)

    def load(self) -> dict[str, Any]:
        """Model name -> stored state, for all models below the folder; a damaged one is the text that stands there.

        Raises:
            ModelNotFound: if the folder cannot be read.
            ServingError: if the file cannot be read, or a newer version of this package wrote it.
        """
        try:
            rows = self._rows("models", "SELECT name, state FROM models")
        except OSError as error:
            raise ModelNotFound(f"{self.path}: {error.strerror}") from error
        return {_text(name): _value(state) for name, state in rows}

    def history(self, name: str, limit: int = 100) -> list[HistoryEvent]:
        """The newest events of a model, newest first; without damaged ones."""
        is_sound = f"{_IS_TIME} AND (version IS NULL OR {_IS_VERSION})"
        columns = "at, action, version, detail, actor"
        query = f"SELECT {columns} FROM history WHERE name = ? AND {is_sound} ORDER BY id DESC LIMIT ?"  # noqa: S608 - texts of ours
        rows = self._rows("history", query, (name, limit))
        return [
            HistoryEvent(at, _text(action), version, _text(detail), _text(actor))
            for at, action, version, detail, actor in rows
        ]

    def used_versions(self, name: str) -> frozenset[int]:
        """The versions in the history of a model, whether they are still there or not.

        Raises:
            ServingError: if the file cannot be read.
        """
        query = f"SELECT DISTINCT version FROM history WHERE name = ? AND {_IS_VERSION}"  # noqa: S608 - a text of ours
        return frozenset(version for (version,) in self._rows("history", query, (name,)))

    def add_benchmark(self, name: str, result: Mapping[str, Any], event: HistoryEvent) -> int:
        """Keep the result of a benchmark.

        Args:
            name: the model.
            result: a JSON object.
            event: for the history.

        Returns:
            The number of the run, unique below the folder.

        Raises:
            ServingError: if the file cannot be written.
        """
        return self._add("benchmarks", name, result, event)

    def add_replay(self, name: str, result: Mapping[str, Any], event: HistoryEvent) -> int:
        """Keep the result of a replay, as `add_benchmark`; replays have numbers of their own."""
        return self._add("replays", name, result, event)

    def benchmarks(self) -> dict[int, dict[str, Any]]:
        """Number of the run -> its result, for all models below the folder; without damaged ones."""
        rows = self._rows("benchmarks", "SELECT id, result FROM benchmarks")
        found = {number: _value(text) for number, text in rows}
        return {number: value for number, value in found.items() if isinstance(value, dict)}

    def _add(self, table: str, name: str, result: Mapping[str, Any], event: HistoryEvent) -> int:
        with self._open(writes=True) as connection:
            row = (event.at, name, json.dumps(result))
            number = connection.execute(f"INSERT INTO {table} (at, name, result) VALUES (?, ?, ?)", row).lastrowid  # noqa: S608 - a name of ours
            _append(connection, name, event)
        return int(number or 0)

    def save_experiment(self, name: str, value: Mapping[str, Any], number: int | None) -> int:
        """Keep the state of an experiment.

        Args:
            name: the model.
            value: a JSON object.
            number: that of the experiment, when it was kept before.

        Returns:
            The number of the experiment, unique below the folder.

        Raises:
            ServingError: if the file cannot be written.
        """
        text = json.dumps(value)
        with self._open(writes=True) as connection:
            if number is not None:
                changed = connection.execute("UPDATE experiments SET state = ? WHERE id = ?", (text, number))
                if changed.rowcount:
                    return number
            row = (time.time(), name, text)
            added = connection.execute("INSERT INTO experiments (at, name, state) VALUES (?, ?, ?)", row)
            return int(added.lastrowid or 0)

    def latest_experiment(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """Number and state of a model's newest experiment, or None when there was none.

        Raises:
            ServingError: if it is damaged, or the file cannot be read.
        """
        query = "SELECT id, state FROM experiments WHERE name = ? AND typeof(id) = 'integer' ORDER BY id DESC LIMIT 1"
        found = self._rows("experiments", query, (name,))
        if not found:
            return None
        number, state = found[0][0], _value(found[0][1])
        if not isinstance(state, dict):
            raise ServingError(
                f"experiment {number} in {self.path} cannot be read: {state!r:.60} is no JSON object",
                hint="start another one",
            )
        return number, state

    def _rows(self, table: str, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """What a query finds; nothing in a file that is not there, or that an earlier release made without the table.

        Texts are bytes: one that is no UTF-8 must not hide the others.
        """
        if not self.path.exists():
            return []
        with self._open() as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is None:
                return []
            connection.text_factory = bytes
            return connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _open(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; to write, with one transaction for everything, which other processes wait for once."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection, connection:
                if writes:
                    connection.execute("BEGIN IMMEDIATE")
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                check_format(found, FORMAT, self.path)
                if writes and found != FORMAT:
                    for statement in (*_SCHEMA, f"PRAGMA user_version = {FORMAT}"):
                        connection.execute(statement)
                yield connection
        except (sqlite3.Error, json.JSONDecodeError) as error:
            raise ServingError(
                f"{self.path} cannot be used: {error}", hint="free disk space, or move the file away to start anew"
            ) from error


def _text(name: object) -> str:
    """The name of a row; one that can be none in angle brackets, which no model has."""
    try:
        return name.decode() if isinstance(name, bytes) else f"<{name!r}>"
    except UnicodeDecodeError:
        return f"<{name!r}>"


def _value(text: object) -> Any:
    """The JSON value of a row; what is none stays as it is."""
    try:
        return json.loads(text) if isinstance(text, bytes) else text
    except (ValueError, RecursionError):
        return text


def new_event(action: str, version: int | None = None, detail: str = "") -> HistoryEvent:
    """An event of now, by the user of this process."""
    return HistoryEvent(time.time(), action, version, detail, _actor())


def _append(connection: sqlite3.Connection, name: str, event: HistoryEvent) -> None:
    connection.execute(
        "INSERT INTO history (at, name, action, version, detail, actor) VALUES (?, ?, ?, ?, ?, ?)",
        (event.at, name, event.action, event.version, event.detail, event.actor),
    )


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no entry for this uid, as in some containers
        user = f"uid {os.getuid()}" if hasattr(os, "getuid") else "someone"
    return f"{user} (pid {os.getpid()})"
