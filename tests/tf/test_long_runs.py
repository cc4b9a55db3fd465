"""One request whose run does not end holds up nothing else: it is stopped, or others go on beside it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
from helpers.eventually import eventually

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import DeadlineExceeded, InvalidOption
from tfserve_nb.types import VersionState

FOREVER = 2_000_000_000
"""Steps of a loop that would take hours."""

ROWS = np.array([[1], [2], [3]], np.int32)

PIPE = Path("pipe")
"""Who reads from it waits until `release`."""


def release() -> None:
    """Let go of what waits in `Sleeper`; without a reader nothing happens."""
    with contextlib.suppress(OSError):
        os.close(os.open(PIPE, os.O_WRONLY | os.O_NONBLOCK))


class Looper(tf.Module):
    """Counts to n, row by row."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32, name="n")])
    def __call__(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
        _, count = tf.while_loop(
            lambda i, _: tf.reduce_any(i < n), lambda i, x: (i + 1, tf.where(i < n, x + 1, x)), (0, tf.zeros_like(n))
        )
        return {"count": count}


class Sleeper(tf.Module):
    """Waits in an operation that TensorFlow cannot stop."""

    def __init__(self) -> None:
        super().__init__()
        self._pipe = str(PIPE.absolute())

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32, name="n")])
    def __call__(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
        # From the input, or TensorFlow would read it once and for all when it optimizes the graph.
        path = self._pipe + tf.strings.substr(tf.strings.as_string(tf.reduce_max(n)), 0, 0)
        text = tf.cond(tf.reduce_any(n == FOREVER), lambda: tf.io.read_file(path), lambda: tf.constant(""))
        return {"count": n + 0 * tf.strings.length(text)}


class Doubler(tf.Module):
    """The other model."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * 2.0}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are written to the test's folder, and nothing is served or hangs after it."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo(PIPE)
    yield
    release()
    tfserve_nb.shutdown()


def hang(handle: Deployment, timeout_s: float) -> threading.Thread:
    """Ask for what does not end, on a thread."""

    def ask() -> None:
        with pytest.raises(DeadlineExceeded):
            handle.predict([[FOREVER]], timeout_s=timeout_s)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def long_run(handle: Deployment) -> str:
    """What the status says of a run that takes long."""
    return " ".join(v.detail for v in handle.status().versions if v.state is VersionState.AVAILABLE)


def cpu_s() -> float:
    times = time.process_time_ns()
    return times * 1e-9


@pytest.mark.parametrize("kind", [Looper, Sleeper])
def test_an_overdue_run_keeps_neither_the_device_nor_its_batch_mates_nor_other_models(kind: type[tf.Module]) -> None:
    slow = tfserve_nb.deploy(kind(), "slow", check=ROWS, batch_timeout_micros=200_000)
    other = tfserve_nb.deploy(Doubler(), "other", check=np.ones((2, 1), np.float32))
    hanging = hang(slow, 4.0)
    with ThreadPoolExecutor(4) as pool:
        mates = [pool.submit(slow.predict, [[value]], timeout_s=60.0) for value in (3, 5)]
        assert other.predict([[2.0]], timeout_s=60.0).tolist() == [[4.0]]
        assert [mate.result(90).tolist() for mate in mates] == [[[3]], [[5]]]
    hanging.join(60)
    assert not hanging.is_alive()

    if kind is Looper:  # stopped, and the device is free
        eventually(lambda: not long_run(slow))
        before_s = cpu_s()
        time.sleep(0.05)
        assert cpu_s() - before_s < 0.2
    else:
        assert "after the deadline of its requests" in eventually(lambda: long_run(slow))
        release()
        eventually(lambda: not long_run(slow))
    assert slow.predict([[7]], timeout_s=60.0).tolist() == [[7]]


def test_rollback_undeploy_and_shutdown_do_not_wait_for_a_run_that_hangs() -> None:
    slow = tfserve_nb.deploy(Doubler(), "slow", version=1, check=np.ones((2, 1), np.float32))
    tfserve_nb.deploy(Sleeper(), "slow", version=2, check=ROWS)
    hanging = hang(slow, 2.0)
    eventually(lambda: "a run has been going on for" in long_run(slow))

    slow.rollback()
    assert slow.predict([[2.0]], timeout_s=60.0).tolist() == [[4.0]]
    hanging.join(60)
    tfserve_nb.deploy(Looper(), "loop", check=ROWS)
    looping = hang(tfserve_nb.deployment("loop"), 2.0)
    slow.undeploy()
    looping.join(60)
    tfserve_nb.shutdown()

    assert not hanging.is_alive()
    assert not looping.is_alive()
    release()
    eventually(lambda: not [t.name for t in threading.enumerate() if t.name.startswith("tfserve-runner")])


def test_an_isolated_server_stops_a_run_too() -> None:
    slow = tfserve_nb.deploy(Looper(), "slow", check=ROWS, isolate=True)
    other = tfserve_nb.deploy(Doubler(), "other", check=np.ones((2, 1), np.float32), isolate=True)

    hanging = hang(slow, 4.0)
    headers = {"Authorization": f"Bearer {other.token}"}
    answer = requests.post(f"{other.rest_url}:predict", json={"instances": [[2.0]]}, headers=headers, timeout=60)

    assert answer.json() == {"predictions": [[4.0]]}
    hanging.join(60)
    assert not hanging.is_alive()
    assert slow.predict([[7]], timeout_s=60.0).tolist() == [[7]]


def test_a_run_of_the_live_model_does_not_keep_the_kernel() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tfserve_nb.export.graph.live.LONGEST_RUN_S", 1.0)
        with pytest.raises(
            InvalidOption, match="itself fails on the rows given: RunFailed: a run took longer than 1 s"
        ):
            tfserve_nb.deploy(Looper(), "looper", check=np.array([[1], [FOREVER]], np.int32))

    assert tfserve_nb.deploy(Looper(), "looper", check=ROWS).predict(ROWS).tolist() == ROWS.tolist()
