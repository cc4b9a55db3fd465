"""Who gets to see finished requests with their tensors: samples, a recording, the memory of an experiment.

Off until somebody wants a model; until then a request costs one look at `Taps.is_on`.

Thread: `Taps.add` on the server's loop or the caller's thread; the rest from any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from ...types import Tensors
from .metrics import RequestRecord

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A request's tensors on the way to the taps. Callers own the arrays: a tap that keeps them copies them.

    Attributes:
        inputs: name -> array.
        outputs: name -> array; None until it is answered, and for a request that failed.
        message: what was wrong, public text; or "".
    """

    inputs: Tensors
    outputs: Tensors | None = None
    message: str = ""


class Tap(Protocol):
    """Gets the requests of the models that it wants. It must be quick; one that raises is left out of the answer."""

    def wants(self, model: str) -> bool:
        """Whether it wants a model's requests; say `Taps.refresh` when that changes."""

    def add(self, record: RequestRecord, seen: Seen) -> None:
        """A request is over: answered, failed or abandoned by its client."""


class Taps:
    """The taps of a server.

    Args:
        names: the models that are served now.

    Attributes:
        is_on: whether anybody wants any model: what requests look at first.
    """

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._taps: tuple[Tap, ...] = ()
        self._wanted: frozenset[str] = frozenset()
        self.is_on = False

    def attach(self, tap: Tap) -> None:
        """Give requests to a tap from now on."""
        with self._lock:
            self._taps = (*self._taps, tap)
        self.refresh()

    def detach(self, tap: Tap) -> None:
        """Give it nothing any more; one that is not attached is no error."""
        with self._lock:
            self._taps = tuple(other for other in self._taps if other is not tap)
        self.refresh()

    def refresh(self) -> None:
        """Ask all taps again what they want: to be called when that or the models have changed."""
        with self._lock:
            self._wanted = frozenset(name for name in self._names() if any(tap.wants(name) for tap in self._taps))
            self.is_on = bool(self._wanted)

    def wants(self, model: str) -> bool:
        """Whether any tap wants a model's requests."""
        return model in self._wanted

    def add(self, record: RequestRecord, seen: Seen) -> None:
        """Hand a finished request to the taps that want it."""
        for tap in self._taps:
            try:
                if tap.wants(record.model):
                    tap.add(record, seen)
            except Exception:  # noqa: BLE001 - whoever looks on must not come between a request and its answer
                _log.exception("a tap failed on a request of %s", record.model)
