"""A kernel that serves goes down as promptly as any other, and comes back with what it served."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from helpers.real_kernel import READY_S, Kernel

ROW = [[1.0, 2.0]]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def restart(kernel: Kernel) -> None:
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=READY_S)


def shut_down(kernel: Kernel) -> None:
    kernel.manager.shutdown_kernel()


@pytest.mark.parametrize("end", [restart, shut_down])
def test_the_kernel_ends_cleanly_with_a_client_still_connected(
    serving_kernel: Kernel, end: Callable[[Kernel], None]
) -> None:
    process = serving_kernel.process
    url, token = serving_kernel.value("[d.rest_url, d.token]")
    port = urlsplit(url).port
    assert is_open(port)
    with requests.Session() as session:
        reply = session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        children = process.children(recursive=True)

        started_s = time.perf_counter()
        end(serving_kernel)
        print(f"{end.__name__} took {time.perf_counter() - started_s:.2f} s")

    assert reply.status_code == requests.codes.ok
    assert not is_open(port)
    assert not process.is_running()
    assert psutil.wait_procs(children, timeout=2)[1] == []
    # Written by the first exit handler that was registered, so by the last one to run: none was cut short.
    assert (serving_kernel.folder / "exited").read_text() == "cleanly"


def test_everything_comes_back_after_a_restart(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check("%%deploy model --name double --out d\nmodel = make(3.0)")
    kernel.check("d.set_label('stable', 1).set_traffic({1: 25, 2: 75})")
    state = "[list(d.versions), d.version, d.labels, d.traffic]"
    before = kernel.value(state)

    restart(kernel)
    kernel.check("%load_ext tfserve_nb\n%serving --resume\nd = %serving double")

    assert kernel.value(state) == before
    answers = {version: kernel.ask(ROW, where=f"/versions/{version}") for version in (1, 2)}
    assert answers == {1: [[6.0]], 2: [[9.0]]}
    assert kernel.ask(ROW, where="/labels/stable") == [[6.0]]
