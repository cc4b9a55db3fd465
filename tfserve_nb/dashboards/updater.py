"""The one thread that makes, writes and closes the widgets of all dashboards.

ipywidgets has no locks, so there is a single writer. Clicks arrive on whatever thread the kernel handles messages on;
they only put a command into the queue. And this thread has no parent message: JupyterLab (4.4 on) sends what a widget
does to a subshell of its own, where it is handled while a cell runs, but ipykernel (7.4) reroutes it to the shell that
last published on the widget's channel. What is published from here belongs to no shell, so nothing is rerouted.

Thread: `tfserve-dashboard`, a daemon, from the first dashboard to the last; `call` and `post` from any.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import Any, TypeVar  # whatever a command returns

from ..errors import ServerFailed
from ..threads import hide_from_debuggers

PERIOD_S = 0.2
"""States are read five times a second; what is counted by seconds is drawn once a second."""
CALL_LIMIT_S = 10.0
JOIN_S = 1.5

T = TypeVar("T")


class Updater:
    """The thread and its queue of commands.

    Args:
        tick: called every `PERIOD_S` seconds between commands; it must not raise.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def post(self, command: Callable[[], None]) -> None:
        """Have a command executed soon; starts the thread if need be. The command must not raise."""
        self._ensure_thread()
        self._commands.put(command)

    def post_if_running(self, command: Callable[[], None]) -> None:
        """The same, but does nothing once the thread was stopped."""
        with self._lock:
            is_running = self._thread is not None
        if is_running:
            self._commands.put(command)

    def call(self, work: Callable[[], T]) -> T:
        """Execute `work` on the thread and return what it returns.

        Raises:
            ServerFailed: if the thread does not respond within `CALL_LIMIT_S` seconds.
            BaseException: what `work` raises.
        """
        if threading.current_thread() is self._thread:
            return work()
        result: Future[T] = Future()

        def command() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
                result.set_exception(error)

        self.post(command)
        if not wait([result], CALL_LIMIT_S).done:
            raise ServerFailed(
                f"the dashboard's thread did not respond within {CALL_LIMIT_S:g} s", hint="%reload_ext tfserve_nb"
            )
        return result.result()

    def stop(self) -> None:
        """End the thread after the commands that wait. Idempotent, bounded."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._commands.put(None)
            if thread is not threading.current_thread():
                thread.join(JOIN_S)

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="tfserve-dashboard", daemon=True)
                hide_from_debuggers(self._thread)
                self._thread.start()

    def _work(self) -> None:
        forget_parent_message()
        due_s = time.perf_counter() + PERIOD_S
        while True:
            try:
                command = self._commands.get(timeout=max(0.0, due_s - time.perf_counter()))
            except queue.Empty:
                self._tick()
                due_s = time.perf_counter() + PERIOD_S
                continue
            if command is None:
                return
            command()


def forget_parent_message() -> None:
    """Let what this thread publishes belong to no shell; see the module's text. Does nothing outside ipykernel ≥ 7.

    A thread has context variables of its own, so this changes nothing for others.
    """
    module: Any = sys.modules.get("ipykernel.kernelbase")
    if module is None or not module.Kernel.initialized():
        return
    parent = getattr(module.Kernel.instance(), "_shell_parent", None)
    if isinstance(parent, ContextVar):
        parent.set({})
