"""Observers of a core: they get finished requests, batches, warm-ups, shadow copies and resumed models.

Metrics, samples, captures and experiments all observe in the same way: derive from `Observer`, override the methods
that are needed, and `Observers.add` it.

Thread: requests come on the server's loop or the caller's thread, batches on the runners', warm-ups on the manager's,
pairs on `tfserve-shadow`, resumed models on the thread that resumes them. An observer must be quick: the
thread that calls it waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .records import BatchRecord, Pair, RequestRecord, RequestTensors, WarmupRecord

_log = logging.getLogger(__name__)


class Observer:
    """Gets what happens in a core; each method does nothing unless it is overridden."""

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

    An exception of an observer is logged: it changes neither the outcome of a request nor what other observers get.
    Only observers that override a method are called, so that what no observer wants costs nothing.

    Attributes:
        hears_requests: whether an observer gets requests.
        hears_batches: whether an observer gets batches.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set(())

    def add(self, observer: Observer) -> None:
        """Call an observer from now on; adding it twice is the same as once."""
        with self._lock:
            if all(other is not observer for other in self._all):
                self._set((*self._all, observer))

    def remove(self, observer: Observer) -> None:
        """Do not call an observer any more; one that was never added is no error."""
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
        """Pass a finished request on."""
        _call_each(self._of_requests, lambda observer: observer.on_request(record, tensors))

    def on_batch(self, record: BatchRecord) -> None:
        """Pass a batch on."""
        _call_each(self._of_batches, lambda observer: observer.on_batch(record))

    def on_warmup(self, record: WarmupRecord) -> None:
        """Pass the run of a warm-up file on."""
        _call_each(self._all, lambda observer: observer.on_warmup(record))

    def on_pair(self, pair: Pair) -> None:
        """Pass a shadow copy on."""
        _call_each(self._all, lambda observer: observer.on_pair(pair))

    def on_resumed(self, model: str) -> None:
        """Pass on that a model is served again."""
        _call_each(self._all, lambda observer: observer.on_resumed(model))

    def _set(self, observers: tuple[Observer, ...]) -> None:
        """Replace all observers; the caller holds the lock."""
        self._all = observers
        self._of_tensors = tuple(each for each in observers if _overrides(each.wants_tensors, Observer.wants_tensors))
        self._of_requests = tuple(each for each in observers if _overrides(each.on_request, Observer.on_request))
        self._of_batches = tuple(each for each in observers if _overrides(each.on_batch, Observer.on_batch))
        self.hears_requests, self.hears_batches = bool(self._of_requests), bool(self._of_batches)


def _overrides(method: object, default: object) -> bool:
    return getattr(method, "__func__", method) is not default


def _call_each(observers: tuple[Observer, ...], call: Callable[[Observer], None]) -> None:
    for observer in observers:
        try:
            call(observer)
        except Exception:  # noqa: BLE001 - see `Observers`
            _log.exception("%r failed", observer)
