"""An isolated server beside a real kernel: interrupts, busy cells, dashboards, restarts."""

from __future__ import annotations

import time

import psutil
import requests
from helpers.eventually import eventually
from helpers.real_kernel import READY_S, Kernel

ROW = [[1.0, 2.0]]


def ask(url: str, token: str) -> list[list[float]]:
    reply = requests.post(
        f"{url}:predict", json={"instances": ROW}, headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert reply.status_code == requests.codes.ok, reply.text
    return reply.json()["predictions"]


def test_an_isolated_server_answers_while_the_kernel_spins_and_ends_with_it(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check("%%deploy model --name alone --isolate --grpc-port 0 --out d\nmodel = make(3.0)")
    url, token = kernel.value("[d.rest_url, d.token]")
    assert kernel.ask(ROW) == [[9.0]]
    overview = kernel.check("print(repr(get_ipython().run_line_magic('serving', '')))")
    assert "alone is served by a process of its own" in overview
    assert "double is served by a process" not in overview
    kernel.check("display(get_ipython().run_line_magic('dashboard', 'alone'))")
    children = psutil.Process(kernel.value("__import__('os').getpid()")).children()
    (pid,) = [child.pid for child in children if "--managed" in child.cmdline()]

    message = kernel.client.execute("while True: pass")
    time.sleep(0.5)
    assert [ask(url, token) for _ in range(20)] == [[[9.0]]] * 20
    kernel.manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=30)
    assert reply["parent_header"]["msg_id"] == message
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert ask(url, token) == [[9.0]]
    assert psutil.pid_exists(pid)

    kernel.check("%deploy model --name alone --out d")
    assert kernel.value("[d.is_isolated, d.version, d.labels]") == [True, 2, {}]
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=READY_S)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    kernel.check("%load_ext tfserve_nb\n%serving alone --resume --isolate")
    kernel.check("d = get_ipython().run_line_magic('serving', 'alone')")
    assert kernel.value("[d.is_isolated, d.version]") == [True, 2]
    assert kernel.ask(ROW) == [[9.0]]
