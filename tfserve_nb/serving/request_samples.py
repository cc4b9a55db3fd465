"""A sample of recent requests with their inputs and outputs, for people who want to look; off until somebody asks.

Bounded in number, in rows and in bytes: a model holds at most `KEPT` samples of `MAX_ROWS` rows whose arrays are at
most `MAX_BYTES` each, larger ones are left out. Headers and tokens are never kept, and nothing leaves this process's
memory. Requests whose body could not be read are not among them.

Thread: any; one lock, taken only while sampling is on.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..types import Tensors
from .metrics import RequestRecord

KEPT = 50
MAX_ROWS = 8
MAX_BYTES = 1 << 20
EVERY_S = 0.1
"""At most ten samples a second, and as many failures beside them: a load shall not copy every request."""


class Parts(NamedTuple):
    """Where the time of a request went, in milliseconds; None for what is not known where it was sampled.

    Attributes:
        decode: body to tensors.
        queue: waiting for a batch.
        run: the model.
        encode: tensors to the answer.
    """

    decode: float | None
    queue: float | None
    run: float | None
    encode: float | None


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One request.

    Attributes:
        number: counts the samples of a model.
        at: when its answer was written, seconds since the epoch.
        version: who answered, or None.
        signature: the signature's name.
        entrypoint: `REST`, `GRPC`, `KERNEL`, or `FRONT END` for one that a front end passed on.
        code: gRPC code name, `OK` for an answered request.
        message: what was wrong, public text; or "".
        num_rows: rows that it had.
        inputs: name -> its first rows, shape `(at most MAX_ROWS, ...)`.
        outputs: name -> its first rows; empty when it failed.
        is_cut: whether rows, or arrays that are too large, are missing.
        total_ms: from the first byte to the answer; for `FRONT END` the run alone.
        parts: where that time went.
    """

    number: int
    at: float
    version: int | None
    signature: str
    entrypoint: str
    code: str
    message: str
    num_rows: int
    inputs: Tensors
    outputs: Tensors
    is_cut: bool
    total_ms: float
    parts: Parts


class Samples(NamedTuple):
    """What was sampled of a model.

    Attributes:
        is_on: whether sampling goes on.
        samples: the newest first.
    """

    is_on: bool
    samples: tuple[RequestSample, ...]


class Seen(NamedTuple):
    """A request's tensors on the way to its sample.

    Attributes:
        inputs: name -> array.
        outputs: name -> array; None until it is answered.
        message: what was wrong, or "".
    """

    inputs: Tensors
    outputs: Tensors | None = None
    message: str = ""


class RequestSamples:
    """The samples of a server's models.

    Args:
        now: the clock in seconds; tests give their own.

    Attributes:
        is_on: whether any model is sampled: what requests look at first.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, deque[RequestSample]] = {}
        self._next_s: dict[tuple[str, bool], float] = {}
        self._numbers = itertools.count(1)
        self._models: frozenset[str] = frozenset()
        self.is_on = False

    def turn(self, model: str, *, is_on: bool) -> None:
        """Begin or end sampling a model; what was kept stays until `forget`."""
        with self._lock:
            self._models = self._models | {model} if is_on else self._models - {model}
            self.is_on = bool(self._models)
            self._kept.setdefault(model, deque(maxlen=KEPT))

    def wants(self, model: str) -> bool:
        """Whether requests of a model are sampled."""
        return model in self._models

    def forget(self, model: str) -> None:
        """Drop a model's samples and stop."""
        self.turn(model, is_on=False)
        with self._lock:
            self._kept.pop(model, None)

    def recent(self, model: str, limit: int = KEPT) -> list[RequestSample]:
        """The newest samples of a model, newest first."""
        with self._lock:
            return list(self._kept.get(model, ()))[::-1][:limit]

    def add(self, record: RequestRecord, seen: Seen) -> None:
        """Keep a finished request, if it is time for one."""
        is_good = record.code == "OK"
        if self._is_due(record.model, is_good=is_good):
            started_s, done_s = record.started_s, record.done_s
            parts = Parts(
                _ms(record.received_s, record.decoded_s),
                _ms(record.decoded_s, started_s),
                _ms(started_s, done_s),
                _ms(done_s, record.written_s),
            )
            where = (record.version, record.signature, record.entrypoint)
            self._keep(record.model, where, record.code, seen, record.num_rows, 1e3 * record.latency_s, parts)

    def add_run(
        self, model: str, version: int, signature: str, seen: Seen, num_rows: int, run_s: tuple[float, float]
    ) -> None:
        """The same for a request of which only the run is known.

        Args:
            model: its model.
            version: who answered.
            signature: the signature's name.
            seen: its tensors.
            num_rows: rows that it had.
            run_s: when its run started and was done.
        """
        if self._is_due(model, is_good=True):
            run_ms = 1e3 * (run_s[1] - run_s[0])
            parts = Parts(None, None, run_ms, None)
            self._keep(model, (version, signature, "FRONT END"), "OK", seen, num_rows, run_ms, parts)

    def _is_due(self, model: str, *, is_good: bool) -> bool:
        now_s = self._now()
        with self._lock:
            if model not in self._models or now_s < self._next_s.get((model, is_good), 0.0):
                return False
            self._next_s[model, is_good] = now_s + EVERY_S
            return True

    def _keep(
        self, model: str, where: tuple[int | None, str, str], code: str, seen: Seen, num_rows: int, total_ms: float,
        parts: Parts,
    ) -> None:  # fmt: skip
        inputs, left_out = _copied(seen.inputs)
        outputs, left_out_too = _copied(seen.outputs or {})
        version, signature, entrypoint = where
        sample = RequestSample(
            next(self._numbers), time.time(), version, signature, entrypoint, code, seen.message, num_rows, inputs,
            outputs, left_out or left_out_too or num_rows > MAX_ROWS, total_ms, parts,
        )  # fmt: skip
        with self._lock:
            if model in self._kept:
                self._kept[model].append(sample)


def _copied(tensors: Tensors) -> tuple[Mapping[str, np.ndarray], bool]:
    """The first rows of each, as own arrays; and whether one was too large."""
    found = {}
    for name, array in tensors.items():
        rows = array[:MAX_ROWS] if array.ndim else array
        if _size(rows) <= MAX_BYTES:
            found[name] = rows.copy()
            found[name].flags.writeable = False
    return found, len(found) < len(tensors)


def _size(array: np.ndarray) -> int:
    if array.dtype != object:
        return int(array.nbytes)
    return sum(len(item) for item in array.reshape(-1))


def _ms(from_s: float | None, to_s: float | None) -> float | None:
    return None if from_s is None or to_s is None else 1e3 * (to_s - from_s)
