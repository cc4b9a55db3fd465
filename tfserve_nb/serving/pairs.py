"""What two versions answered to the same request, and who wants to know.

Thread: listeners are called on `tfserve-shadow`; the rest from any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..types import Tensors

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A request that one version answered, and what became of its copy for another.

    Attributes:
        model: the model's name.
        version_a: who answered the client.
        version_b: who got the copy.
        signature: the signature's name.
        inputs: name -> array `(rows, ...)`; a worker's requests come several at once.
        outputs_a: name -> array, row i for input row i.
        outputs_b: the same of `version_b`; None when it failed.
        error: why it failed, public text; or "".
        run_a_s: from the first start to the last end of the request's runs, in seconds.
        run_b_s: the same of the copy; 0 when it failed.
        at_s: when the copy was done, on the clock of `RequestRecord`.
    """

    model: str
    version_a: int
    version_b: int
    signature: str
    inputs: Tensors
    outputs_a: Tensors
    outputs_b: Tensors | None
    error: str
    run_a_s: float
    run_b_s: float
    at_s: float


Listener: TypeAlias = Callable[[Pair], None]
"""Told about each copy that ran; must be quick, or copies are left out meanwhile."""


class CopyCounts(NamedTuple):
    """What became of the copies for one version.

    Attributes:
        num_run: it answered.
        num_failed: it was run, or refused its inputs, and gave no answer.
        num_dropped: left out: there was no room or no time, or the version went away.
    """

    num_run: int = 0
    num_failed: int = 0
    num_dropped: int = 0


class Pairs:
    """The fan-out of pairs, and their counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._counts: dict[tuple[str, int], CopyCounts] = {}

    def add(self, listener: Listener) -> None:
        """Tell it about each pair from now on."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Tell it nothing any more; one that was never added is no error."""
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other != listener)

    def num_dropped(self, model: str) -> int:
        """Copies of a model's requests that were left out since the server started."""
        return sum(counts.num_dropped for (name, _), counts in self.counts().items() if name == model)

    def counts(self) -> Mapping[tuple[str, int], CopyCounts]:
        """(model, version) -> what became of the copies for it since the server started."""
        with self._lock:
            return dict(self._counts)

    def tell(self, pair: Pair) -> None:
        """A copy was run; a listener that raises is noted in the log."""
        failed = pair.outputs_b is None
        self._count(pair.model, pair.version_b, CopyCounts(0, 1) if failed else CopyCounts(1))
        for listener in self._listeners:
            try:
                listener(pair)
            except Exception:  # noqa: BLE001 - whatever a listener does, copies go on
                _log.exception("a listener failed on a copy for version %d of %s", pair.version_b, pair.model)

    def dropped(self, model: str, version: int) -> None:
        """A copy was left out."""
        self._count(model, version, CopyCounts(0, 0, 1))

    def _count(self, model: str, version: int, more: CopyCounts) -> None:
        with self._lock:
            before = self._counts.get((model, version), CopyCounts())
            self._counts[model, version] = CopyCounts(*[a + b for a, b in zip(before, more, strict=True)])
