"""A buffer of what the server observed of an experiment, until the experiment's thread has time for it.

Thread: everything but `empty_into` is called on the server's threads and only appends; `empty_into` on the experiments'
thread. A deque's ends can be used by two threads at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ...serving.telemetry.observer import Observer
from ...serving.telemetry.records import BatchRecord, Pair, RequestRecord, RequestTensors
from ...types import Tensors
from ..plan import Plan
from .observations import Observations

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REQUESTS = 200_000
MAX_PAIRS = 500
"""The most that may wait between two evaluations; the oldest of more are dropped, which hits both arms alike."""
MAX_WAITING_BYTES = 64 << 20
"""Of outputs, and of copies again, that wait; about so much, as if all were as large as the newest."""


class Inbox(Observer):
    """Observes the two versions of one plan.

    Args:
        plan: whose requests, batches and copies are kept.

    Attributes:
        versions: the two.
    """

    def __init__(self, plan: Plan) -> None:
        self._name = plan.name
        self._arms = {plan.a: "a", plan.b: "b"}
        self.versions = frozenset(self._arms)
        self._requests: deque[RequestRecord] = deque(maxlen=MAX_REQUESTS)
        self._batches: deque[BatchRecord] = deque(maxlen=MAX_REQUESTS)
        self._pairs: deque[Pair] = deque(maxlen=MAX_PAIRS)
        self._outputs: deque[tuple[str, float, Tensors]] = deque(maxlen=MAX_PAIRS)

    def wants_tensors(self, model: str) -> bool:
        """Outputs are checked for NaN and infinity."""
        return model == self._name

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Keep a request that the traffic gave to one of the arms, and copies of all outputs of the arms."""
        if record.model != self._name or record.version not in self._arms:
            return
        if record.is_assigned:
            self._requests.append(record)
        if tensors is not None and tensors.outputs:
            own = {name: array.copy() for name, array in tensors.outputs.items()}  # clients may write to theirs
            _keep(self._outputs, (self._arms[record.version], record.written_s, own), own)

    def on_batch(self, record: BatchRecord) -> None:
        """Keep a run of one of the arms."""
        if record.model == self._name and record.version in self._arms:
            self._batches.append(record)

    def on_pair(self, pair: Pair) -> None:
        """Keep a request that both answered, one of them for a client and the other as a copy."""
        versions = {pair.version_a, pair.version_b}
        if pair.model == self._name and versions == self.versions:
            _keep(self._pairs, pair, pair.inputs, pair.outputs_a, pair.outputs_b or {})

    def empty_into(self, observations: Observations, zero_s: float) -> int:
        """Hand everything over.

        Args:
            observations: gets it.
            zero_s: when the experiment began, on `perf_counter`'s clock.

        Returns:
            How much there was.
        """
        num = _drained(self._requests, lambda record: self._add_request(observations, record, zero_s))
        num += _drained(self._outputs, lambda one: observations.add_outputs(one[0], one[1] - zero_s, one[2]))
        num += _drained(self._batches, lambda record: self._add_batch(observations, record, zero_s))
        return num + _drained(self._pairs, lambda pair: self._add_pair(observations, pair, zero_s))

    def _add_request(self, observations: Observations, record: RequestRecord, zero_s: float) -> None:
        observations.add_request(
            self._arms[record.version or 0],
            at_s=record.written_s - zero_s,
            latency_s=record.latency_s,
            code=record.code,
            key=record.key,
            is_assigned=record.is_assigned,
        )

    def _add_batch(self, observations: Observations, record: BatchRecord, zero_s: float) -> None:
        observations.add_batch(
            self._arms[record.version],
            at_s=record.done_s - zero_s,
            size=record.execution_rows,
            run_s=record.run_s,
            is_background=record.is_background,
        )

    def _add_pair(self, observations: Observations, pair: Pair, zero_s: float) -> None:
        at_s, copied_to = pair.at_s - zero_s, self._arms[pair.version_b]
        outputs_a, outputs_b = pair.outputs_a, pair.outputs_b
        if copied_to == "a":
            observations.add_pair(at_s, pair.inputs, outputs_b, outputs_a, copied_to=copied_to)
        else:
            observations.add_pair(at_s, pair.inputs, outputs_a, outputs_b, copied_to=copied_to)


def _keep(waiting: deque[T], item: T, *parts: Tensors) -> None:
    """Let something wait; the oldest make room."""
    num_bytes = sum([array.nbytes for tensors in parts for array in tensors.values()])
    waiting.append(item)
    while len(waiting) > 1 and len(waiting) * num_bytes > MAX_WAITING_BYTES:
        try:
            waiting.popleft()
        except IndexError:  # the experiments' thread was faster
            return


def _drained(waiting: deque[T], take: Callable[[T], None]) -> int:
    """Take what waits now; others may add meanwhile, or drop what is too much."""
    num = 0
    for _ in range(len(waiting)):
        try:
            item = waiting.popleft()
        except IndexError:
            break
        num += 1
        try:
            take(item)
        except Exception:  # noqa: BLE001 - an output that cannot be read must not stop the others
            _log.exception("an experiment could not read an observation")
    return num
