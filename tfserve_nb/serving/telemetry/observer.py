"""What the core tells to whoever exports metrics: finished requests, batches and warm-ups.

Thread: requests on the server's loop or the caller's thread, batches on the runners', warm-ups on the manager's. An
observer must be quick and must not raise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .metrics import RequestRecord

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One run of a model.

    Attributes:
        model: the model's name.
        version: its version.
        signature: the signature's name.
        task_rows: rows of each request in it.
        num_inputs: input tensors of the signature.
        execution_rows: rows that the model got, padding included.
        waited_s: how long each request waited in the queue, in seconds.
        run_s: how long the run took, in seconds.
        reason: why the batch left: `full`, `timeout` or `free`.
        is_batched: whether requests may share runs here at all.
        done_s: when it was done, on the clock of `RequestRecord`.
        is_background: whether these were shadow copies, whose answers nobody gets.
    """

    model: str
    version: int
    signature: str
    task_rows: tuple[int, ...]
    num_inputs: int
    execution_rows: int
    waited_s: tuple[float, ...]
    run_s: float
    reason: str
    is_batched: bool
    done_s: float = 0.0
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class WarmupRecord:
    """One version whose warm-up file was run.

    Attributes:
        path: the version's folder.
        code: `OK`, or the code of what failed.
        num_records: requests that were read.
        took_s: in seconds.
    """

    path: str
    code: str
    num_records: int
    took_s: float


class Observer(Protocol):
    """Is told what happens."""

    def on_request(self, record: RequestRecord) -> None:
        """A request was answered or failed."""

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run."""

    def on_warmup(self, record: WarmupRecord) -> None:
        """A warm-up file was run."""


class Observers:
    """All observers of a core, itself an `Observer`; they come and go while requests run.

    One that raises is noted in the log: neither a request nor the runner's loop may end with it.

    Args:
        observers: those from the beginning.

    Attributes:
        is_on: whether there are any: what the hot path looks at.
    """

    def __init__(self, *observers: Observer) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Observer, ...] = observers
        self.is_on = bool(observers)

    def add(self, observer: Observer) -> None:
        """Tell it everything from now on."""
        with self._lock:
            self._all = (*self._all, observer)
            self.is_on = True

    def remove(self, observer: Observer) -> None:
        """Tell it nothing any more; one that was never added is no error."""
        with self._lock:
            self._all = tuple(other for other in self._all if other is not observer)
            self.is_on = bool(self._all)

    def on_request(self, record: RequestRecord) -> None:
        """A request was answered or failed."""
        self._tell(lambda one: one.on_request(record))

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run."""
        self._tell(lambda one: one.on_batch(record))

    def on_warmup(self, record: WarmupRecord) -> None:
        """A warm-up file was run."""
        self._tell(lambda one: one.on_warmup(record))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for one in self._all:
            try:
                tell(one)
            except Exception:  # noqa: BLE001 - see the class
                _log.exception("an observer failed")
