"""Observers of a core: told of finished requests, batches, warm-ups, shadow copies and resumed models.

One way to look on for metrics, samples, captures and experiments: derive from `Observer`, override what is needed, and
`Observers.add` it.

Thread: requests come on the server's loop or the caller's thread, batches on the runners', warm-ups on the manager's,
pairs on `tfserve-shadow`, resumed models on the thread that resumes them. An observer must be quick: what it is told of
waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .records import BatchRecord, Pair, RequestRecord, RequestTensors, WarmupRecord

_log = logging.getLogger(__name__)


class Observer:
    """Is told what happens; each method does nothing unless it is overridden."""

    def wants_tensors(self, model: str) -> bool:
        """Whether it wants to see the tensors of a model's requests. Asked for each request, so it must be cheap."""
        del model
        return False

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """A request was answered, has failed, or was abandoned by its client.

        Args:
            record: its numbers.
            tensors: what it carried, when an observer wanted the tensors of its model and it got as far as having any.
        """

    def on_batch(self, record: BatchRecord) -> None:
        """A batch was run."""

    def on_warmup(self, record: WarmupRecord) -> None:
        """A version's warm-up file was run."""

    def on_pair(self, pair: Pair) -> None:
        """A shadow copy was run."""

    def on_resumed(self, model: str) -> None:
        """A model is served again as an earlier process left it."""


class Observers(Observer):
    """The observers of a core; they come and go while requests run.

    An observer that raises is noted in the log: it changes neither a request's fate nor what other observers get. Only
    those that override a method are called, so that what no observer wants costs nothing.

    Attributes:
        hears_requests: whether an observer is told of requests.
        hears_batches: whether an observer is told of batches.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set(())

    def add(self, observer: Observer) -> None:
        """Tell it everything from now on; adding it twice is the same as once."""
        with self._lock:
            if all(other is not observer for other in self._all):
                self._set((*self._all, observer))

    def remove(self, observer: Observer) -> None:
        """Tell it nothing any more; one that was never added is no error."""
        with self._lock:
            self._set(tuple(other for other in self._all if other is not observer))

    def wants_tensors(self, model: str) -> bool:
        """Whether an observer wants to see the tensors of a model's requests."""
        for observer in self._of_tensors:
            try:
                if observer.wants_tensors(model):
                    return True
            except Exception:  # noqa: BLE001 - see the class
                _log.exception("%r failed", observer)
        return False

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None = None) -> None:
        """Tell of a request."""
        _tell(self._of_requests, lambda observer: observer.on_request(record, tensors))

    def on_batch(self, record: BatchRecord) -> None:
        """Tell of a batch."""
        _tell(self._of_batches, lambda observer: observer.on_batch(record))

    def on_warmup(self, record: WarmupRecord) -> None:
        """Tell of a warm-up file."""
        _tell(self._all, lambda observer: observer.on_warmup(record))

    def on_pair(self, pair: Pair) -> None:
        """Tell of a shadow copy."""
        _tell(self._all, lambda observer: observer.on_pair(pair))

    def on_resumed(self, model: str) -> None:
        """Tell of a model that is served again."""
        _tell(self._all, lambda observer: observer.on_resumed(model))

    def _set(self, observers: tuple[Observer, ...]) -> None:
        """Replace all observers; the caller holds the lock."""
        self._all = observers
        self._of_tensors = tuple(each for each in observers if _overrides(each.wants_tensors, Observer.wants_tensors))
        self._of_requests = tuple(each for each in observers if _overrides(each.on_request, Observer.on_request))
        self._of_batches = tuple(each for each in observers if _overrides(each.on_batch, Observer.on_batch))
        self.hears_requests, self.hears_batches = bool(self._of_requests), bool(self._of_batches)


def _overrides(method: object, default: object) -> bool:
    return getattr(method, "__func__", method) is not default


def _tell(observers: tuple[Observer, ...], tell: Callable[[Observer], None]) -> None:
    for observer in observers:
        try:
            tell(observer)
        except Exception:  # noqa: BLE001 - see `Observers`
            _log.exception("%r failed", observer)
