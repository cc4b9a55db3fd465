"""A process that is stopped or hangs is noticed; one that is only slow is not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers.eventually import eventually

from tfserve_nb.server.vital_signs import MOST_SILENT, MOST_STOPPED, VitalSigns, is_stopped


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_answers_now_and_then_is_alive(process: subprocess.Popen[bytes]) -> None:
    answers = iter([*[False] * (MOST_SILENT - 1), True] * 3)
    signs = VitalSigns(process.pid, lambda: next(answers))

    assert not any(signs.are_gone() for _ in range(3 * MOST_SILENT))


def test_one_that_never_answers_is_not(process: subprocess.Popen[bytes]) -> None:
    signs = VitalSigns(process.pid, lambda: False)

    assert [signs.are_gone() for _ in range(MOST_SILENT)] == [False] * (MOST_SILENT - 1) + [True]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_one_that_is_stopped_is_noticed_sooner_and_may_go_on(process: subprocess.Popen[bytes]) -> None:
    signs = VitalSigns(process.pid, lambda: True)
    assert not signs.are_gone()

    process.send_signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(process.pid))
    assert [signs.are_gone() for _ in range(MOST_STOPPED - 1)] == [False] * (MOST_STOPPED - 1)

    process.send_signal(signal.SIGCONT)
    eventually(lambda: not is_stopped(process.pid))
    assert not signs.are_gone()
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(process.pid))
    assert [signs.are_gone() for _ in range(MOST_STOPPED)][-1]


def test_one_that_has_ended_is_not_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert not is_stopped(process.pid)
