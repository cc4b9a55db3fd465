"""Load without a socket: `Deployment.predict` called from threads of this process, for comparison with HTTP.

The callers share the interpreter with the server and with everything else in the kernel; results name the
protocol `kernel`.

Thread: one that keeps time, and one for each caller; all end with the run.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any  # the user's rows

from ...errors import DeadlineExceeded, ServingError
from .process import OnSamples
from .samples import OK, TIMED_OUT, Samples
from .schedule import Load, due_times

REPORT_EVERY_S = 0.25
MAX_CALLERS = 64
JOIN_S = 2.0

_Row = tuple[float, float, float, float, int]


def generate_here(predict: Callable[[Any], object], inputs: Sequence[Any], load: Load, on_samples: OnSamples) -> None:
    """Call `predict` as the load describes, as `process.generate` sends requests.

    Args:
        predict: raises `ServingError` when it fails.
        inputs: one value for each call, in turn.
        load: how calls come; at most `MAX_CALLERS` at the same time.
        on_samples: gets what is new, and at last what was left, on the calling thread.
    """
    run = _Run(predict, inputs, load)
    try:
        run.start()
        while not run.is_over:
            time.sleep(REPORT_EVERY_S)
            if not on_samples(run.new_samples()):
                break
    finally:
        run.stop()
    on_samples(run.new_samples())


class _Run:
    """The threads of one run."""

    def __init__(self, predict: Callable[[Any], object], inputs: Sequence[Any], load: Load) -> None:
        self._predict = predict
        self._inputs = itertools.cycle(inputs)
        self._load = load
        self._due: queue.SimpleQueue[tuple[float, float] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Row] = queue.SimpleQueue()
        self._reasons: dict[int, str] = {}
        self._stop = threading.Event()
        self._num_callers = min(MAX_CALLERS, load.concurrency or load.connections)
        self._threads = [
            threading.Thread(target=self._call, name=f"tfserve-bench-caller-{number}", daemon=True)
            for number in range(self._num_callers)
        ]
        if load.is_open:
            self._threads.append(threading.Thread(target=self._keep_time, name="tfserve-bench-clock", daemon=True))

    def start(self) -> None:
        """Start all threads."""
        self._start_s = time.perf_counter() + 0.05
        self._until_s = self._start_s + self._load.warmup_s + self._load.seconds
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        """Whether every call has come back."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End all threads; a call that runs is waited for, within bounds."""
        self._stop.set()
        for _ in range(self._num_callers):
            self._due.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_S)

    def new_samples(self) -> Samples:
        """What became of calls since the last time."""
        rows: list[_Row] = []
        while not self._done.empty():
            rows.append(self._done.get())
        zero_s = self._start_s + self._load.warmup_s
        return Samples.of([(*(at - zero_s for at in row[:4]), row[4]) for row in rows], dict(self._reasons))  # type: ignore[misc]  # four numbers

    def _keep_time(self) -> None:
        for offset_s in due_times(self._load).tolist():
            due_s = self._start_s + offset_s
            wait_s = due_s - time.perf_counter()
            if wait_s > 0 and self._stop.wait(wait_s):
                return
            self._due.put((due_s, time.perf_counter()))
        for _ in range(self._num_callers):
            self._due.put(None)

    def _call(self) -> None:
        if self._load.is_open:
            while (due := self._due.get()) is not None and not self._stop.is_set():
                self._call_once(*due)
            return
        self._stop.wait(max(0.0, self._start_s - time.perf_counter()))
        while not self._stop.is_set() and (now_s := time.perf_counter()) < self._until_s:
            self._call_once(now_s, now_s)

    def _call_once(self, due_s: float, taken_s: float) -> None:
        sent_s = time.perf_counter()
        status = OK
        try:
            self._predict(next(self._inputs))
        except DeadlineExceeded:
            status = TIMED_OUT
        except ServingError as error:
            status = error.http_status
            self._reasons.setdefault(status, error.message)
        self._done.put((due_s, taken_s, sent_s, time.perf_counter(), status))
