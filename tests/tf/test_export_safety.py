"""No reader ever sees half a version: races, full disks, killed processes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tfserve_nb.export.layout import list_versions
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_signatures

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

TIMEOUT_S = 50

PRELUDE = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
base = sys.argv[1]
import keras, tensorflow as tf
from tfserve_nb.errors import ServingError
from tfserve_nb.export.saved_model import export_version
model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(128), keras.layers.Dense(10)])
def say(*values):
    print(json.dumps(values), flush=True)
"""

RACE = """
say("ready")
sys.stdin.readline()
say([export_version(model, base, "race").version for _ in range(5)])
"""

FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
export_version(model, base, "warm")
source = os.path.join(base, "warm", "1")
for limit, what in [(1_000, model), (200_000, model), (1_000, source), (200_000, source)]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        export_version(what, os.path.join(base, "new"), "full")
        outcome = ["no error", "", ""]
    except ServingError as error:
        outcome = [type(error).__name__, error.message, error.hint]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    say(*outcome, sorted(os.listdir(base)))
say(export_version(model, os.path.join(base, "new"), "full").version)
"""

KILLED = """
def verify(path):
    say(str(path))
    sys.stdin.readline()
export_version(model, base, "killed", verify=verify)
"""


@contextmanager
def child(code: str, base: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that exports into `base`; gone at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(TIMEOUT_S, process.kill)
    guard.start()
    try:
        with process:
            yield process
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
            process.wait(timeout=5)


def next_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else "no output"
    return json.loads(line)


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def small() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_two_processes_that_export_at_once_get_different_numbers(tmp_path: Path) -> None:
    with child(RACE, tmp_path) as one, child(RACE, tmp_path) as two:
        assert [next_line(one), next_line(two)] == [["ready"], ["ready"]]
        tell(one)
        tell(two)
        (first,), (second,) = next_line(one), next_line(two)

    assert sorted(first + second) == list(range(1, 11))
    assert names_in(tmp_path / "race") == sorted(map(str, range(1, 11)))
    for version in range(1, 11):
        assert "serving_default" in read_signatures(tmp_path / "race" / str(version))


def test_threads_that_export_at_once_get_different_numbers(tmp_path: Path) -> None:
    source = tmp_path / "race" / "1"
    export_version(small(), tmp_path, "race")
    versions: list[int] = []
    threads = [
        threading.Thread(target=lambda: versions.append(export_version(source, tmp_path, "race").version), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert sorted(versions) == list(range(2, 10))
    assert list_versions(tmp_path / "race") == tuple(range(1, 10))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with child(FULL_DISK, tmp_path) as process:
        outcomes = [next_line(process) for _ in range(4)]
        last = next_line(process)

    for kind, message, hint, left in outcomes:
        assert kind == "ExportFailed"
        folder = tmp_path / "new" / "full"
        assert message.endswith("File too large")
        assert str(folder) in message
        assert hint == "make room there, or choose another folder: --base-path FOLDER"
        assert left == ["warm"]
    assert outcomes[0][1] == f"the model cannot be written to {tmp_path / 'new' / 'full'}: File too large"
    assert last == [1]


def test_a_killed_process_leaves_no_version_and_the_next_export_cleans_up(tmp_path: Path) -> None:
    with child(KILLED, tmp_path) as process:
        (written,) = next_line(process)
        during = names_in(tmp_path / "killed")
        # While the other process lives, its folder is left alone.
        assert export_version(small(), tmp_path, "killed").version == 1
        assert Path(written, "saved_model.pb").exists()
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)

    left = names_in(tmp_path / "killed")
    assert [name.startswith(".exporting-") for name in during] == [True]
    assert left == [*during, "1"]
    assert export_version(small(), tmp_path, "killed").version == 2
    assert names_in(tmp_path / "killed") == ["1", "2"]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(path: Path) -> None:
        signal.raise_signal(signal.SIGINT)  # to this thread: in another it could hit a finalizer, which swallows it

    with pytest.raises(KeyboardInterrupt):
        export_version(small(), tmp_path / "base", "model", verify=interrupt)

    assert names_in(tmp_path) == []


def test_an_interrupt_while_tracing_leaves_nothing(tmp_path: Path) -> None:
    class Slow(keras.Model):
        def call(self, x: Any) -> Any:
            if not tf.executing_eagerly():
                raise KeyboardInterrupt
            return x

    model = Slow()
    model(tf.ones((1, 2)))
    export_version(small(), tmp_path, "model")

    with pytest.raises(KeyboardInterrupt):
        export_version(model, tmp_path, "model", example=tf.ones((1, 2)))

    assert names_in(tmp_path / "model") == ["1"]


def test_readers_see_only_complete_versions(tmp_path: Path) -> None:
    model_dir = tmp_path / "polled"
    stop = threading.Event()
    incomplete: list[str] = []
    polls = 0

    def poll() -> None:
        nonlocal polls
        while not stop.is_set():
            for version in list_versions(model_dir):
                folder = model_dir / str(version)
                if not (folder / "saved_model.pb").exists() or not (folder / "variables" / "variables.index").exists():
                    incomplete.append(str(folder))
            polls += 1

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            export_version(small(), tmp_path, "polled")
    finally:
        stop.set()
        thread.join(timeout=5)

    assert incomplete == []
    assert polls > 0
    assert list_versions(model_dir) == (1, 2, 3)
