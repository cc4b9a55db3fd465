"""A sample of recent requests with their inputs and outputs, for display; off until it is switched on.

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

from ...types import Tensors
from .observer import Observer
from .records import RequestRecord, RequestTensors, num_bytes, own_copy

KEPT = 50
MAX_ROWS = 8
MAX_BYTES = 1 << 20
EVERY_S = 0.1
"""At most ten samples a second, and as many failures beside them: a busy server does not copy every request."""


class PhaseTimes(NamedTuple):
    """Where the time of a request went, in milliseconds; None for what is not known where it was sampled.

    Attributes:
        decode: body to tensors.
        queue: waiting for a batch.
        run: the model.
        encode: tensors to the response.
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
        at: when its response was written, seconds since the epoch.
        version: the version that answered, or None.
        signature: the signature's name.
        entrypoint: `REST`, `GRPC` or `KERNEL`.
        code: gRPC code name, `OK` for an answered request.
        message: what was wrong, public text; or "".
        num_rows: rows that it had.
        inputs: name -> its first rows, shape `(at most MAX_ROWS, ...)`.
        outputs: name -> its first rows; empty when it failed.
        is_cut: whether rows, or arrays that are too large, are missing.
        total_ms: from the first byte to the response.
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
    parts: PhaseTimes


@dataclass(frozen=True, slots=True)
class Samples:
    """What was sampled of a model.

    Attributes:
        is_on: whether sampling goes on.
        samples: the newest first.
    """

    is_on: bool
    samples: tuple[RequestSample, ...]


class RequestSamples(Observer):
    """The samples of a server's models.

    Args:
        now: the clock in seconds; tests give their own.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, deque[RequestSample]] = {}
        self._next_s: dict[tuple[str, bool], float] = {}
        self._numbers = itertools.count(1)
        self._models: frozenset[str] = frozenset()

    def switch(self, model: str, *, is_on: bool) -> None:
        """Begin or end sampling a model; what was kept stays until `forget`."""
        with self._lock:
            self._models = self._models | {model} if is_on else self._models - {model}
            self._kept.setdefault(model, deque(maxlen=KEPT))

    @property
    def is_on(self) -> bool:
        """Whether any model is sampled."""
        return bool(self._models)

    def wants_tensors(self, model: str) -> bool:
        """Whether requests of a model are sampled."""
        return model in self._models

    def forget(self, model: str) -> None:
        """Drop a model's samples and stop."""
        self.switch(model, is_on=False)
        with self._lock:
            self._kept.pop(model, None)

    def recent(self, model: str, limit: int = KEPT) -> list[RequestSample]:
        """The newest samples of a model, newest first."""
        with self._lock:
            return list(self._kept.get(model, ()))[::-1][:limit]

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Keep a finished request, if it is time for one."""
        if tensors is None or not self._is_due(record.model, is_good=record.code == "OK"):
            return
        times_s = (record.received_s, record.decoded_s, record.started_s, record.done_s, record.written_s)
        inputs, left_out = _copied(tensors.inputs)
        outputs, left_out_too = _copied(tensors.outputs or {})
        sample = RequestSample(
            number=next(self._numbers),
            at=time.time(),
            version=record.version,
            signature=record.signature,
            entrypoint=record.entrypoint,
            code=record.code,
            message=tensors.message,
            num_rows=record.num_rows,
            inputs=inputs,
            outputs=outputs,
            is_cut=left_out or left_out_too or record.num_rows > MAX_ROWS,
            total_ms=1e3 * record.latency_s,
            parts=PhaseTimes(*[_ms(*pair) for pair in itertools.pairwise(times_s)]),
        )
        with self._lock:
            if record.model in self._kept:
                self._kept[record.model].append(sample)

    def _is_due(self, model: str, *, is_good: bool) -> bool:
        now_s = self._now()
        with self._lock:
            if model not in self._models or now_s < self._next_s.get((model, is_good), 0.0):
                return False
            self._next_s[model, is_good] = now_s + EVERY_S
            return True


def _copied(tensors: Tensors) -> tuple[Mapping[str, np.ndarray], bool]:
    """The first rows of each, as own arrays; and whether one was too large."""
    found = {}
    for name, array in tensors.items():
        rows = array[:MAX_ROWS] if array.ndim else array
        if num_bytes({name: rows}) <= MAX_BYTES:
            found[name] = own_copy(rows)
    return found, len(found) < len(tensors)


def _ms(from_s: float | None, to_s: float | None) -> float | None:
    return None if from_s is None or to_s is None else 1e3 * (to_s - from_s)
