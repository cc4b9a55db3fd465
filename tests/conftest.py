"""What every test gets: a mark from its folder, a clean environment, seeded randomness, and checks for leaks and logs.

Nothing here imports TensorFlow, so that collecting the tests stays fast.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import psutil
import pytest
from helpers import server_logs

import tfserve_nb

# No test judges by time: examples take as long as a busy machine makes them.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# TensorFlow reads this when it is imported, which may be before the first fixture runs.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

TESTS = Path(__file__).parent
SCRUBBED_PREFIXES = ("JPY_", "JUPYTERHUB_", "TFSERVE_NB_")
LIMITS_S = {
    "unit": 120,
    "experiment": 180,
    "server": 120,
    "bench": 240,
    "tf": 300,
    "published": 600,
    "serve": 300,
    "shell": 300,
    "kernel": 300,
    "notebooks": 900,
    "browser": 600,
    "tools": 120,
    "ray": 660,  # a busy machine needs several tries to start Ray
}
"""How long a test may take, by ring.

It ends tests that hang; none is slow enough to come near. Alone on two cores no test of a ring takes a fifth of its
limit, so that four processes that share the cores with it, or a slow disk under TensorFlow's import, still fit in.
"""
GRACE_S = 2.0
"""How long threads and sockets may take to go away after a test: the promise for a kernel's shutdown."""

Socket = tuple[str, int, str]
"""A socket as (status, local port, remote address) for the leak check."""


# ---------------------------------------------------------------- marks and skips


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder under tests/, and give it that ring's limit."""
    for item in items:
        if TESTS in item.path.parents:
            ring = item.path.relative_to(TESTS).parts[0]
            item.add_marker(ring)
            item.add_marker(pytest.mark.timeout(LIMITS_S[ring]))


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, turn a skip into a failure: a missing tool must not hide a ring of tests (a missing GPU may)."""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and os.environ.get("CI") == "true" and "GPU" not in reason:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and in CI nothing but a missing GPU may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judge the skip of a test, and show what the servers of a test that failed wrote."""
    report = yield
    _fail_if_skipped_in_ci(report)
    if report.failed:
        report.sections += server_logs.sections()
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Judge the skip of a whole module."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


# ---------------------------------------------------------------- environment and randomness


@pytest.fixture(scope="session", autouse=True)
def _own_jupyter_folders() -> Iterator[None]:
    """Keep the configuration and history of the person who runs the tests out of them, and the tests out of those."""
    with tempfile.TemporaryDirectory(prefix="tfserve-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(Path(folder, name.lower())))
        # Not inside the folder above: kernels still write their connection files there while they go down.
        patch.setenv("JUPYTER_RUNTIME_DIR", str(Path(folder, "runtime")))
        yield


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the notebook server or hub that it happens to run under."""
    for name in list(os.environ):
        if name.startswith(SCRUBBED_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Make the global generators repeatable; tests that draw on their own take `rng`."""
    random.seed(20)
    np.random.seed(20)  # noqa: NPY002 - the legacy generator is the one that libraries draw from


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, as is not so in a run that a script or nohup started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what was deployed there is shut down at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    tfserve_nb.shutdown()


# ---------------------------------------------------------------- leaks and logs


def _serving_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("tfserve-")}


def _open_sockets() -> set[Socket]:
    sockets = set()
    for connection in psutil.Process().net_connections(kind="tcp"):
        if connection.status in {psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED}:
            sockets.add((connection.status, connection.laddr.port, str(connection.raddr or "")))
    return sockets


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves a serving thread, a listening socket or an established connection behind.

    What a fixture of wider scope opened before the test is not the test's.
    """
    threads, sockets = _serving_threads(), _open_sockets()
    yield
    deadline_s = time.perf_counter() + GRACE_S
    pause = threading.Event()
    while (left := (_serving_threads() - threads) | (_open_sockets() - sockets)) and time.perf_counter() < deadline_s:
        pause.wait(0.02)
    if left:
        pytest.fail(f"still there {GRACE_S:g} s after the test: {sorted(map(str, left))}", pytrace=False)


@pytest.fixture(autouse=True)
def _no_unexpected_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test during which the package logged a warning or worse, unless the test looks at the log (`caplog`)."""
    unexpected: list[str] = []
    make_record = logging.getLogRecordFactory()

    def watch(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.levelno >= logging.WARNING and record.name.split(".")[0] == "tfserve_nb":
            unexpected.append(f"{record.name} {record.levelname}: {record.getMessage()}")
        return record

    # The factory sees every record, also those of loggers that do not propagate.
    logging.setLogRecordFactory(watch)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
    if unexpected and "caplog" not in request.fixturenames:
        pytest.fail("logged without the test expecting it:\n" + "\n".join(unexpected), pytrace=False)
